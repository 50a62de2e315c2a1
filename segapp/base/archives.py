"""The only place that unpacks archives. What is in them is untrusted."""

import gzip
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any, Literal, cast

from segapp.base.errors import UserError, disk_error, megabytes, plain

MOST_MEMBERS = 200_000  # of an archive; COCO's largest has 118,288
_MOST_METADATA = 1_000_000  # bytes of headers for one member of an archive
_CHUNK = 1 << 18  # bytes


def extract(archive: Path, folder: Path, is_needed: Callable[[str], bool], *, limit: int) -> list[Path]:
    """Unpacks the files whose name in the archive, without a leading ./, is `is_needed`; returns their paths.

    Other members are passed over, whatever they are. Together those needed may have `limit` bytes.

    Raises:
        UserError: no sound .tar, .tar.gz or .zip, or one with something in it that must not be unpacked; nothing of
            it is left.
    """
    made: list[Path] = []  # files, and the folders made for them, in order
    try:
        files = list(_extracted(archive, folder, is_needed, limit, made))
    except BaseException as error:
        for path in reversed(made):
            with suppress(OSError):
                path.rmdir() if path.is_dir() else path.unlink()
        if isinstance(error, OSError):
            raise UserError(
                f"{archive} was not unpacked: {disk_error(folder, error, otherwise='take another folder')}"
            ) from None
        raise
    return files


def extract_each(archive: Path, folder: Path, is_needed: Callable[[str], bool], *, limit: int) -> Iterator[Path]:
    """As `extract`, file by file, for an archive of archives: what is done with one may move or remove it.

    Raises:
        UserError: as `extract`; what was unpacked before is left.
    """
    return _extracted(archive, folder, is_needed, limit, [])


def _extracted(
    archive: Path, folder: Path, is_needed: Callable[[str], bool], limit: int, made: list[Path]
) -> Iterator[Path]:
    total = 0
    for member in (_zip_members if zipfile.is_zipfile(archive) else _tar_members)(archive):
        name = PurePosixPath(member.name).as_posix()
        if member.kind == "folder" or not is_needed(name):
            continue
        parts = PureWindowsPath(name).parts  # refuses what either system takes for a way out
        if not parts or ".." in parts or PureWindowsPath(name).anchor or not name.isprintable():
            raise UserError(f"{archive} holds a file with the unsafe name {name!r}; it was not unpacked")
        if member.kind == "other":
            raise UserError(f"{archive}: {name} is a link or a special file; the archive was not unpacked")
        total += member.size
        if total > limit:
            raise UserError(f"{archive} unpacks to more than {megabytes(limit)}; it was not unpacked")
        target = folder / name
        for parent in reversed(target.parents):
            if folder in parent.parents and not parent.exists():
                parent.mkdir()
                made.append(parent)
        try:
            file = target.open("xb")
        except FileExistsError:
            raise UserError(f"{archive} holds {name} twice, or {target} was there before; remove it first") from None
        made.append(target)
        with file:
            for chunk in member.content:
                file.write(chunk)
        yield target


Kind = Literal["file", "folder", "other"]


@dataclass(frozen=True)
class _Member:
    """`content` is to be read before the next member is asked for."""

    name: str
    size: int
    kind: Kind
    content: Iterator[bytes]


def _zip_members(archive: Path) -> Iterator[_Member]:
    def content(member: zipfile.ZipInfo) -> Iterator[bytes]:
        left = member.file_size
        with ExitStack() as inner:
            with _reading(archive):
                file = inner.enter_context(opened.open(member))
            while True:
                with _reading(archive):
                    chunk = file.read(min(_CHUNK, left + 1))
                    left -= len(chunk)
                    if left < 0:
                        raise zipfile.BadZipFile("larger than it says")
                if not chunk:
                    return
                yield chunk

    with ExitStack() as stack:
        with _reading(archive):
            opened = stack.enter_context(zipfile.ZipFile(archive))
        if len(opened.infolist()) > MOST_MEMBERS:
            raise UserError(f"{archive} has more than {MOST_MEMBERS} members; it was not unpacked")
        for member in opened.infolist():
            mode = stat.S_IFMT(member.external_attr >> 16)
            kind: Kind = "folder" if member.is_dir() else "file" if mode in (0, stat.S_IFREG) else "other"
            yield _Member(member.filename, member.file_size, kind, content(member))


class _Forward:
    """A file that tarfile may only read onwards, and only so much of at once.

    tarfile's own streams take a cut archive for a whole one, and read a header of any size into memory.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._position = 0
        self._allowed = 0  # bytes that may still be read
        self.last = b""  # what was read last

    def allow(self, size: int) -> None:
        self._allowed = size

    def tell(self) -> int:
        return self._position

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self._allowed:
            raise tarfile.ReadError("a header too large, or of a size below 0")
        self._allowed -= size
        self.last = self._file.read(size)
        self._position += len(self.last)
        return self.last

    def seek(self, position: int) -> None:
        while self._position < position:
            skipped = len(self._file.read(min(_CHUNK, position - self._position)))
            if not skipped:
                raise tarfile.ReadError("cut short")
            self._position += skipped
        if self._position > position:
            raise tarfile.ReadError("a size below 0")


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Damage shows in tarfile and gzip as errors of many kinds, plain ValueError and KeyError among them."""
    try:
        yield
    except Exception as error:
        raise UserError(
            f"{archive} is no .tar, .tar.gz or .zip, or a damaged one ({plain(str(error))}); remove it to get it anew"
        ) from None


def _tar_members(archive: Path) -> Iterator[_Member]:
    def content(member: tarfile.TarInfo) -> Iterator[bytes]:
        with _reading(archive):
            source.allow(member.size + _MOST_METADATA)
            file = tar.extractfile(member)
        while file is not None:
            with _reading(archive):
                chunk = file.read(_CHUNK)
            if not chunk:
                break
            yield chunk

    with ExitStack() as stack:
        with _reading(archive):
            file: IO[bytes] = stack.enter_context(archive.open("rb"))
            zipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            if zipped:
                file = cast("IO[bytes]", stack.enter_context(gzip.open(file)))
            source: Any = _Forward(file)
            source.allow(_MOST_METADATA)
            tar: Any = stack.enter_context(tarfile.open(fileobj=source, mode="r:"))
        for _ in range(MOST_MEMBERS + 1):
            with _reading(archive):
                source.allow(_MOST_METADATA)
                member = tar.next()
                if member is None:
                    if source.last != bytes(tarfile.BLOCKSIZE):
                        raise tarfile.ReadError("cut short")
                    while file.read(_CHUNK):  # gzip checks its own checksum at the end
                        pass
                    return
                if member.size < 0:
                    raise tarfile.ReadError("a size below 0")
                tar.members, tar.pax_headers = [], {}  # else it keeps those of all members
            is_file = member.isreg() and not member.issparse()
            kind: Kind = "folder" if member.isdir() else "file" if is_file else "other"
            yield _Member(member.name, member.size, kind, content(member))
        raise UserError(f"{archive} has more than {MOST_MEMBERS} members; it was not unpacked")
