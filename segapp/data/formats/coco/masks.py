"""Draws a split's masks once, on all cores, into a folder that later starts find again."""

import gc
import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from segapp.base.cache import cache_folder
from segapp.base.classes import IGNORE_INDEX, voc_palette
from segapp.base.devices import available_cores
from segapp.base.errors import UserError, and_more
from segapp.base.files import decode_text, file_lock, sha256, write_json
from segapp.base.images import image_size
from segapp.base.logs import progress_bar
from segapp.base.masks import write_mask
from segapp.data.fates import Fate, Fates
from segapp.data.formats.coco.annotations import Chosen, Picture, read_annotations, stem_of
from segapp.data.formats.coco.drawing import draw
from segapp.data.pairs import OnUnpaired, Unpaired, as_on_disk, not_there

log = logging.getLogger(__name__)

VERSION = 1
"""Of the masks: raise it when the package's rules give other pixels."""
INDEX = "index.json"
"""Beside the masks, and written last: the class names, the images kept, and what became of the annotations."""
IMAGES_AT_ONCE = 32
"""Handed to a drawing process in one go."""


@dataclass(frozen=True)
class Source:
    """What masks are drawn from.

    name: as shown to people. images: their folder. annotations: the JSON file. classes: None for every category.
    min_pixels: of classes, that a mask must have to be kept.
    """

    name: str
    images: Path
    annotations: Path
    classes: Chosen | None
    min_pixels: int

    def key(self, annotations_hash: str) -> str:
        """Stands for all that the masks depend on, in the name of their folder."""
        classes = None if self.classes is None else list(self.classes.items())
        text = json.dumps([VERSION, annotations_hash, classes, self.min_pixels])
        return hashlib.sha256(text.encode()).hexdigest()[:20]

    def absent(self, file_names: Sequence[str]) -> list[Unpaired]:
        """Those images that are not in their folder."""
        why = f"no such file, but {self.annotations} lists it"
        absent = not_there(self.images, file_names)
        return [Unpaired("absent_image", str(self.images / file_name), why) for file_name in absent]


def draw_masks(source: Source, root: Path, on_unpaired: OnUnpaired) -> Path:
    """The folder of the masks, in `root` or, if that cannot be written to, in the cache; drawn if it is not there.

    Two processes draw them once; one that was killed leaves nothing that looks whole.

    Args:
        on_unpaired: told of absent images before anything is drawn.

    Raises:
        UserError: the annotations are damaged or do not fit the images; no folder can be written to.
    """
    content_hash = hash_of(source.annotations)
    key = source.key(content_hash)
    parents = (root / "segapp_masks", cache_folder() / "masks")
    folders = [parent / f"{source.annotations.stem[:60]}-{key}" for parent in parents]
    for folder in folders:
        if (folder / INDEX).is_file():
            return folder
    parent = _first_writable(parents)
    masks = folders[parents.index(parent)]
    with file_lock(parent / f".{key}.lock", f"drawing the masks of {source.name}"):
        if not masks.is_dir():
            _remove_partial(parent, key)
            partial = parent / f".{key}-{uuid.uuid4().hex[:8]}"  # a killed one's processes may yet write to theirs
            try:
                partial.mkdir()
                _draw_all(source, content_hash, partial, on_unpaired)
                partial.rename(masks)
            except BrokenProcessPool:
                raise UserError(
                    f"{source.name}: a process that draws masks was killed (is memory short?); start again"
                ) from None
            except OSError as error:
                raise UserError(f"{parent}: the masks cannot be written ({error.strerror or error})") from None
            finally:
                _remove_partial(parent, key)
    return masks


def _remove_partial(parent: Path, key: str) -> None:
    for partial in parent.glob(f".{key}-*"):
        shutil.rmtree(partial, ignore_errors=True)


def _draw_all(source: Source, content_hash: str, folder: Path, on_unpaired: OnUnpaired) -> None:
    name, annotations = source.name, source.annotations
    log.info("%s: drawing its masks, once, into %s (%s is read first)", name, folder.parent, annotations.name)
    try:
        classes, pictures, left_out = read_annotations(_text_of(annotations, content_hash), source.classes)
    except UserError as error:
        raise UserError(f"{annotations}: {error}") from None
    file_names = as_on_disk(source.images, [picture.file_name for picture in pictures])
    pictures = [each._replace(file_name=name) for each, name in zip(pictures, file_names, strict=True)]
    on_unpaired(source.absent(file_names))
    for inner in {PurePosixPath(picture.file_name).parent for picture in pictures}:
        (folder / inner).mkdir(parents=True, exist_ok=True)
    work = _Work(source, folder)
    processes = max(1, min(available_cores(), len(pictures) // IMAGES_AT_ONCE))
    kept = []
    counted: Counter[tuple[str, Fate]] = Counter()
    with (
        ProcessPoolExecutor(processes, initializer=_end_with_parent) as pool,
        progress_bar(len(pictures), f"drawing masks of {name}", "image", leave=False) as bar,
    ):
        for picture, fates in zip(pictures, pool.map(work, pictures, chunksize=IMAGES_AT_ONCE), strict=True):
            if fates is not None:
                kept.append(picture.file_name)
            not_kept: list[Fate] = ["not_kept"] * len(picture.regions)
            for region, fate in zip(picture.regions, not_kept if fates is None else fates, strict=True):
                counted[classes[region.class_index], fate] += 1
            bar.update()
    counted.update({(category, "left_out"): number for category, number in left_out.items()})
    all_fates = Fates.of(counted)
    log.info("%s: %d of %d images kept", name, len(kept), len(pictures))
    for line in all_fates.lines():
        log.warning("%s: %s", name, line)
    write_json(folder / INDEX, {"classes": classes, "images": kept, "annotations": all_fates.counts})


def _text_of(annotations: Path, content_hash: str) -> str:
    content = annotations.read_bytes()
    if hashlib.sha256(content).hexdigest() != content_hash:
        raise UserError("changed while it was read; start again")
    return decode_text(content)


@dataclass(frozen=True)
class _Work:
    """Draws one picture's mask, in a process of its own; None if it has too few pixels to be kept."""

    source: Source
    masks: Path

    def __call__(self, picture: Picture) -> list[Fate] | None:
        image, annotations = self.source.images / picture.file_name, self.source.annotations
        there = image.exists()  # or told already; the label scan compares the sizes once it is
        height, width = image_size(image) if there else (picture.height, picture.width)
        if (height, width) != (picture.height, picture.width):
            raise UserError(
                f"{image}: {width} x {height} pixels (turned as its EXIF data say), "
                f"but image {picture.id} of {annotations} is {picture.width} x {picture.height}"
            )
        try:
            label, fates = draw(height, width, picture.regions)
        except UserError as error:
            raise UserError(f"{annotations}: {error}") from None
        if np.count_nonzero((label != 0) & (label != IGNORE_INDEX)) < self.source.min_pixels:
            return None
        write_mask(self.masks / f"{stem_of(picture.file_name)}.png", label, voc_palette())
        return fates


def _end_with_parent() -> None:
    """A process whose parent was killed would wait for work for ever, and with it whoever waits for its lock."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent's business
    gc.freeze()  # a collection would touch, and so copy, all the annotations that are shared with the parent
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def read_index(masks: Path) -> tuple[tuple[str, ...], list[str], Fates | None]:
    """The class names, the file names of the images whose masks are in the folder, and what became of annotations.

    None for the last where they were not counted yet: in folders of segapp up to 0.2.

    Raises:
        UserError: the index is damaged.
    """
    try:
        index = json.loads((masks / INDEX).read_text(encoding="utf-8"))
        fates = Fates(index["annotations"]) if "annotations" in index else None
        return tuple(index["classes"]), index["images"], fates
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{masks / INDEX}: damaged; delete the folder {masks}, and it is made again") from None


def _first_writable(folders: Iterable[Path]) -> Path:
    problems = []
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
            return folder
        except OSError as error:
            problems.append(f"{folder}: masks cannot be written there ({error.strerror})")
    raise UserError(f"{problems[0]}{and_more(len(problems))}; SEGAPP_CACHE=DIR names another cache folder")


def hash_of(path: Path) -> str:
    """SHA-256 of a file's content; remembered in the cache folder for as long as its size and time stay."""
    stat = path.stat()
    stamp = [stat.st_size, stat.st_mtime_ns]
    cache = cache_folder() / "hashes" / f"{hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:20]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(cache.read_text(encoding="utf-8"))
        if known["stamp"] == stamp:
            return str(known["sha256"])
    digest = sha256(path)
    with suppress(OSError):  # then it is read again
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_json(cache, {"stamp": stamp, "sha256": digest})
    return digest
