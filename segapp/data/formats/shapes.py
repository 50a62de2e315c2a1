"""A small synthetic data set in PASCAL VOC's layout, drawn from a seed.

Every class has a shape, a texture and a wide band of hues. The bands overlap with each other, with the
background and with clutter of other shapes and textures, so that colour alone tells little.
"""

import colorsys
import logging
import math
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from segapp.base.classes import IGNORE_INDEX, voc_palette
from segapp.base.config import UserPath
from segapp.base.images import write_image, write_mask
from segapp.base.logs import progress_bar
from segapp.data.dataset import Role, SegmentationDataset
from segapp.data.formats.voc import voc_layout
from segapp.data.options import DataOptions
from segapp.data.pairs import OnUnpaired, refuse

log = logging.getLogger(__name__)

Array = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]

ANGLES = np.linspace(0, 2 * np.pi, 72, endpoint=False)
VERSION = 1
"""Of the drawings: raise it when a seed gives other pictures."""
SUBPIXEL_BITS = 4
"""Fractional bits of the polygon corners given to OpenCV."""


def _polar(radius: float | Points, angles: Points = ANGLES) -> Points:
    return np.stack([radius * np.cos(angles), radius * np.sin(angles)], axis=1)


# Outlines: the contours of a shape about the origin, N x 2 (x, y), within the unit circle.


def _disc(rng: np.random.Generator) -> list[Points]:
    return [_polar(1)]


def _tile(rng: np.random.Generator) -> list[Points]:
    power = 10  # a square with round corners
    return [_polar(0.85 * (np.abs(np.cos(ANGLES)) ** power + np.abs(np.sin(ANGLES)) ** power) ** (-1 / power))]


def _star(rng: np.random.Generator) -> list[Points]:
    points = int(rng.integers(5, 7))
    angles = np.arange(2 * points) * np.pi / points
    return [_polar(np.where(np.arange(2 * points) % 2, rng.uniform(0.5, 0.62), 1.0), angles)]


def _leaf(rng: np.random.Generator) -> list[Points]:
    x, side = np.cos(ANGLES), np.sign(np.sin(ANGLES))
    return [np.stack([x, side * rng.uniform(0.5, 0.65) * (1 - x**2)], axis=1)]


def _ring(rng: np.random.Generator) -> list[Points]:
    return [_polar(1), _polar(rng.uniform(0.4, 0.55))]


def _flower(rng: np.random.Generator) -> list[Points]:
    return [_polar(0.8 + 0.2 * np.cos(int(rng.integers(5, 8)) * ANGLES))]


def _triangle(rng: np.random.Generator) -> list[Points]:
    return [_polar(1, np.arange(3) * 2 * np.pi / 3 + rng.uniform(-0.4, 0.4, 3))]


def _blob(rng: np.random.Generator) -> list[Points]:
    waves = (rng.uniform(-0.14, 0.14) * np.cos(k * ANGLES + rng.uniform(0, 6)) for k in (2, 3, 4))
    return [_polar(0.75 + sum(waves))]


def _crescent(rng: np.random.Generator) -> list[Points]:
    turn = np.linspace(0.25 * np.pi, 1.75 * np.pi, 40)
    inner = _polar(0.75, turn[::-1])
    inner[:, 0] += 0.25 * math.sqrt(0.5)  # both arcs then end at the same x
    return [np.concatenate([_polar(1, turn), inner])]


def _bar(rng: np.random.Generator) -> list[Points]:
    half = rng.uniform(0.12, 0.3)
    return [np.array([[-1, -half], [1, -half], [1, half], [-1, half]])]


def _stick(rng: np.random.Generator) -> list[Points]:
    return [contour * [1, 0.1] for contour in _bar(rng)]


# Textures: -1 to 1 over the shape's own coordinates x, y, with `waves` periods to a unit of length.


def _sharpen(wave: Floats) -> Floats:
    """Sine-like to square-like, with soft edges."""
    return (1.8 * wave).clip(-1, 1)


def _circles(x: Floats, y: Floats, waves: float, rng: np.random.Generator) -> Floats:
    return _sharpen(np.cos(2 * np.pi * waves * np.hypot(x, y)))


def _checks(x: Floats, y: Floats, waves: float, rng: np.random.Generator) -> Floats:
    return _sharpen(1.5 * np.sin(np.pi * waves * x) * np.sin(np.pi * waves * y))


def _dots(x: Floats, y: Floats, waves: float, rng: np.random.Generator) -> Floats:
    return _sharpen(np.cos(2 * np.pi * waves * x) + np.cos(2 * np.pi * waves * y) - 0.6)


def _veins(x: Floats, y: Floats, waves: float, rng: np.random.Generator) -> Floats:
    return _sharpen(np.sin(2 * np.pi * waves * (0.8 * x + np.abs(y))))


def _spokes(x: Floats, y: Floats, waves: float, rng: np.random.Generator) -> Floats:
    return _sharpen(np.sin(max(6, round(4 * waves)) * np.arctan2(y, x)))


def _petals(x: Floats, y: Floats, waves: float, rng: np.random.Generator) -> Floats:
    noise = rng.uniform(-1, 1, (x.shape[0] // 2 + 1, x.shape[1] // 2 + 1)).astype(np.float32)
    speckle = cv2.resize(noise, x.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return (1.6 * np.hypot(x, y) - 0.9 + speckle).clip(-1, 1)


def _plain(x: Floats, y: Floats, waves: float, rng: np.random.Generator) -> Floats:
    return np.full_like(x, rng.uniform(-0.8, 0.8))


def _stripes(x: Floats, y: Floats, waves: float, rng: np.random.Generator) -> Floats:
    return _sharpen(np.sin(2 * np.pi * waves * (x + 0.06 * np.sin(5 * y))))


def _shaded(x: Floats, y: Floats, waves: float, rng: np.random.Generator) -> Floats:
    return x.clip(-1, 1)


Outline = Callable[[np.random.Generator], list[Points]]
Texture = Callable[[Floats, Floats, float, np.random.Generator], Floats]


@dataclass(frozen=True)
class _Kind:
    outline: Outline
    texture: Texture
    hue: float
    """Centre of its hues, in turns."""


_KINDS = (
    _Kind(_disc, _circles, 0.0),
    _Kind(_tile, _checks, 0.58),
    _Kind(_star, _dots, 0.14),
    _Kind(_leaf, _veins, 0.33),
    _Kind(_ring, _spokes, 0.75),
    _Kind(_flower, _petals, 0.89),
)
_CLUTTER_OUTLINES: tuple[Outline, ...] = (_triangle, _blob, _crescent, _bar, _disc, _tile)
_CLUTTER_TEXTURES: tuple[Texture, ...] = (_plain, _stripes, _shaded)
HUE_SPREAD = 0.045
"""Standard deviation of a class's hues, in turns; the classes' centres lie about 0.17 apart."""

SHAPES_CLASSES = ("background", "disc", "tile", "star", "leaf", "ring", "flower")


def _rgb(hue: float, saturation: float, value: float) -> Floats:
    return np.array(colorsys.hsv_to_rgb(hue % 1, saturation, value), np.float32)


def _smooth_noise(rng: np.random.Generator, cells: int, height: int, width: int) -> Floats:
    """-1 to 1, H x W."""
    noise = rng.uniform(-1, 1, (cells, cells)).astype(np.float32)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC).clip(-1, 1)


def _backdrop(rng: np.random.Generator, height: int, width: int) -> Floats:
    """H x W x 3, 0 to 1: two colours that run into each other, and clouds."""
    hue = rng.uniform()
    first, second = (
        _rgb(hue + shift, rng.uniform(0.05, 0.55), rng.uniform(0.3, 1)) for shift in (0, rng.normal(0, 0.15))
    )
    mix = 0.5 + 0.5 * _smooth_noise(rng, int(rng.integers(2, 6)), height, width)
    canvas = first + (second - first) * mix[..., None]
    canvas *= 1 + rng.uniform(0, 0.2) * _smooth_noise(rng, int(rng.integers(6, 24)), height, width)[..., None]
    return canvas


def _cover(contours: list[Points], height: int, width: int) -> Floats:
    """Share of each pixel that lies inside, H x W; a contour within another is a hole."""
    mask = np.zeros((height, width), np.uint8)
    corners = [np.round(contour * 2**SUBPIXEL_BITS).astype(np.int32) for contour in contours]
    cv2.fillPoly(mask, corners, 255, cv2.LINE_AA, SUBPIXEL_BITS)
    return mask.astype(np.float32) * np.float32(1 / 255)


def _paint(
    rng: np.random.Generator, canvas: Floats, owner: Array, kind: _Kind, identity: int, radius: float, light: Points
) -> None:
    """Paints one thing and its shadow on `canvas`, and its identity on `owner`, both in place.

    Args:
        radius: in pixels.
        light: the unit vector (x, y) that points away from the light.
    """
    height, width = owner.shape
    turn = rng.uniform(0, 2 * np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    frame = radius * rotation * [1, rng.uniform(0.7, 1)]
    centre = rng.uniform(0.02, 0.98, 2) * (width, height)
    contours = [contour @ frame.T + centre for contour in kind.outline(rng)]

    margin = 0.35 * radius  # for the shadow
    left, top = np.maximum(contours[0].min(0) - margin, 0).astype(int).tolist()
    right, bottom = np.minimum(contours[0].max(0) + margin + 1, (width, height)).astype(int).tolist()
    box = (slice(top, bottom), slice(left, right))
    contours = [contour - (left, top) for contour in contours]
    cover = _cover(contours, bottom - top, right - left)
    cast = _cover([contour + 0.13 * radius * light for contour in contours], *cover.shape)
    shadow = cv2.GaussianBlur(cast, (0, 0), 0.07 * radius + 0.5)

    dx = np.arange(left, right, dtype=np.float32)[None, :] + np.float32(0.5 - centre[0])
    dy = np.arange(top, bottom, dtype=np.float32)[:, None] + np.float32(0.5 - centre[1])
    (xx, xy), (yx, yy) = np.linalg.inv(frame).astype(np.float32)
    period = rng.uniform(0.85, 1.2) * 0.14 * math.sqrt(radius * min(height, width))
    pattern = kind.texture(xx * dx + xy * dy, yx * dx + yy * dy, radius / max(period, 5.5), rng)

    hue = kind.hue + rng.normal(0, HUE_SPREAD)
    saturation, value = rng.uniform(0.35, 0.95), rng.uniform(0.6, 1)
    bright = _rgb(hue, saturation * rng.uniform(0.5, 0.9), value)
    dark = _rgb(hue + rng.normal(0, 0.03), saturation, value * rng.uniform(0.35, 0.6))
    # Where the shadow misses the thing itself, on the side of the light, the rim shines.
    slope = (light * -0.2 / radius).astype(np.float32)
    lit = cover * (1.35 - 0.3 * shadow + slope[0] * dx + slope[1] * dy)
    under = canvas[box]
    under *= ((1 - 0.5 * shadow) * (1 - cover))[..., None]
    under += np.stack([lit * (1 - pattern), lit * (1 + pattern)], axis=2) @ (np.stack([dark, bright]) / 2)
    owner[box][cover >= 0.5] = identity


def _expose(rng: np.random.Generator, canvas: Floats, light: Points) -> Array:
    """The scene as a camera sees it: uneven light, exposure, blur and noise. 0 to 1 in, uint8 out."""
    height, width = canvas.shape[:2]
    across = np.linspace(-light[0], light[0], width, dtype=np.float32)[None, :]
    down = np.linspace(-light[1], light[1], height, dtype=np.float32)[:, None]
    canvas *= (rng.uniform(0.85, 1.25) - rng.uniform(0, 0.2) * (across + down))[..., None].astype(np.float32)
    blurred = cv2.GaussianBlur(canvas, (0, 0), rng.uniform(0.3, 0.7))
    grain = rng.standard_normal(blurred.shape, np.float32)
    return (255 * blurred + rng.uniform(1, 6) * grain).clip(0, 255).astype(np.uint8)


def draw_scene(rng: np.random.Generator, height: int, width: int) -> tuple[Array, Array]:
    """One picture and its label.

    Returns:
        H x W x 3 uint8 RGB, and H x W uint8 indices into SHAPES_CLASSES with a contour of 255 two pixels
        wide around every object.
    """
    canvas = _backdrop(rng, height, width)
    owner = np.zeros((height, width), np.uint8)  # 0 = background, then the objects, one by one
    classes = [0]  # of each owner
    turn = rng.uniform(0, 2 * np.pi)
    light = np.array([np.cos(turn), np.sin(turn)])
    side = min(height, width)
    for _ in range(rng.integers(0, 4)):
        stick = _Kind(_stick, _plain, rng.uniform())
        _paint(rng, canvas, owner, stick, 0, side * rng.uniform(0.2, 0.7), light)
    for diameter in -np.sort(-rng.uniform(1 / 6, 2 / 3, rng.integers(4, 9))):  # small things lie on large ones
        if rng.uniform() < 0.62:
            chosen = int(rng.integers(len(_KINDS)))
            kind = _KINDS[chosen]
            classes.append(chosen + 1)
            identity = len(classes) - 1
        else:
            outline = _CLUTTER_OUTLINES[rng.integers(len(_CLUTTER_OUTLINES))]
            texture = _CLUTTER_TEXTURES[rng.integers(len(_CLUTTER_TEXTURES))]
            kind, identity = _Kind(outline, texture, rng.uniform()), 0
        _paint(rng, canvas, owner, kind, identity, side * diameter / 2, light)
    near = np.ones((3, 3), np.uint8)
    label = np.array(classes, np.uint8)[owner]
    label[cv2.dilate(owner, near) != cv2.erode(owner, near)] = IGNORE_INDEX
    return _expose(rng, canvas, light), label


def make_shapes(root: Path, *, train: int, val: int, height: int, width: int, seed: int) -> None:
    """Draws the whole set into `root`, or nothing at all.

    Image i is the same whatever the number of images: it depends on (seed, i) and the size alone. The first
    `train` images are the training split.

    Raises:
        FileExistsError: `root` is there already.
    """
    if root.exists():
        raise FileExistsError(root)
    temporary = root.with_name(f".{uuid.uuid4().hex[:8]}-{root.name}")
    images, masks, lists = (temporary / name for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"))
    names = [f"{index:06d}" for index in range(train + val)]
    palette = voc_palette()
    try:
        for folder in (images, masks, lists):
            folder.mkdir(parents=True)
        with progress_bar(len(names), "drawing shapes", "image", leave=False) as progress:
            for index, name in enumerate(names):
                image, label = draw_scene(np.random.default_rng([seed, index]), height, width)
                write_image(images / f"{name}.jpg", image)
                write_mask(masks / f"{name}.png", label, palette)
                progress.update()
        for split, members in (("train", names[:train]), ("val", names[train:]), ("trainval", names)):
            (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in members), encoding="utf-8")
        temporary.rename(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class ShapesConfig(DataOptions):
    """Drawn on first use into a folder of `root` that the other values name; see conf/data/shapes.yaml."""

    name: Literal["shapes"]
    root: UserPath
    train: int = Field(gt=0)
    val: int = Field(gt=0)
    height: int = Field(ge=32, le=4096)
    width: int = Field(ge=32, le=4096)
    seed: int = Field(ge=0, lt=2**63)

    def dataset(self, role: Role, on_unpaired: OnUnpaired = refuse) -> SegmentationDataset:
        folder = self.root / f"v{VERSION}_{self.train}+{self.val}_{self.width}x{self.height}_seed{self.seed}"
        if not folder.exists():
            log.info("drawing %d + %d images into %s", self.train, self.val, folder)
            make_shapes(folder, train=self.train, val=self.val, height=self.height, width=self.width, seed=self.seed)
        return voc_layout(folder, role, SHAPES_CLASSES, f"shapes {role}", on_unpaired)
