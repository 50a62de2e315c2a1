"""Where log lines go."""

import logging
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from segapp.base.distributed import rank


def progress_bar(
    total: int | None, what: str, unit: str, *, done: int = 0, leave: bool = True, unit_scale: bool = False
) -> "tqdm[Any]":
    """A bar with rate and, if the total is known, ETA on standard error; in a file, a line now and then."""
    interval = 0.1 if sys.stderr.isatty() else 20.0  # seconds
    return tqdm(
        total=total,
        desc=what,
        unit=unit,
        unit_scale=unit_scale,
        initial=done,
        leave=leave,
        disable=total == 0 or rank() > 0,
        mininterval=interval,
        maxinterval=interval,
    )


class ProgressHandler(logging.Handler):
    """Writes to standard error without breaking a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


def log_to_file(path: Path) -> None:
    """Keeps a copy of the log."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logging.getLogger().addHandler(handler)
