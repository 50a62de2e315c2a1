"""Turns mask files into labels: values or colours become class indices, and 255 what is ignored.

The classes' names and fields are part of the label scan's cache keys: see `SegmentationDataset.read_label`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from segapp.base.classes import IGNORE_INDEX
from segapp.base.masks import read_colours, read_mask
from segapp.data.class_lists import Renumbered
from segapp.data.dataset import Array, Indexed, UnlistedError
from segapp.data.diagnosis import diagnose_colour, diagnose_values, lossy_format
from segapp.data.edges import has_mixed_edges

UNLISTED = 254
"""In look-up tables: what is neither a class's nor ignored. No class has this index where a table is used."""

Colour = tuple[int, int, int]
"""Red, green, blue."""


@dataclass(frozen=True)
class ByValue:
    """Reads masks, grey or palette pictures, whose values mean classes.

    classes: each class's values, by index. ignore: values that become 255. others: what the rest becomes; None: it is
        refused.
    """

    classes: tuple[tuple[int, ...], ...]
    ignore: tuple[int, ...]
    others: int | None

    def __call__(self, path: Path) -> Array:
        """Raises:
        UserError: the mask cannot be read, or holds a value that is not listed.
        """
        mask = read_mask(path)
        label = cv2.LUT(mask, _value_table(self))
        unlisted = label == UNLISTED
        if unlisted.any():
            listed = {value for values in (*self.classes, self.ignore) for value in values}
            cause = diagnose_values(
                np.unique(mask).tolist(),
                listed,
                number=len(self.classes),
                lossy=lossy_format(path),
                blurred=has_mixed_edges(mask),
            )
            raise UnlistedError(f"{path}: value {mask[unlisted][0]} is neither a class's nor ignored", cause)
        return np.asarray(label, np.uint8)


@dataclass(frozen=True)
class ByColour:
    """Reads masks whose colours mean classes; the fields are those of `ByValue`, (red, green, blue) for values."""

    classes: tuple[tuple[Colour, ...], ...]
    ignore: tuple[Colour, ...]
    others: int | None

    def __call__(self, path: Path) -> Array:
        """Raises:
        UserError: the mask cannot be read, or holds a colour that is not listed.
        """
        mask = read_colours(path)
        label = np.take(_colour_table(self), _packed(mask))
        unlisted = label == UNLISTED
        if unlisted.any():
            listed = {colour for colours in (*self.classes, self.ignore) for colour in colours}
            wrong = mask[unlisted]
            number = len(np.unique(_packed(wrong[None])))
            red, green, blue = wrong[0].tolist()
            cause = diagnose_colour(path, (red, green, blue), number, listed)
            raise UnlistedError(f"{path}: colour [{red}, {green}, {blue}] is neither a class's nor ignored", cause)
        return label


NEAR = 32
"""Values that are less apart than this, a lossy format may exchange."""


def confuses_near_values(read_label: Callable[[Path], Array]) -> bool:
    """Whether a value that a lossy format has changed by a little may be another class's.

    Not where each class has a range of its own, as after a threshold, or where few values are listed, far apart: what
    is changed is then of the same class, or not listed and told.
    """
    if isinstance(read_label, Renumbered):
        return confuses_near_values(read_label.read_label)
    if isinstance(read_label, ByValue):
        alone = sorted(values[0] for values in (*read_label.classes, read_label.ignore) if len(values) == 1)
        return any(above - below < NEAR for below, above in pairwise(alone))
    return isinstance(read_label, Indexed)


# The tables are no fields: a reader is sent to every worker, and its repr tells it from others.


@lru_cache(maxsize=4)
def _value_table(reader: ByValue) -> Array:
    table = np.full(256, UNLISTED if reader.others is None else reader.others, np.uint8)
    for index, values in enumerate(reader.classes):
        table[list(values)] = index
    table[list(reader.ignore)] = IGNORE_INDEX
    return table


@lru_cache(maxsize=4)
def _colour_table(reader: ByColour) -> Array:
    """For every colour there is: 16 MB, but one look at each pixel, where a search would take three."""
    table = np.full(1 << 24, UNLISTED if reader.others is None else reader.others, np.uint8)
    for index, colours in [*enumerate(reader.classes), (IGNORE_INDEX, reader.ignore)]:
        if colours:
            table[_packed(np.array([colours], np.uint8))] = index
    return table


def _packed(colours: Array) -> npt.NDArray[np.uint32]:
    """H x W x 3 uint8 RGB as H x W numbers below 2 ** 24."""
    packed: npt.NDArray[np.uint32] = cv2.cvtColor(np.ascontiguousarray(colours), cv2.COLOR_RGB2RGBA).view("<u4")[
        ..., 0
    ]
    return packed & np.uint32(0xFFFFFF)
