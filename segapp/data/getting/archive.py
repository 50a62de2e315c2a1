"""Downloads an archive, unpacks it and puts its files in place: whole or not at all, and once however often killed."""

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from segapp.base.archives import extract
from segapp.base.download import discard_download, fetch
from segapp.base.errors import UserError, disk_error
from segapp.base.files import file_lock, scratch_folder

log = logging.getLogger(__name__)

OTHER_ROOT = "name another folder with root=DIR, in training with data.root=DIR"


@dataclass(frozen=True)
class Archive:
    """A file to download.

    megabytes: about its size. unpacked: MB that its needed files take. is_needed: by their names in the archive.
    """

    url: str
    megabytes: int
    unpacked: int
    is_needed: Callable[[str], bool]
    md5: str | None = None

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


def get_archive(
    archive: Archive, base: Path, is_there: Callable[[], bool], install: Callable[[Path], None], *, offline: bool
) -> None:
    """Downloads and unpacks below `base`, beside where the files are to lie.

    Killed at any moment and started again, it goes on or starts over; two processes do not do it at once.

    Args:
        is_there: whether nothing is left to do.
        install: moves the needed files to where they belong, from the scratch folder in which they are unpacked.

    Raises:
        UserError: the archive cannot be had or unpacked, or the disk has no room for it.
    """
    try:
        base.mkdir(parents=True, exist_ok=True)
        with file_lock(base / f".{archive.name}.lock", f"getting {archive.name}"):
            if is_there():
                return
            check_room([archive], base)
            fetched = fetch(
                archive.url,
                base / "downloads",
                megabytes=archive.megabytes,
                md5=archive.md5,
                offline=offline,
                otherwise="data/README.md says where else it is; experiment=demo needs no data",
                elsewhere=OTHER_ROOT,
            )
            with scratch_folder(_scratch(archive, base)) as scratch:
                log.info("unpacking %s", fetched.path)
                extract(fetched.path, scratch, archive.is_needed, limit=2_000_000 * archive.unpacked)
                install(scratch)
            fetched.accept()
            fetched.discard()
    except OSError as error:
        raise disk_error(base, error, otherwise=OTHER_ROOT) from None


def discard_archive(archive: Archive, base: Path) -> None:
    """Removes what a killed process has left of an archive whose files are in place."""
    discard_download(base / "downloads" / archive.name)
    shutil.rmtree(_scratch(archive, base), ignore_errors=True)


def _scratch(archive: Archive, base: Path) -> Path:
    return base / f".{archive.name}.unpacking"


def tell_room(archives: Sequence[Archive], base: Path) -> None:
    """Logs how much of the disk getting the archives takes."""
    log.info("this needs about %.1f GB in %s", _gigabytes(archives, base), base)


def check_room(archives: Sequence[Archive], base: Path) -> None:
    """Raises:
    UserError: the disk has no room for the archives and what is in them.
    """
    needed, free = _gigabytes(archives, base), shutil.disk_usage(base).free / 1e9
    if needed > free:
        raise UserError(
            f"{base} has {free:.1f} GB free, and about {needed:.1f} GB are needed; make room, or {OTHER_ROOT}"
        )


def _gigabytes(archives: Sequence[Archive], base: Path) -> float:
    """What fetching and unpacking them takes."""
    there = {path.name for path in (base / "downloads").glob("*")}
    fetched = sum(each.megabytes for each in archives if each.name not in there)
    return (sum(each.unpacked for each in archives) + fetched) / 1e3
