"""Reads COCO's JSON of instances, and checks all that it says."""

import difflib
import json
import os
import posixpath
from array import array
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from segapp.base.classes import BACKGROUND
from segapp.base.errors import UserError, first_twice
from segapp.base.images import MAX_PIXELS

MAX_CLASSES = 254
"""Besides background: what a byte holds without 255."""

Chosen = dict[str, tuple[str, ...]]
"""Each class besides background, and the names of its categories."""


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


def read_annotations(text: str, chosen: Chosen | None) -> tuple[tuple[str, ...], list[Picture], dict[str, int]]:
    """Class names, background first; the images in the text's order; how many annotations no class takes, by category.

    Raises:
        UserError: not COCO's format, or an id that leads nowhere; it is named.
    """
    try:
        document = json.loads(text, object_hook=_compact)
    except (ValueError, RecursionError) as error:
        raise UserError(f"no JSON file ({error})") from None
    for part in ("images", "annotations", "categories"):
        if not isinstance(document, dict) or not isinstance(document.get(part), list):
            raise UserError(f'holds no list "{part}"; COCO\'s format of instances is needed')

    category_ids = _column(document, "categories", "id", int | str)
    names = _column(document, "categories", "name", str)
    classes, index_of = _classes(names, chosen)
    image_ids = _column(document, "images", "id", int | str)
    file_names = [
        PurePosixPath(name.replace("\\", "/")).as_posix()  # as Windows writes paths
        for name in _column(document, "images", "file_name", str)
    ]
    for what, values in (("image", image_ids), ("category", category_ids)):
        if len(set(values)) < len(values):
            raise UserError(f"{what} {first_twice(values)} is there twice")
    for id, file_name in zip(image_ids, file_names, strict=True):
        if not _is_inside(file_name):
            raise UserError(f"image {id}: its file_name {file_name!r} is no path inside the image folder")
    stems = [stem_of(file_name) for file_name in file_names]
    if len(set(stems)) < len(stems):
        raise UserError(f"two images are named {first_twice(stems)}; each image needs its own name before the suffix")

    index_of_id = {id: index_of.get(name, 0) for id, name in zip(category_ids, names, strict=True)}
    name_of = dict(zip(category_ids, names, strict=True))
    regions, left_out = _regions(document["annotations"], index_of_id, set(image_ids))
    heights, widths = _column(document, "images", "height", int), _column(document, "images", "width", int)
    for id, height, width in zip(image_ids, heights, widths, strict=True):
        if height * width > MAX_PIXELS:
            raise UserError(f"image {id}: {width} x {height} pixels are more than the bound of {MAX_PIXELS}")
    pictures = [
        Picture(id, file_name, height, width, regions.get(id, []))
        for id, file_name, height, width in zip(image_ids, file_names, heights, widths, strict=True)
    ]
    return classes, pictures, {name_of[id]: number for id, number in left_out.items() if name_of[id] != BACKGROUND}


def _regions(
    annotations: list[Any], class_of: dict[int | str, int], image_ids: set[int | str]
) -> tuple[dict[int | str, list[Region]], Counter[int | str]]:
    """Those of classes, by their image's id, and the number of the others, by category.

    `class_of` gives a category's class, 0 where it has none.
    """
    regions: dict[int | str, list[Region]] = defaultdict(list)
    left_out: Counter[int | str] = Counter()
    outlined = False
    for position, entry in enumerate(annotations):
        id = entry.get("id", f"number {position}") if isinstance(entry, dict) else f"number {position}"
        for key, ids, what in (("category_id", class_of, "categories"), ("image_id", image_ids, "images")):
            value = entry.get(key) if isinstance(entry, dict) else None
            if not isinstance(value, int | str) or value not in ids:
                raise UserError(f"annotation {id} has {key} {value}, which is none of the {what}")
        outlined = outlined or bool(entry.get("segmentation"))
        class_index = class_of[entry["category_id"]]
        if class_index:
            region = Region(id, class_index, bool(entry.get("iscrowd")), entry.get("segmentation", []))
            regions[entry["image_id"]].append(region)
        else:
            left_out[entry["category_id"]] += 1
    if annotations and not outlined:
        raise UserError("no annotation has a segmentation; boxes alone make no masks")
    return regions, left_out


_USED_KEYS = frozenset(
    ("images", "annotations", "categories", "id", "name", "file_name", "height", "width", "image_id", "category_id")
) | {"iscrowd", "segmentation", "size", "counts"}


def _compact(entry: dict[str, Any]) -> dict[str, Any]:
    """Called on each JSON object as soon as it is read: a coordinate takes 32 bytes in a list, 8 in an array."""
    entry = {key: value for key, value in entry.items() if key in _USED_KEYS}
    with suppress(TypeError, OverflowError):  # what is no list of numbers is told when it is drawn
        if isinstance(entry.get("counts"), list):
            entry["counts"] = array("q", entry["counts"])
        if isinstance(entry.get("segmentation"), list):
            entry["segmentation"] = [array("d", polygon) for polygon in entry["segmentation"]]
    return entry


def _column(document: dict[str, Any], part: str, key: str, kind: Any) -> list[Any]:
    """One value of each image or category."""
    values = [entry.get(key) if isinstance(entry, dict) else None for entry in document[part]]
    for position, value in enumerate(values):
        if not isinstance(value, kind) or (kind is int and value <= 0):
            raise UserError(f'entry {position} of "{part}" has {key} {value}, which cannot be')
    return values


def _classes(names: list[str], chosen: Chosen | None) -> tuple[tuple[str, ...], dict[str, int]]:
    """Class names by index, and the index of each category that has one besides background's."""
    if chosen is None:
        if not all(name.isprintable() for name in names):
            raise UserError("a category's name holds characters that cannot be shown")
        chosen = {name: (name,) for name in names if name != BACKGROUND}
        if len(set(names)) < len(names):
            twice = first_twice(names)
            raise UserError(
                f"two categories are named {twice}; 'data.classes={{{twice}: {twice}, ...}}' takes both as one"
            )
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


def _is_inside(file_name: str) -> bool:
    path = PurePosixPath(file_name)
    try:
        os.fsencode(file_name)
    except UnicodeEncodeError:
        return False
    return bool(path.name) and not path.is_absolute() and ".." not in path.parts and "\0" not in file_name


def stem_of(file_name: str) -> str:
    """The path without its suffix: the image's id."""
    return posixpath.splitext(file_name)[0]
