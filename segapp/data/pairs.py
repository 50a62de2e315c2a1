"""Pairs images with their masks: by their names, and by lists as people have them."""

import logging
import os
import posixpath
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Literal

from segapp.base.errors import UserError, and_more, number_of
from segapp.base.files import decode_text
from segapp.base.images import IMAGE_SUFFIXES

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Unpaired:
    """A file, or a line of a list, that gives no image with its mask.

    kind: "absent_image": a list names it, and it is not there; "twin": another file has the same id;
        "mask_without_image": nothing uses it; "unread": files of an ending that is none of a picture's.
    """

    kind: Literal["absent_image", "image_without_mask", "twin", "mask_without_image", "unread"]
    file: str
    why: str


OnUnpaired = Callable[[Sequence[Unpaired]], None]
"""Told of all that is unpaired, before a data set is made of the rest."""


def refuse(unpaired: Sequence[Unpaired]) -> None:
    """Says which endings are not read.

    Raises:
        UserError: there are some, other than these and masks that nothing uses; the first one and their number are
            named.
    """
    for each in unpaired:
        if each.kind == "unread":
            _warn_once(f"{each.file}: {each.why}")
    needed = [each for each in unpaired if each.kind not in ("mask_without_image", "unread")]
    if needed:
        every = "; tools/prepare_data.py check lists them all" if len(needed) > 1 else ""
        raise UserError(f"{needed[0].file}{and_more(len(needed))}: {needed[0].why}{every}")


@lru_cache
def _warn_once(line: str) -> None:
    log.warning(line)


COMPANIONS = frozenset({"", ".csv", ".db", ".html", ".ini", ".json", ".md", ".txt", ".xml", ".yaml", ".yml"})
"""Endings of what lies beside pictures and is none."""


@dataclass(frozen=True)
class Files:
    """Pictures below a folder: their paths inside `root` by id.

    The id is the path inside the folder without suffix and `ending`, in Unicode's composed form (NFC): macOS writes
    names in the other one. `left_out`: files whose id another has, and endings that are not read.
    """

    root: Path
    folder: str
    ending: str
    paths: dict[str, str]
    left_out: list[Unpaired]

    def id_of(self, name: str) -> str | None:
        """Of a file that is named by its id, or by its path: inside the folder, inside `root`, or absolute.

        In either of Unicode's forms, and with Windows' backslashes.
        """
        name = composed(name)
        for path in (name, name.replace("\\", "/")):
            id = self._find(path)
            if id is None:
                id = self._find(self._inside(path))
            if id is not None:
                return id
        return None

    def _find(self, name: str) -> str | None:
        if name in self.paths:
            return name
        stem = name.rpartition(".")[0] if is_picture(name) else name
        id = stem.removesuffix(self.ending)
        return id if id in self.paths and stem.endswith(self.ending) else None

    def _inside(self, name: str) -> str:
        if name.startswith("/"):
            for root in self._roots:
                name = name.removeprefix(root)
            name = name.lstrip("/")  # DeepLab's first lists begin with one: /JPEGImages/...
        if name.startswith(".") or "/." in name or "//" in name:
            name = posixpath.normpath(name)
        before, star, after = self._folder
        chosen, slash, rest = name.removeprefix(before).partition(after)
        if not name.startswith(before) or not slash or (chosen and not star):
            return name
        return f"{chosen}/{rest}" if star else rest

    @cached_property
    def _roots(self) -> set[str]:
        return {f"{self.root.absolute()}/", f"{self.root.resolve()}/"}

    @cached_property
    def _folder(self) -> tuple[str, str, str]:
        """What stands before and behind its *; all before, where there is none."""
        before, star, after = os.path.normpath(self.folder).partition("*")
        return before, star, f"{after}/"


def find_files(root: Path, folder: str, *, ending: str = "", not_ending: str = "", suffix: str | None = None) -> Files:
    """Pictures in a folder and all folders below it; hidden ones are left out.

    Args:
        folder: a path inside root. A * stands for one folder of any name, with which the ids then begin.
        ending: only names that end so (before their suffix). not_ending: none that end so.
        suffix: only this one, as it stands; None: any of a picture.
    """
    before, star, after = os.path.normpath(folder).partition("*")
    folders = {"": before}  # by what the ids in them begin with
    if star:
        folders = {f"{path.name}/": f"{before}{path.name}{after}" for path in (root / before).glob("[!.]*")}
    paths: dict[str, str] = {}
    left_out: list[Unpaired] = []
    unread: Counter[str] = Counter()
    for prefix, inside in folders.items():
        for name in names_below(root / inside) if (root / inside).is_dir() else ():
            stem = name.rpartition(".")[0]
            fits = is_picture(name) if suffix is None else name.endswith(suffix)
            if not fits:
                unread[posixpath.splitext(name)[1].lower()] += 1
            if not fits or not stem.endswith(ending) or (not_ending and stem.endswith(not_ending)):
                continue
            id = composed(prefix + stem.removesuffix(ending))
            path = name if inside == "." else f"{inside}/{name}"
            if id in paths:
                path, twin = sorted((path, paths[id]))
                left_out.append(Unpaired("twin", str(root / twin), f"{path} has the same stem; each needs its own"))
            paths[id] = path
    for kind, number in sorted(unread.items()):
        if kind not in COMPANIONS and (suffix is None or is_picture(suffix)):
            read = "that of a picture" if suffix is None else suffix
            why = f"{number_of(number, 'file')} not read: the ending is not {read}"
            left_out.append(Unpaired("unread", str(root / folder / f"*{kind}"), why))
    return Files(root, folder, ending, paths, left_out)


def composed(name: str) -> str:
    """In Unicode's composed form (NFC), in which most systems write names."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def names_below(folder: Path) -> list[str]:
    """Paths inside the folder. One listing a folder, and no look at any file: a million take seconds."""
    names, todo = [], [""]
    while todo:
        inside = todo.pop()
        with os.scandir(folder / inside) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                if not entry.is_dir():
                    names.append(inside + entry.name)
                elif not (entry.is_symlink() and (folder / inside).resolve().is_relative_to(Path(entry).resolve())):
                    todo.append(f"{inside}{entry.name}/")  # but no link to a folder that holds it, which has no end
    return names


def is_hidden(name: str) -> bool:
    """Whether a file or a folder is the system's own: macOS' ._NAME and __MACOSX, and all that begins with a dot."""
    return name.startswith(".") or name == "__MACOSX"


def is_picture(name: str) -> bool:
    """By its suffix."""
    return f".{name.rpartition('.')[2].lower()}" in IMAGE_SUFFIXES


def not_there(folder: Path, names: Iterable[str]) -> list[str]:
    """Those of the paths inside `folder` that are missing."""
    names = list(names)
    present = _beside(folder, names)
    return [name for name in names if name not in present]


def as_on_disk(folder: Path, names: Sequence[str]) -> list[str]:
    """The paths inside `folder` in the form of Unicode in which they are there; the missing ones as they are."""
    if all(name.isascii() for name in names):
        return list(names)
    present = _beside(folder, names)
    by_form = {composed(name): name for name in present if not name.isascii()}
    return [name if name in present else by_form.get(composed(name), name) for name in names]


def _beside(folder: Path, names: Iterable[str]) -> set[str]:
    """All paths in the folders of these. On strings, and by listing: a million take a second."""
    return {
        posixpath.join(inner, entry.name)
        for inner in {name.rpartition("/")[0] for name in names}
        if (folder / inner).is_dir()
        for entry in os.scandir(folder / inner)
    }


def without_mask(ids: Sequence[str], images: Files, masks: Files) -> list[Unpaired]:
    """The images that have no mask of their id."""
    lacking = [id for id in ids if id not in masks.paths]
    why = f"no mask of the same stem in {masks.root / masks.folder}"
    if len(lacking) == len(ids) and masks.paths:
        named = min(masks.paths.values())
        why += f", they are named like {named}; data.image_ending and data.mask_ending tell endings"
    return [Unpaired("image_without_mask", str(images.root / images.paths[id]), why) for id in lacking]


def read_lines(path: Path) -> list[str]:
    """The lines of a list file, without the space around them; some may be empty.

    Raises:
        UserError: missing, no text, or empty.
    """
    try:
        text = decode_text(path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: the list of images cannot be read ({error.strerror})") from None
    except UserError as error:
        raise UserError(f"{path}: the list of images is {error}") from None
    lines = [line.strip() for line in text.splitlines()]
    if not any(lines):
        raise UserError(f"{path}: the list is empty; one image a line is expected")
    return lines


def read_list(path: Path, images: Files, masks: Files) -> tuple[list[str], list[Unpaired]]:
    """The ids of a list's images, and the lines that give none. A line names an image, or an image and its mask.

    Raises:
        UserError: the list is missing, no text, or empty, or an image is in it twice.
    """
    ids: dict[str, int] = {}
    unpaired = []
    for number, line in enumerate(read_lines(path), 1):
        if not line:
            continue
        line = composed(line)
        id, mask = (line, None) if line in images.paths else _image_and_mask(line, images)
        if id is None:
            why = f"no such image in {images.root / images.folder}, but {path}, line {number}, lists it"
            unpaired.append(Unpaired("absent_image", line, why))
        elif id in ids:
            raise UserError(f"{path}, line {number}: {line} is listed twice, on line {ids[id]} before")
        elif mask not in (None, masks.paths.get(id)) and masks.id_of(mask) != id:
            own = masks.paths.get(id, f"none in {masks.root / masks.folder}")
            why = f"its mask goes by its name ({own}), but {path}, line {number}, names {mask}"
            unpaired.append(Unpaired("image_without_mask", str(images.root / images.paths[id]), why))
        else:
            ids[id] = number
    return list(ids), unpaired


def _image_and_mask(line: str, images: Files) -> tuple[str | None, str | None]:
    """The id of the image that a line names, if it is there, and a mask named behind it. Names may hold spaces."""
    words = line.split()
    for at in range(1, len(words)):
        image, mask = " ".join(words[:at]), " ".join(words[at:])
        if is_picture(image) and is_picture(mask) and (id := images.id_of(image)) is not None:
            return id, mask
    return images.id_of(line), None
