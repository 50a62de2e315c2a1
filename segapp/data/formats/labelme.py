"""labelme's JSON files as masks: outlines that are drawn whenever they are read."""

import base64
import io
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from segapp.base.classes import BACKGROUND, IGNORE_INDEX
from segapp.base.errors import UserError
from segapp.base.files import decode_text
from segapp.base.images import MAX_PIXELS
from segapp.base.logs import progress_bar
from segapp.data.dataset import Array, UnlistedError
from segapp.data.formats.foreign_classes import LABELME_BACKGROUND, LABELME_IGNORE

MOST_BYTES = 1 << 29
"""Of a file, in which the image may stand too."""
LINE_WIDTH, POINT_RADIUS = 10, 5
"""Pixels, as labelme draws lines and points (shape_to_mask in labelme/utils/shape.py)."""
LEAST_POINTS = {"polygon": 3, "rectangle": 2, "circle": 2, "line": 2, "linestrip": 2, "point": 1, "mask": 2}

Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Outlines:
    """Draws the shapes of a file, each over those before it, as labelme's own converter does.

    classes: names by index; what no shape covers is 0, and "__ignore__" 255.
    """

    classes: tuple[str, ...]

    def __call__(self, path: Path) -> Array:
        """Raises:
        UserError: the file is none of labelme's, or a shape is of no class, damaged, or draws nothing.
        """
        document = _read(path)
        height, width = document.get("imageHeight"), document.get("imageWidth")
        if not (isinstance(height, int) and isinstance(width, int) and min(height, width) > 0):
            raise UserError(f"{path}: its image is {width} x {height} pixels, which cannot be")
        if height * width > MAX_PIXELS:
            raise UserError(f"{path}: {width} x {height} pixels are more than the bound of {MAX_PIXELS}")
        label = np.zeros((height, width), np.uint8)
        for number, shape in enumerate(document["shapes"], 1):
            name = _label(shape, path, number)
            if name not in (*self.classes, LABELME_IGNORE):
                raise UnlistedError(
                    f"{path}: shape {number} is of class {name}, which is none of {', '.join(self.classes)}",
                    "list it, or take it out",
                )
            covered = _draw(shape, (height, width), f"{path}: shape {number} ({name})")
            label[covered] = IGNORE_INDEX if name == LABELME_IGNORE else self.classes.index(name)
        return label


def labels_in(files: Sequence[Path]) -> tuple[str, ...]:
    """The classes of all shapes, background first, the others by name.

    Raises:
        UserError: a file is none of labelme's.
    """
    names: set[str] = set()
    with progress_bar(len(files), "classes of labelme's files", "file", leave=False) as bar:
        for file in files:
            names |= {_label(shape, file, number) for number, shape in enumerate(_read(file)["shapes"], 1)}
            bar.update()
    return BACKGROUND, *sorted(names - {BACKGROUND, LABELME_IGNORE})


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MOST_BYTES:
            raise UserError(f"larger than {MOST_BYTES} bytes")
        document = json.loads(decode_text(path.read_bytes()))
        if not isinstance(document, dict) or not isinstance(document.get("shapes"), list):
            raise UserError('holds no list "shapes"; one of labelme\'s files is needed')
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: no JSON file ({error})") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return document


def _label(shape: Any, path: Path, number: int) -> str:
    name = shape.get("label") if isinstance(shape, dict) else None
    if not isinstance(name, str) or not name.isprintable():
        raise UserError(f"{path}: shape {number} has no label")
    return BACKGROUND if name == LABELME_BACKGROUND else name


def _draw(shape: dict[str, Any], size: tuple[int, int], what: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """The pixels that a shape covers, H x W."""
    kind = shape.get("shape_type") or "polygon"
    points = _points(shape.get("points"), max(size), what)
    if not isinstance(kind, str) or kind not in LEAST_POINTS:
        raise UserError(f"{what}: a {kind} is no shape that is drawn; there are {', '.join(LEAST_POINTS)}")
    if len(points) < LEAST_POINTS[kind]:
        raise UserError(f"{what}: a {kind} needs {LEAST_POINTS[kind]} points, and has {len(points)}")
    if max(size) > 2 and all(0 <= x <= 1 and 0 <= y <= 1 for x, y in points):
        raise UserError(f"{what}: its coordinates are 0 to 1, not pixels; multiply x by the width and y by the height")
    picture = Image.new("1", size[::-1])
    if kind == "mask":
        _paste(shape.get("mask"), points, picture, what)
    else:
        _stroke(ImageDraw.Draw(picture), kind, points)
    covered = np.asarray(picture)
    if not covered.any():
        raise UserError(f"{what}: it covers no pixel of its image of {size[1]} x {size[0]}")
    return covered


def _points(given: Any, side: int, what: str) -> Points:
    try:
        points = [(float(x), float(y)) for x, y in given]
    except (TypeError, ValueError, OverflowError):
        raise UserError(f"{what}: its points are no list of [x, y]") from None
    if not all(abs(value) <= 2 * side for point in points for value in point):  # not-a-number too
        raise UserError(f"{what}: a point lies far outside its image")
    return points


def _stroke(drawing: ImageDraw.ImageDraw, kind: str, points: Points) -> None:
    (x, y), last = points[0], points[-1]
    if kind == "polygon":
        drawing.polygon(points, fill=1, outline=1)
    elif kind == "rectangle":
        drawing.rectangle((min(x, last[0]), min(y, last[1]), max(x, last[0]), max(y, last[1])), fill=1, outline=1)
    elif kind in ("line", "linestrip"):
        drawing.line(points, fill=1, width=LINE_WIDTH)
    else:
        radius = POINT_RADIUS if kind == "point" else math.dist(points[0], points[1])
        drawing.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1, outline=1)


def _paste(encoded: Any, points: Points, picture: Image.Image, what: str) -> None:
    """A picture of its own, with its corner at the first point."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(encoded, validate=True)), formats=("PNG",)) as mask:
            if math.prod(mask.size) > MAX_PIXELS:
                raise ValueError("too large")
            stencil = Image.fromarray(np.asarray(mask.convert("L")) > 0)
    except Exception:  # whatever is wrong with what stands there
        raise UserError(f"{what}: its mask is no PNG in base64") from None
    picture.paste(1, (round(points[0][0]), round(points[0][1])), stencil)
