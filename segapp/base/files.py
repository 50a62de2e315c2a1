"""Files written whole or not at all."""

import codecs
import csv
import hashlib
import io
import json
import logging
import math
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from segapp.base.errors import UserError

log = logging.getLogger(__name__)

TEMPORARY = 12
"""Digits of a temporary file's name, after a dot."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, renamed to it on success and removed on failure.

    The temporary name keeps the suffix, for writers that choose a format by it.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex[:TEMPORARY]}{path.suffix}")  # no longer than a name may be
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Of writes that a killed process did not finish; nobody else may be writing there."""
    for path in folder.glob(f".{'[0-9a-f]' * TEMPORARY}*"):
        if len(path.stem) == TEMPORARY + 1:
            path.unlink(missing_ok=True)


def decode_text(content: bytes) -> str:
    """The text of a file, which may begin with UTF-8's mark.

    Raises:
        UserError: it is none; the message ends a sentence, and names UTF-16, which Windows calls Unicode.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        is_utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        what = "but UTF-16; save it as UTF-8" if is_utf16 else "which is needed"
        raise UserError(f"no text file in UTF-8, {what}") from None


@contextmanager
def file_lock(lock_file: Path, doing: str) -> Iterator[None]:
    """Waits, and says so, while another process does the same.

    The lock file stays: to delete it would let two processes hold locks of one name.
    """
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        log.info("another process is %s; waiting for it", doing)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def output_parent(folder: Path) -> Iterator[None]:
    """Makes the folder as `writable_folder` does; what was made goes again if an error leaves it empty.

    Raises:
        UserError: it cannot be made or written to.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    with discarded_if_empty(missing):
        writable_folder(folder)
        yield


@contextmanager
def discarded_if_empty(folders: Sequence[Path]) -> Iterator[None]:
    """Removes those that an error leaves empty, in order."""
    try:
        yield
    except BaseException:
        for folder in folders:
            with suppress(OSError):
                folder.rmdir()
        raise


@contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """An empty folder, gone in the end; what a killed process left in it goes at the next try."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=1) + "\n")


def sha256(path: Path) -> str:
    """Of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def writable_folder(path: Path) -> Path:
    """Makes the folder and tries a write in it, so that hours of work do not end at a read-only disk.

    Raises:
        UserError: it cannot be made or written to.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise UserError(f"cannot write to {path}: {error.strerror}; choose another folder with output=DIR") from None
    return path


def write_csv(path: Path, names: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table, whole or not at all; NaN as an empty cell."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(names)
    writer.writerows(
        [None if isinstance(value, float) and math.isnan(value) else value for value in row] for row in rows
    )
    # A file name that is not UTF-8 holds lone surrogates, which no text file can.
    write_text(path, file.getvalue().encode("utf-8", "replace").decode("utf-8"))
