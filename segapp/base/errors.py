"""The one exception that a tool shows as a single line, and words for such lines."""

import errno
import signal as signals
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T", bound=Hashable)

MOST_SHOWN = 4000
"""Characters of a message: names in it may be of any length."""


class UserError(Exception):
    """Something a user can mend: the message says what is wrong and what to do, in one line.

    Whatever a damaged file put into it: lines are joined, what cannot be shown is escaped, and of a vast message both
    ends are left.
    """

    def __init__(self, message: str) -> None:
        line = " ".join(message.splitlines())
        message = "".join(each if each.isprintable() else repr(each)[1:-1] for each in line)
        half = MOST_SHOWN // 2
        super().__init__(message if len(message) <= MOST_SHOWN else f"{message[:half]} ... {message[-half:]}")


STOP_SIGNALS = tuple(
    getattr(signals, name)
    for name in ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2")  # the last two as SLURM and submitit send them, if told to
    if hasattr(signals, name)
)
"""At which training saves what there is, and ends."""


class Stopped(BaseException):
    """The work is saved; `signal` asked for the end. The exit status is the usual 128 + signal."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


def and_more(count: int) -> str:
    """What follows the first of `count` things alike."""
    return f" (and {count - 1} more)" if count > 1 else ""


def number_of(count: int, noun: str) -> str:
    """1 and "class" to "1 class", 2 to "2 classes"."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun}{'es' if noun.endswith('s') else 's'}"


def first_twice(values: Iterable[T]) -> T:
    """The first value that has come before; there must be one."""
    seen: set[T] = set()
    return next(value for value in values if value in seen or seen.add(value))  # type: ignore[func-returns-value]


OTHER_FOLDER = "name another cache folder with SEGAPP_CACHE=DIR"


def disk_error(folder: Path, error: OSError, full: str = "", otherwise: str = OTHER_FOLDER) -> UserError:
    """`full` is what more to say of a full disk."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UserError(f"the disk of {folder} is full{full}; make room, or {otherwise}")
    reason = f"{error.strerror or error}" + (f" ({error.filename})" if error.filename else "")
    return UserError(f"cannot use {folder}: {reason}; {otherwise}")


def plain(text: str) -> str:
    """Without what is not printable, such as a server may send or a file may hold."""
    return "".join(character if character.isprintable() else " " for character in text)


def megabytes(size: float) -> str:
    """Bytes, for people."""
    return f"{size / 1e6:.1f} MB"
