"""Files and folders at an address, such as s3://BUCKET/DATA: copied once into the cache folder, through fsspec.

What comes from there is untrusted: no file is longer than it was said to be, and none lies outside its folder.
"""

import hashlib
import logging
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PureWindowsPath
from typing import Any
from urllib.parse import unquote

from segapp.base.cache import cache_folder
from segapp.base.download import fetch
from segapp.base.errors import OTHER_FOLDER, UserError, disk_error, megabytes, plain
from segapp.base.files import file_lock
from segapp.base.logs import progress_bar

log = logging.getLogger(__name__)

MOST_FILES = 2_000_000
_CHUNK = 1 << 20  # bytes
_AT_ONCE = 16  # files that are copied side by side


def is_address(name: object) -> bool:
    """Whether it is SCHEME://..., and not a path."""
    return isinstance(name, str) and re.match(r"[a-z][a-z0-9+.:-]+://", name) is not None


def cached(address: str) -> Path:
    """Where a copy lies, or would."""
    name = re.sub(r"[^\w.-]", "_", address.rstrip("/").rpartition("/")[2])[-80:] or "root"
    return cache_folder() / "remote" / hashlib.sha256(address.encode()).hexdigest()[:16] / name


def remote_file(address: str, *, inside: str, offline: bool = False) -> Path:
    """The file at `address`, or if that is a folder the file `inside` it; http:// and https:// as `fetch` gets them.

    Raises:
        UserError: it cannot be had.
    """
    if address.startswith(("http://", "https://")):
        return fetch(address, cached(address).parent, offline=offline).path
    path = cached(address)
    with _copying(address, path, offline) as wanted:
        if wanted:
            files, root = _opened(address)
            with _told(address):
                root = f"{root}/{inside}" if files.isdir(root) else root
                info = files.info(root)
            _copy_all(address, files, {root: (path.name, info["size"])}, path.parent)
    return path


def remote_folder(address: str, *, offline: bool = False) -> Path:
    """A copy of the folder at `address`, with all that is below it; one that was broken off is gone on with.

    Raises:
        UserError: it cannot be had.
    """
    path = cached(address)
    with _copying(address, path, offline) as wanted:
        if wanted:
            files, root = _opened(address)
            with _told(address):
                found = files.find(root, detail=True)
            if not found:
                raise UserError(f"{address}: no such folder, or no file in it")
            part = path.with_name(f"{path.name}.part")
            _copy_all(address, files, _inside(address, root, found), part)
            part.rename(path)
    return path


@contextmanager
def _copying(address: str, path: Path, offline: bool) -> Iterator[bool]:
    """Whether a copy is wanted: another process may have made one meanwhile."""
    if path.exists():
        yield False
        return
    if offline:
        raise UserError(f"offline=true, and {address} is not in the cache; leave offline=true away once")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(path.parent / "lock", f"copying {address}"):
            yield not path.exists()
    except OSError as error:
        raise disk_error(path.parent, error) from None


def _opened(address: str) -> tuple[Any, str]:
    """The file system and the path in it."""
    import fsspec  # takes a while, for what few have

    try:
        files, root = fsspec.core.url_to_fs(address)
    except ImportError as error:  # whose message names the library
        raise UserError(f"{address}: {' '.join(str(error).split())} (pip install it)") from None
    except ValueError as error:
        raise UserError(f"{address}: {error}") from None
    return files, root.rstrip("/")


@contextmanager
def _told(address: str) -> Iterator[None]:
    """Raises:
    UserError: in place of whatever a file system's library raises.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{address}: no such file or folder") from None
    except Exception as error:
        reason = plain(str(error)) or type(error).__name__
        raise UserError(f"{address} cannot be read: {' '.join(reason.split())}") from None


def _inside(address: str, root: str, found: dict[str, dict[str, Any]]) -> dict[str, tuple[str, int | None]]:
    """By the path there, the one inside the folder and the size in bytes, if it is told.

    Raises:
        UserError: too many files, or a name that leads out of the folder.
    """
    if len(found) > MOST_FILES:
        raise UserError(f"{address} holds {len(found)} files; at most {MOST_FILES} are copied")
    wanted = {}
    for there, info in found.items():
        name = there.removeprefix(f"{root}/")
        name = unquote(name) if root.startswith("http") else name
        parts = PureWindowsPath(name).parts  # refuses what either system takes for a way out
        if name == there or not parts or ".." in parts or PureWindowsPath(name).anchor or not name.isprintable():
            raise UserError(f"{address} holds a file with the unsafe name {name!r}; it was not copied")
        wanted[there] = name, info.get("size")
    return wanted


def _copy_all(address: str, files: Any, wanted: dict[str, tuple[str, int | None]], folder: Path) -> None:
    """Into `folder`, each file whole or not at all; those that are there with the right size stay.

    Raises:
        UserError: there is no room for them, or one is longer than it was said to be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(size or 0 for _, size in wanted.values())
    if total > (free := shutil.disk_usage(folder).free):
        room = f"{folder} has {megabytes(free)} free; make room, or {OTHER_FOLDER}"
        raise UserError(f"{address} takes {megabytes(total)}, and {room}")
    log.info("copying %s to %s, %s", address, folder, megabytes(total))
    with progress_bar(total or None, address, "B", leave=False, unit_scale=True) as bar:

        def copy(there: str) -> None:
            name, size = wanted[there]
            target = folder / name
            if not (size is not None and target.is_file() and target.stat().st_size == size):
                target.parent.mkdir(parents=True, exist_ok=True)
                _copy(files, there, target, size, free)
            bar.update(target.stat().st_size)

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(partial(_one, address, copy), wanted):
                pass


def _one(address: str, copy: Any, there: str) -> None:
    with _told(address):
        copy(there)


def _copy(files: Any, there: str, target: Path, size: int | None, room: int) -> None:
    most = room if size is None else size
    part = target.with_name(f"{target.name}.part")
    copied = 0
    try:
        with files.open(there, "rb") as source, part.open("wb") as file:
            while chunk := source.read(_CHUNK):
                copied += len(chunk)
                if copied > most:
                    raise UserError(f"{there} is over {most} bytes long, more than it was said to be; it was not kept")
                file.write(chunk)
        if size is not None and copied < size:
            raise UserError(f"{there} ended after {copied} of {size} bytes; it was not kept; try again")
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
