"""Draws labels: overlays, legends, and what reports need to draw pictures of their own."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from segapp.base.classes import IGNORE_INDEX

Array = npt.NDArray[np.uint8]
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

LEGEND_LINES, LEGEND_PART = 3, 1 / 6
"""An overlay's legend has no more lines than the first, unless more fit into the second, a part of the height."""


def css_colour(rgb: Array) -> str:
    """One palette row as #rrggbb."""
    return f"#{rgb.tobytes().hex()}"


def picture(pixels: Array, palette: Array | None = None) -> Image.Image:
    """H x W x 3 RGB as it stands, or H x W indices into the 256 x 3 palette."""
    image = Image.fromarray(pixels)
    if palette is not None:
        image.putpalette(palette.tobytes())
    return image


def fit(image: Image.Image, side: int, enlarge: float = 1.0) -> Image.Image:
    """Scales the longer side to `side` pixels, but to no more than `enlarge` times its own.

    Pillow never mixes the indices of a palette picture: it takes the nearest one.
    """
    scale = min(side / max(image.size), enlarge)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def shorten(text: str, font: Font, width: int) -> str:
    """One line of at most `width` pixels that keeps the end, where file names differ."""
    text = " ".join(text.encode("utf-8", "replace").decode().split())
    if font.getlength(text) <= width:
        return text
    text = text[-max(1, width) :]
    while text and font.getlength("..." + text) > width:
        text = text[1:]
    return "..." + text


def blend(image: Array, labels: Array, palette: Array, *, background: int | None, opacity: float = 0.55) -> Array:
    """The image with its labels' colours over it; ignored pixels stay clear.

    Args:
        image: H x W x 3 RGB.
        labels: H x W class indices, 255 ignored.
        palette: 256 x 3 RGB.
        background: the class that stays clear, too; None: every class is coloured.
    """
    result = np.ascontiguousarray(image).copy()
    values = np.arange(256, dtype=np.int16)[:, None]
    for index in np.flatnonzero(np.bincount(labels.ravel(), minlength=256)).tolist():
        if index not in (IGNORE_INDEX, background):
            table = (values + (palette[index] - values) * opacity).astype(np.uint8)  # of each value in R, G and B
            cv2.copyTo(cv2.LUT(result, table[None]), (labels == index).view(np.uint8), result)
    return result


def overlay(image: Array, labels: Array, classes: Sequence[str], palette: Array, *, background: int | None) -> Array:
    """`blend`, over a legend of the classes that occur with their shares of the picture, largest first.

    The result's height depends on the picture's size and the list of classes alone, so that the overlays of a video
    are of one size: the legend has the lines that the whole list would take, within LEGEND_LINES and LEGEND_PART.
    Classes that do not fit are summed up as "+3 more 1.2%".

    Returns:
        (H + legend) x W x 3 RGB.
    """
    size, lines = _legend_room(labels.shape, tuple(classes))
    strip = legend_strip(_by_share(labels, classes, palette, size, lines), labels.shape[1], size, lines)
    return np.concatenate([blend(image, labels, palette, background=background), np.array(strip)])


def steady_legend(shape: tuple[int, ...], classes: Sequence[str], palette: Array) -> Array:
    """The legend of every picture of a video: all classes in their order, whichever occur, in the room of `overlay`'s.

    Args:
        shape: of the labels, H x W.

    Returns:
        legend x W x 3 RGB.
    """
    size, lines = _legend_room(shape, tuple(classes))
    named, rest = _fitting(classes, lambda named: f"+{len(classes) - named} more", shape[1], size, lines)
    entries = [(name, css_colour(palette[index])) for index, name in enumerate(classes[:named])]
    return np.array(legend_strip([*entries, *((name, None) for name in rest)], shape[1], size, lines))


@lru_cache
def _legend_room(shape: tuple[int, ...], classes: tuple[str, ...]) -> tuple[int, int]:
    """Pixels of a legend's letters below H x W, and its lines."""
    height, width = shape
    size = max(12, min(32, width // 30))
    whole_list = _lines([f"{name} {1:.1%}" for name in classes], width, size)
    return size, min(whole_list, max(LEGEND_LINES, round(LEGEND_PART * height) // _line_height(size)))


def _by_share(
    labels: Array, classes: Sequence[str], palette: Array, size: int, lines: int
) -> list[tuple[str, str | None]]:
    """A legend's entries for the classes that occur, the largest first; those that do not fit in one at its end."""
    pixels = np.bincount(labels.ravel(), minlength=256)[: len(classes)]
    order = [index for index in np.argsort(-pixels, kind="stable").tolist() if pixels[index]]
    shares = pixels[order] / labels.size
    names = [f"{classes[index]} {share:.1%}" for index, share in zip(order, shares, strict=True)]
    named, rest = _fitting(
        names, lambda named: f"+{len(names) - named} more {shares[named:].sum():.1%}", labels.shape[1], size, lines
    )
    entries = [(name, css_colour(palette[index])) for name, index in zip(names[:named], order, strict=False)]
    return [*entries, *((name, None) for name in rest)]


def _fitting(
    names: Sequence[str], more: Callable[[int], str], width: int, size: int, lines: int
) -> tuple[int, list[str]]:
    """How many of a legend's entries fit, and the one at its end that stands for the others, if there are any.

    Args:
        more: gives that one for a number of entries that are named.
    """
    named = sum(line < lines for _, _, line in _layout(names, width, size))
    rest: list[str] = []
    while named < len(names):
        rest = [more(named)]
        if _lines([*names[:named], *rest], width, size) <= lines:
            break
        named -= 1
    return named, rest


def legend(labels: Sequence[Array], classes: Sequence[str], palette: Array) -> list[tuple[str, str]]:
    """(name, #rrggbb) of the classes that occur, in class order, and of "ignored" where it does."""
    occurs = np.zeros(256, bool)
    for each in labels:
        occurs |= np.bincount(each.ravel(), minlength=256) > 0
    names = dict(enumerate(classes)) | {IGNORE_INDEX: "ignored"}
    return [(name, css_colour(palette[index])) for index, name in names.items() if occurs[index]]


def legend_strip(
    entries: Sequence[tuple[str, str | None]], width: int, size: int, lines: int | None = None
) -> Image.Image:
    """Colour chips with their names on white, as many a line as fit.

    Args:
        entries: name and colour; without a colour there is no chip.
        width: in pixels; a name that is wider is shortened.
        size: of the letters, in pixels.
        lines: the strip's height; None: as many as the entries need.
    """
    placed = _layout([name for name, _ in entries], width, size)
    font, line, chip = ImageFont.load_default(size), _line_height(size), _line_height(size) // 2
    lines = _lines([name for name, _ in entries], width, size) if lines is None else lines
    strip = Image.new("RGB", (width, line * lines), "white")
    draw = ImageDraw.Draw(strip)
    for (name, x, row), (_, colour) in zip(placed, entries, strict=True):
        top = row * line
        if colour is not None:
            draw.rectangle((x, top + chip // 2, x + chip, top + chip // 2 + chip), fill=colour, outline="#444444")
            x += _chip_room(size)
        draw.text((x, top + line / 2), name, fill="black", font=font, anchor="lm")
    return strip


def _lines(names: Sequence[str], width: int, size: int) -> int:
    """How many a legend of these entries has."""
    return max((line + 1 for _, _, line in _layout(names, width, size)), default=0)


def _layout(names: Sequence[str], width: int, size: int) -> list[tuple[str, int, int]]:
    """A legend's entries as (shortened name, x, line)."""
    font, margin = ImageFont.load_default(size), round(0.7 * size)
    placed, x, line = [], margin, 0
    for name in names:
        name = shorten(name, font, width - 2 * margin - _chip_room(size))
        needed = _chip_room(size) + round(font.getlength(name))
        if x > margin and x + needed + margin > width:
            x, line = margin, line + 1
        placed.append((name, x, line))
        x += needed + _line_height(size) // 2
    return placed


def _line_height(size: int) -> int:
    """Of a legend, for letters of a size; in pixels."""
    return round(1.6 * size)


def _chip_room(size: int) -> int:
    """Width of a chip and of the gap before its name; in pixels."""
    return round(1.1 * size)
