"""Draws scored images, their truths and their predictions side by side in one picture."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from segapp.base.drawing import Array, Font, fit, legend, legend_strip, picture, shorten
from segapp.evaluation.examples import Example

COLUMNS = ("image", "truth", "prediction")
GAP = 10
SMALL = 14
"""Pixels; of the letters but for the titles."""
MIN_COLUMN = 110
"""Pixels; room for a column's title and for the mIoU."""


def picture_grid(examples: Sequence[Example], classes: Sequence[str], palette: Array, cell: int = 320) -> Array:
    """Image, truth and prediction of each example, two examples a row if many, over a legend; H x W x 3 RGB.

    Args:
        examples: at least one; all are held at once, so some dozens at most.
        palette: 256 x 3 RGB.
        cell: bound in pixels on the longer side of each picture; small ones are enlarged up to twofold.
    """
    title, small = ImageFont.load_default(17), ImageFont.load_default(SMALL)
    rows = [
        [
            fit(picture(example.image), cell, 2),
            fit(picture(example.truth, palette), cell, 2).convert("RGB"),
            fit(picture(example.prediction, palette), cell, 2).convert("RGB"),
        ]
        for example in examples
    ]
    column = max(MIN_COLUMN, *(row[0].width for row in rows))
    strips = [_strip(row, example, column, small) for row, example in zip(rows, examples, strict=True)]
    across = 1 if len(strips) <= 4 else 2
    lines = [strips[at : at + across] for at in range(0, len(strips), across)]
    width = across * strips[0].width
    labels = [labels for example in examples for labels in (example.truth, example.prediction)]
    key = legend_strip(legend(labels, classes, palette), width, SMALL)

    header = 34
    heights = [max(strip.height for strip in line) for line in lines]
    canvas = Image.new("RGB", (width, header + sum(heights) + key.height + GAP), "white")
    draw = ImageDraw.Draw(canvas)
    for index in range(across * len(COLUMNS)):
        left = index // len(COLUMNS) * strips[0].width + GAP + index % len(COLUMNS) * (column + GAP)
        draw.text((left, header - 4), COLUMNS[index % len(COLUMNS)], fill="black", font=title, anchor="ls")
    top = header
    for line, height in zip(lines, heights, strict=True):
        for index, strip in enumerate(line):
            canvas.paste(strip, (index * strip.width, top))
        top += height
    canvas.paste(key, (0, top))
    return np.array(canvas)


def class_grid(examples: Sequence[tuple[Array, str, str, float]], cell: int = 240) -> Array:
    """Images over their true class and the one that was predicted, green where that is right; H x W x 3 RGB.

    Args:
        examples: at least one: an image, its class, the prediction and its probability.
        cell: bound in pixels on the longer side of each picture; small ones are enlarged up to fourfold.
    """
    font = ImageFont.load_default(SMALL)
    across = min(4, len(examples))
    side, line = cell + GAP, SMALL + 6
    height = cell + 2 * line + GAP
    canvas = Image.new("RGB", (across * side + GAP, -(-len(examples) // across) * height + GAP), "white")
    draw = ImageDraw.Draw(canvas)
    for at, (image, truth, prediction, probability) in enumerate(examples):
        left, top = at % across * side + GAP, at // across * height + GAP
        canvas.paste(fit(picture(image), cell, 4), (left, top))
        colour = "#1a7f37" if prediction == truth else "#b42318"
        value = f" {probability:.2f}"
        taken = shorten(prediction, font, cell - round(font.getlength(value))) + value
        for row, (text, fill) in enumerate(((shorten(truth, font, cell), "black"), (taken, colour))):
            draw.text((left, top + cell + 4 + row * line), text, fill=fill, font=font, anchor="lt")
    return np.array(canvas)


def _strip(pictures: Sequence[Image.Image], example: Example, column: int, font: Font) -> Image.Image:
    """An example's pictures over its id and mIoU."""
    tiles = _tile(pictures, column)
    strip = Image.new("RGB", (tiles.width, tiles.height + 24), "white")
    strip.paste(tiles)
    draw = ImageDraw.Draw(strip)
    right = GAP + 2 * (column + GAP)
    name = shorten(example.id, font, right - 2 * GAP)
    draw.text((GAP, tiles.height), name, fill="#444444", font=font, anchor="lt")
    draw.text((right, tiles.height), f"mIoU {example.miou:.4f}", fill="#444444", font=font, anchor="lt")
    return strip


def _tile(pictures: Sequence[Image.Image], column: int) -> Image.Image:
    """The pictures in a row, each at the left of a white column of `column` pixels, GAP round them."""
    from torchvision.utils import make_grid  # takes seconds to import, and most predictions need no grid

    cells = []
    for each in pictures:
        cell = Image.new("RGB", (column, each.height), "white")
        cell.paste(each)
        cells.append(torch.from_numpy(np.array(cell)).permute(2, 0, 1))
    tiles = make_grid(cells, nrow=len(cells), padding=GAP, pad_value=255)
    return Image.fromarray(tiles.permute(1, 2, 0).numpy())
