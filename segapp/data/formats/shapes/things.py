"""What the scenes are made of: outlines and textures, and the kinds of things that have both."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Points = npt.NDArray[np.float64]

ANGLES = np.linspace(0, 2 * np.pi, 72, endpoint=False)


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


def stick(rng: np.random.Generator) -> list[Points]:
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


def plain(x: Floats, y: Floats, waves: float, rng: np.random.Generator) -> Floats:
    return np.full_like(x, rng.uniform(-0.8, 0.8))


def _stripes(x: Floats, y: Floats, waves: float, rng: np.random.Generator) -> Floats:
    return _sharpen(np.sin(2 * np.pi * waves * (x + 0.06 * np.sin(5 * y))))


def _shaded(x: Floats, y: Floats, waves: float, rng: np.random.Generator) -> Floats:
    return x.clip(-1, 1)


Outline = Callable[[np.random.Generator], list[Points]]
Texture = Callable[[Floats, Floats, float, np.random.Generator], Floats]


@dataclass(frozen=True)
class Kind:
    """What things of one kind share; each is drawn anew from it."""

    outline: Outline
    texture: Texture
    hue: float
    """Centre of its hues, in turns."""


KINDS = (
    Kind(_disc, _circles, 0.0),
    Kind(_tile, _checks, 0.58),
    Kind(_star, _dots, 0.14),
    Kind(_leaf, _veins, 0.33),
    Kind(_ring, _spokes, 0.75),
    Kind(_flower, _petals, 0.89),
)
"""By class, without background."""
CLUTTER_OUTLINES: tuple[Outline, ...] = (_triangle, _blob, _crescent, _bar, _disc, _tile)
CLUTTER_TEXTURES: tuple[Texture, ...] = (plain, _stripes, _shaded)
HUE_SPREAD = 0.045
"""Standard deviation of a class's hues, in turns; the classes' centres lie about 0.17 apart."""
