"""COCO's instances, and any JSON file in its format, as one class index a pixel.

The rules, where outlines leave a choice:

- Instances that overlap: the smaller one (by its own pixels) lies on top, and of equals the later in the file. COCO
  outlines a sofa or a table with what is on it, and what is on it is smaller.
- Crowd regions (iscrowd) of a class are 255, below every instance: they outline a group roughly, and an instance
  drawn inside one is the better information.
- Categories outside the classes are background, their crowds too, and hide nothing.
- An image is kept if at least `min_pixels` pixels of the finished mask are of a class: neither background nor 255.

Masks are drawn once, into a folder whose name holds a hash of the annotation file's content and of these rules.
"""

import difflib
import gc
import hashlib
import json
import logging
import multiprocessing
import os
import posixpath
import shutil
import signal
import tempfile
import threading
import uuid
from array import array
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pycocotools import mask as rle_tools
from pydantic import Field, field_validator

from segapp.base.cache import cache_folder
from segapp.base.classes import IGNORE_INDEX, voc_palette
from segapp.base.config import Config, UserPath, Words
from segapp.base.devices import available_cores
from segapp.base.errors import UserError, and_more
from segapp.base.files import file_lock, write_json
from segapp.base.images import MAX_PIXELS, image_size, write_mask
from segapp.base.logs import progress_bar
from segapp.data.dataset import Role, SegmentationDataset
from segapp.data.fingerprint import fingerprinted
from segapp.data.getting.coco import get_coco
from segapp.data.options import DataOptions
from segapp.data.packed_strings import PackedPaths, PackedStrings
from segapp.data.pairs import OnUnpaired, Unpaired, not_there, refuse

log = logging.getLogger(__name__)

Array = npt.NDArray[np.uint8]

VERSION = 1
"""Of the masks: raise it when the rules above give other pixels."""
BACKGROUND = "background"
MAX_CLASSES = 254
"""Besides background: what a byte holds without 255."""
INDEX = "index.json"
"""Beside the masks, and written last: the class names, and the images kept."""
IMAGES_AT_ONCE = 32
"""Handed to a drawing process in one go."""


class CocoSplit(Config):
    """A folder of images and the JSON file that annotates them, both inside the root."""

    images: str
    annotations: str


class CocoConfig(DataOptions):
    """`classes` maps each class to the names of its categories; see conf/data/coco.yaml and coco_voc.yaml."""

    name: Literal["coco"]
    title: str | None
    root: UserPath
    train: CocoSplit
    val: CocoSplit
    classes: dict[str, Words] | None
    min_pixels: int = Field(ge=0)
    download: bool

    @field_validator("classes")
    @classmethod
    def _are_apart(cls, classes: dict[str, tuple[str, ...]] | None) -> dict[str, tuple[str, ...]] | None:
        if classes is not None:
            categories = [category for names in classes.values() for category in names]
            if len(set(categories)) < len(categories):
                raise ValueError(f"category {first_twice(categories)} is named twice")
            if BACKGROUND in classes:
                raise ValueError("background is what the classes leave over; leave it out")
            if not 1 <= len(classes) <= MAX_CLASSES:
                raise ValueError(f"1 to {MAX_CLASSES} classes are possible besides background")
        return classes

    def dataset(self, role: Role, on_unpaired: OnUnpaired = refuse) -> SegmentationDataset:
        """Draws the masks on first use.

        Raises:
            UserError: the annotations or, if `on_unpaired` refuses that, images are missing, or the one do not fit
                the other.
        """
        split = self.train if role == "train" else self.val
        annotations, images = self.root / split.annotations, self.root / split.images
        if self.download and not annotations.is_file():
            get_coco(self.root)
        if not annotations.is_file():
            raise UserError(
                f"{annotations}: no such file; tools/prepare_data.py coco_voc gets COCO, data.root names its folder"
            )
        name = f"{self.title or self.root.absolute().name} {role}"
        masks = _drawn(name, self.root, images, annotations, Rules(self.classes, self.min_pixels), on_unpaired)
        classes, kept = _read_index(masks)
        if not kept:
            raise UserError(f"{annotations}: no image has {self.min_pixels} pixels of the classes (data.min_pixels)")
        on_unpaired(_absent(images, kept, annotations))
        absent = {*not_there(images, kept)}
        kept = [file_name for file_name in kept if file_name not in absent]
        ids, image_files = [_stem(file_name) for file_name in kept], PackedPaths(images, PackedStrings(kept))
        name = fingerprinted(name, ids, image_files)
        return SegmentationDataset(
            name, classes, PackedStrings(ids), image_files, PackedPaths(masks, PackedStrings(ids), ".png")
        )


@dataclass(frozen=True)
class Rules:
    """What a mask depends on besides the annotations."""

    classes: dict[str, tuple[str, ...]] | None
    min_pixels: int

    def key(self, annotations_hash: str) -> str:
        classes = None if self.classes is None else list(self.classes.items())
        text = json.dumps([VERSION, annotations_hash, classes, self.min_pixels])
        return hashlib.sha256(text.encode()).hexdigest()[:20]


class Region(NamedTuple):
    """One annotation. `segmentation`: polygons [x, y, x, y, ...] in pixels, or a run-length code as COCO writes it."""

    id: int | str
    class_index: int
    is_crowd: bool
    segmentation: Any


class Picture(NamedTuple):
    """One image of the JSON and its regions; those of other categories are left out."""

    id: int | str
    file_name: str
    height: int
    width: int
    regions: list[Region]


def draw(height: int, width: int, regions: Iterable[Region]) -> Array:
    """The mask of one image, height x width, by this module's rules.

    Raises:
        UserError: a region is damaged; its id is named.
    """
    layers = []
    for region in regions:
        code = _run_lengths(region, height, width)
        layers.append((not region.is_crowd, -int(rle_tools.area(code)), region, code))
    label = np.zeros((width, height), np.uint8)  # by columns, as COCO counts pixels
    for _, _, region, code in sorted(layers, key=lambda layer: layer[:2]):
        np.copyto(
            label, IGNORE_INDEX if region.is_crowd else region.class_index, where=rle_tools.decode(code).T.view(bool)
        )
    return np.ascontiguousarray(label.T)


def _run_lengths(region: Region, height: int, width: int) -> dict[str, Any]:
    """Any segmentation in pycocotools' own form; checked, for pycocotools reads past the end of a wrong one."""
    what = f"annotation {region.id}"
    if isinstance(region.segmentation, dict):
        size, counts = region.segmentation.get("size"), region.segmentation.get("counts")
        if size != [height, width]:
            raise UserError(f"{what}: its run-length code is of size {size}, its image of [{height}, {width}]")
        if isinstance(counts, str):
            runs = _decoded(counts)
        elif isinstance(counts, array):
            runs = counts.tolist()
        else:
            runs = []
        if sum(runs) != height * width or min(runs, default=-1) < 0:
            raise UserError(
                f"{what}: its run-length code is damaged: its runs are not those of {width} x {height} pixels"
            )
        return _encoded(runs, height, width)
    polygons = []
    for polygon in region.segmentation if isinstance(region.segmentation, list) else [None]:
        if not isinstance(polygon, array) or len(polygon) % 2:
            raise UserError(
                f"{what}: its segmentation is neither a list of polygons [x, y, x, y, ...] nor run lengths"
            )
        corners = np.array(polygon).reshape(-1, 2)
        if not (np.abs(corners) <= 2 * max(height, width)).all():  # not-a-number too
            raise UserError(f"{what}: a polygon lies far outside its image of {width} x {height} pixels")
        if len(corners) >= 3:  # fewer enclose nothing, and pycocotools takes two for a box
            polygons.append(polygon)
    if not polygons:
        return _encoded([height * width], height, width)
    merged: dict[str, Any] = rle_tools.merge(rle_tools.frPyObjects(polygons, height, width))
    return merged


def _encoded(runs: list[int], height: int, width: int) -> dict[str, Any]:
    code: dict[str, Any] = rle_tools.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return code


def _decoded(code: str) -> list[int]:
    """The runs of COCO's compressed form (rleFrString in cocoapi's maskApi.c); empty if it is damaged.

    Five bits a character from "0", lowest first, bit 5 set where more follow and the last one signed; from the
    fourth run on, the difference to the run before the last.
    """
    runs: list[int] = []
    value = shift = 0
    for character in code.encode():
        bits = character - 48
        if not 0 <= bits < 64 or shift > 30:
            return []
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    return [] if shift else runs


def read_annotations(text: str, rules: Rules) -> tuple[tuple[str, ...], list[Picture]]:
    """Class names, background first, and the images in the order of the JSON text.

    Raises:
        UserError: not COCO's format, or an id that leads nowhere; it is named.
    """
    try:
        parts = json.loads(text, object_hook=_lean)
    except (ValueError, RecursionError) as error:
        raise UserError(f"no JSON file ({error})") from None
    for part in ("images", "annotations", "categories"):
        if not isinstance(parts, dict) or not isinstance(parts.get(part), list):
            raise UserError(f'holds no list "{part}"; COCO\'s format of instances is needed')

    category_ids, names = _column(parts, "categories", "id", int | str), _column(parts, "categories", "name", str)
    classes, index_of = _classes(names, rules.classes)
    index_of_id = {id: index_of.get(name, 0) for id, name in zip(category_ids, names, strict=True)}

    image_ids = _column(parts, "images", "id", int | str)
    file_names = [PurePosixPath(name).as_posix() for name in _column(parts, "images", "file_name", str)]
    regions: dict[int | str, list[Region]] = defaultdict(list)
    known = set(image_ids)
    for what, values in (("image", image_ids), ("category", category_ids)):
        if len(set(values)) < len(values):
            raise UserError(f"{what} {first_twice(values)} is there twice")
    for id, file_name in zip(image_ids, file_names, strict=True):
        if not _is_inside(file_name):
            raise UserError(f"image {id}: its file_name {file_name!r} is no path inside the image folder")
    stems = [_stem(file_name) for file_name in file_names]
    if len(set(stems)) < len(stems):
        raise UserError(f"two images are named {first_twice(stems)}; each image needs its own name before the suffix")

    outlined = False
    for place, entry in enumerate(parts["annotations"]):
        id = entry.get("id", f"number {place}") if isinstance(entry, dict) else f"number {place}"
        for key, ids, what in (("category_id", index_of_id, "categories"), ("image_id", known, "images")):
            value = entry.get(key) if isinstance(entry, dict) else None
            if not isinstance(value, int | str) or value not in ids:
                raise UserError(f"annotation {id} has {key} {value}, which is none of the {what}")
        outlined = outlined or bool(entry.get("segmentation"))
        class_index = index_of_id[entry["category_id"]]
        if class_index:
            region = Region(id, class_index, bool(entry.get("iscrowd")), entry.get("segmentation", []))
            regions[entry["image_id"]].append(region)
    if parts["annotations"] and not outlined:
        raise UserError("no annotation has a segmentation; boxes alone make no masks")

    heights, widths = _column(parts, "images", "height", int), _column(parts, "images", "width", int)
    for id, height, width in zip(image_ids, heights, widths, strict=True):
        if height * width > MAX_PIXELS:
            raise UserError(f"image {id}: {width} x {height} pixels are more than the bound of {MAX_PIXELS}")
    pictures = [
        Picture(id, file_name, height, width, regions.get(id, []))
        for id, file_name, height, width in zip(image_ids, file_names, heights, widths, strict=True)
    ]
    return classes, pictures


_KEPT = frozenset(
    ("images", "annotations", "categories", "id", "name", "file_name", "height", "width", "image_id", "category_id")
) | {"iscrowd", "segmentation", "size", "counts"}


def _lean(entry: dict[str, Any]) -> dict[str, Any]:
    """Called on each JSON object as soon as it is read: a coordinate takes 32 bytes in a list, 8 in an array."""
    entry = {key: value for key, value in entry.items() if key in _KEPT}
    with suppress(TypeError, OverflowError):  # what is no list of numbers is told when it is drawn
        if isinstance(entry.get("counts"), list):
            entry["counts"] = array("q", entry["counts"])
        if isinstance(entry.get("segmentation"), list):
            entry["segmentation"] = [array("d", polygon) for polygon in entry["segmentation"]]
    return entry


def _column(parts: dict[str, Any], part: str, key: str, kind: Any) -> list[Any]:
    """One value of each image or category."""
    values = [entry.get(key) if isinstance(entry, dict) else None for entry in parts[part]]
    for place, value in enumerate(values):
        if not isinstance(value, kind) or (kind is int and value <= 0):
            raise UserError(f'entry {place} of "{part}" has {key} {value}, which cannot be')
    return values


def _classes(names: list[str], chosen: dict[str, tuple[str, ...]] | None) -> tuple[tuple[str, ...], dict[str, int]]:
    """Class names by index, and the index of each category that has one besides background's."""
    if chosen is None:
        if not all(name.isprintable() for name in names):
            raise UserError("a category's name holds characters that cannot be shown")
        chosen = {name: (name,) for name in names if name != BACKGROUND}
        if len(set(names)) < len(names):
            raise UserError(f"two categories are named {first_twice(names)}")
        if not 1 <= len(chosen) <= MAX_CLASSES:
            raise UserError(
                f"{len(chosen)} categories; 1 to {MAX_CLASSES} are possible: choose some with data.classes"
            )
    index_of = {}
    for index, (name, categories) in enumerate(chosen.items(), 1):
        for category in categories:
            if category not in names:
                near = difflib.get_close_matches(category, names, 1)
                hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(names)}"
                raise UserError(f"there is no category {category}, which data.classes.{name} names; {hint}")
            index_of[category] = index
    return (BACKGROUND, *chosen), index_of


def first_twice(values: Sequence[Any]) -> Any:
    """The first value that has come before; there must be one."""
    seen: set[Any] = set()
    return next(value for value in values if value in seen or seen.add(value))  # type: ignore[func-returns-value]


def _is_inside(file_name: str) -> bool:
    path = PurePosixPath(file_name)
    try:
        os.fsencode(file_name)
    except UnicodeEncodeError:
        return False
    return bool(path.name) and not path.is_absolute() and ".." not in path.parts and "\0" not in file_name


def _stem(file_name: str) -> str:
    return posixpath.splitext(file_name)[0]


def _absent(images: Path, file_names: Sequence[str], annotations: Path) -> list[Unpaired]:
    why = f"no such file, but {annotations} lists it"
    return [Unpaired("absent_image", str(images / file_name), why) for file_name in not_there(images, file_names)]


def _drawn(name: str, root: Path, images: Path, annotations: Path, rules: Rules, on_unpaired: OnUnpaired) -> Path:
    """The folder of the masks. Two processes draw them once; one that was killed leaves nothing that looks whole."""
    content_hash = hash_of(annotations)
    key = rules.key(content_hash)
    places = (root / "segapp_masks", cache_folder() / "masks")
    folders = [place / f"{annotations.stem[:60]}-{key}" for place in places]
    for folder in folders:
        if (folder / INDEX).is_file():
            return folder
    place = _first_writable(places)
    masks = folders[places.index(place)]
    with file_lock(place / f".{key}.lock", f"drawing the masks of {name}"):
        if not masks.is_dir():
            _sweep(place, key)
            partial = (
                place / f".{key}-{uuid.uuid4().hex[:8]}"
            )  # processes of one that was killed may yet write to theirs
            try:
                partial.mkdir()
                _draw_all(name, images, annotations, content_hash, rules, partial, on_unpaired)
                partial.rename(masks)
            except BrokenProcessPool:
                raise UserError(
                    f"{name}: a process that draws masks was killed (is memory short?); start again"
                ) from None
            except OSError as error:
                raise UserError(f"{place}: the masks cannot be written ({error.strerror or error})") from None
            finally:
                _sweep(place, key)
    return masks


def _sweep(place: Path, key: str) -> None:
    for partial in place.glob(f".{key}-*"):
        shutil.rmtree(partial, ignore_errors=True)


def _draw_all(
    name: str,
    images: Path,
    annotations: Path,
    content_hash: str,
    rules: Rules,
    folder: Path,
    on_unpaired: OnUnpaired,
) -> None:
    log.info("%s: drawing its masks, once, into %s (%s is read first)", name, folder.parent, annotations.name)
    try:
        classes, pictures = read_annotations(_text_of(annotations, content_hash), rules)
    except UserError as error:
        raise UserError(f"{annotations}: {error}") from None
    on_unpaired(_absent(images, [picture.file_name for picture in pictures], annotations))
    for inner in {PurePosixPath(picture.file_name).parent for picture in pictures}:
        (folder / inner).mkdir(parents=True, exist_ok=True)
    work = _Work(images, annotations, folder, rules.min_pixels)
    processes = max(1, min(available_cores(), len(pictures) // IMAGES_AT_ONCE))
    kept = []
    with (
        ProcessPoolExecutor(processes, initializer=_end_with_parent) as pool,
        progress_bar(len(pictures), f"drawing masks of {name}", "image", leave=False) as bar,
    ):
        for picture, is_kept in zip(pictures, pool.map(work, pictures, chunksize=IMAGES_AT_ONCE), strict=True):
            if is_kept:
                kept.append(picture.file_name)
            bar.update()
    log.info("%s: %d of %d images kept", name, len(kept), len(pictures))
    write_json(folder / INDEX, {"classes": classes, "images": kept})


def _text_of(annotations: Path, content_hash: str) -> str:
    content = annotations.read_bytes()
    if hashlib.sha256(content).hexdigest() != content_hash:
        raise UserError("changed while it was read; start again")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError("no JSON file in UTF-8") from None


@dataclass(frozen=True)
class _Work:
    """Draws one picture's mask, in a process of its own; False if it has too few pixels to be kept."""

    images: Path
    annotations: Path
    masks: Path
    min_pixels: int

    def __call__(self, picture: Picture) -> bool:
        image = self.images / picture.file_name
        there = image.exists()  # or told already; the label scan compares the sizes once it is
        height, width = image_size(image) if there else (picture.height, picture.width)
        if (height, width) != (picture.height, picture.width):
            raise UserError(
                f"{image}: {width} x {height} pixels (turned as its EXIF data say), "
                f"but image {picture.id} of {self.annotations} is {picture.width} x {picture.height}"
            )
        try:
            label = draw(height, width, picture.regions)
        except UserError as error:
            raise UserError(f"{self.annotations}: {error}") from None
        if np.count_nonzero((label != 0) & (label != IGNORE_INDEX)) < self.min_pixels:
            return False
        write_mask(self.masks / f"{_stem(picture.file_name)}.png", label, voc_palette())
        return True


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


def _read_index(masks: Path) -> tuple[tuple[str, ...], list[str]]:
    try:
        index = json.loads((masks / INDEX).read_text(encoding="utf-8"))
        return tuple(index["classes"]), index["images"]
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(f"{masks / INDEX}: damaged; delete the folder {masks}, and it is made again") from None


def _first_writable(places: Iterable[Path]) -> Path:
    problems = []
    for place in places:
        try:
            place.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=place).close()
            return place
        except OSError as error:
            problems.append(f"{place}: masks cannot be written there ({error.strerror})")
    raise UserError(f"{problems[0]}{and_more(len(problems))}; SEGAPP_CACHE=DIR names another cache folder")


def hash_of(path: Path) -> str:
    """SHA-256 of a file's content; remembered in the cache folder for as long as its size and time stay."""
    stat = path.stat()
    stamp = [stat.st_size, stat.st_mtime_ns]
    memory = cache_folder() / "hashes" / f"{hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:20]}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(memory.read_text(encoding="utf-8"))
        if known["stamp"] == stamp:
            return str(known["sha256"])
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    with suppress(OSError):  # then it is read again
        memory.parent.mkdir(parents=True, exist_ok=True)
        write_json(memory, {"stamp": stamp, "sha256": digest})
    return digest
