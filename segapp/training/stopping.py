"""Ctrl-C, SIGTERM and SLURM's signals: what is going on is brought to its end and saved, and only then the program
stops."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from segapp.base.errors import STOP_SIGNALS, Stopped

SAME_WISH = 2
"""Seconds."""


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
    """Notes the first signal; Ctrl-C a second time ends the program at once. Main thread only.

    A second signal soon after the first is the same wish, passed on by torchrun or the queue.
    """
    request = StopRequest()
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    first = 0.0

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal first
        if request.signal is None:
            request.signal, first = number, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - first > SAME_WISH:
            raise KeyboardInterrupt

    for number in STOP_SIGNALS:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
