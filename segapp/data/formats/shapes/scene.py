"""Draws one picture and its label: things and clutter on a backdrop, as a camera sees them."""

import colorsys
import math

import cv2
import numpy as np

from segapp.base.classes import IGNORE_INDEX
from segapp.data.dataset import Array
from segapp.data.formats.shapes.things import (
    CLUTTER_OUTLINES,
    CLUTTER_TEXTURES,
    HUE_SPREAD,
    KINDS,
    Floats,
    Kind,
    Points,
    plain,
    stick,
)

SUBPIXEL_BITS = 4
"""Fractional bits of the polygon corners given to OpenCV."""


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
    rng: np.random.Generator, canvas: Floats, owner: Array, kind: Kind, identity: int, radius: float, light: Points
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
        _paint(rng, canvas, owner, Kind(stick, plain, rng.uniform()), 0, side * rng.uniform(0.2, 0.7), light)
    for diameter in -np.sort(-rng.uniform(1 / 6, 2 / 3, rng.integers(4, 9))):  # small things lie on large ones
        if rng.uniform() < 0.62:
            chosen = int(rng.integers(len(KINDS)))
            kind = KINDS[chosen]
            classes.append(chosen + 1)
            identity = len(classes) - 1
        else:
            outline = CLUTTER_OUTLINES[rng.integers(len(CLUTTER_OUTLINES))]
            texture = CLUTTER_TEXTURES[rng.integers(len(CLUTTER_TEXTURES))]
            kind, identity = Kind(outline, texture, rng.uniform()), 0
        _paint(rng, canvas, owner, kind, identity, side * diameter / 2, light)
    near = np.ones((3, 3), np.uint8)
    label = np.array(classes, np.uint8)[owner]
    label[cv2.dilate(owner, near) != cv2.erode(owner, near)] = IGNORE_INDEX
    return _expose(rng, canvas, light), label
