"""Ctrl-C and SIGTERM: what is going on is brought to its end and saved, and only then the program stops."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from segapp.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopRequest:
    """`signal`: the one that came, or None."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def check(self) -> None:
        """Raises:
        Stopped: a signal has come; to be called where work can be left at once.
        """
        if self.signal is not None:
            raise Stopped(self.signal)


@contextmanager
def stop_request() -> Iterator[StopRequest]:
    """Notes the first signal; a second one ends the program as if there were no handler. Main thread only."""
    request = StopRequest()
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        request.signal = number
        restore()

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield request
    finally:
        restore()
