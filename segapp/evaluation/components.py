"""IoU against the size of things: connected components of the truth, by their area."""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from segapp.classes import IGNORE_INDEX
from segapp.evaluation.confusion import Floats, ratio

Labels = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]

AREAS = tuple(4**power for power in range(2, 9))
"""Pixels at which a bucket ends and the next begins: 16, 64, ..., 65536; sides of squares double, from 4 to 256."""
BUCKETS = len(AREAS) + 1


@dataclass(frozen=True)
class ComponentCounts:
    """What `count_components` finds; the sum of several images' counts is their data set's.

    Each is K x BUCKETS: the first bucket has components below AREAS[0] pixels, the last those of AREAS[-1] and more.

    Attributes:
        components: of the truth.
        pixels: of these components.
        right: pixels of them that were found.
        united: sum of their unions with what was predicted on them; see `count_components`.
    """

    components: Counts
    pixels: Counts
    right: Counts
    united: Counts

    def __add__(self, other: "ComponentCounts") -> "ComponentCounts":
        return ComponentCounts(
            self.components + other.components,
            self.pixels + other.pixels,
            self.right + other.right,
            self.united + other.united,
        )

    @cached_property
    def recall(self) -> Floats:
        """K x BUCKETS shares of the pixels that were found, in [0, 1]; NaN where there is no component."""
        return ratio(self.right, self.pixels)

    @cached_property
    def iou(self) -> Floats:
        """K x BUCKETS: right pixels by the unions' sum, in [0, 1]; NaN where there is no component."""
        return ratio(self.right, self.united)


def count_components(truth: Labels, prediction: Labels, num_classes: int) -> ComponentCounts:
    """Counts one image.

    Components are 8-connected. A true component is held against all predicted components of its class that overlap
    it: its union with them, less what lies on other true components of the class, which is right there, and on
    ignored pixels (the adjusted segment-wise IoU of arXiv:2104.14812). A prediction that runs over several
    components is thus held against each for what is wrong in it, and one that overlaps none is held against none:
    it has no true size, and the class's IoU counts it. A predicted component may hang together through ignored pixels.

    Args:
        truth: H x W; values from num_classes up are ignored.
        prediction: H x W, 0 to num_classes - 1.
    """
    counts = np.zeros((4, num_classes, BUCKETS), np.int64)
    ignored = truth >= num_classes
    for index in np.flatnonzero(np.bincount(truth.ravel(), minlength=IGNORE_INDEX + 1)[:num_classes]):
        mask, found = truth == index, prediction == index
        left, top, width, height = cv2.boundingRect((mask | found).view(np.uint8))
        box = slice(top, top + height), slice(left, left + width)
        measured = _measure(mask[box], found[box], ignored[box])
        bucket = np.digitize(measured[0], AREAS)
        counts[0, index] = np.bincount(bucket, minlength=BUCKETS)
        for total, values in zip(counts[1:, index], measured, strict=True):
            np.add.at(total, bucket, values)
    return ComponentCounts(*counts)


def _measure(
    mask: npt.NDArray[np.bool_], found: npt.NDArray[np.bool_], ignored: npt.NDArray[np.bool_]
) -> tuple[Counts, Counts, Counts]:
    """The pixels, the right pixels and the union of each component of `mask`."""
    true_number, true_at = cv2.connectedComponents(mask.view(np.uint8), connectivity=8)
    found_number, found_at = cv2.connectedComponents(found.view(np.uint8), connectivity=8)
    # Counted by runs of pixels alike, row after row, which are far fewer than pixels.
    alike = ((true_at.astype(np.int64) * found_number + found_at) * 2 + ignored).ravel()
    starts = np.append(0, np.flatnonzero(alike[1:] != alike[:-1]) + 1)
    pixels = np.diff(starts, append=alike.size)
    pair, unknown = np.divmod(alike[starts], 2)
    true, found_in = np.divmod(pair, found_number)

    def total(of: Counts, number: int, where: npt.NDArray[np.bool_]) -> Counts:
        return np.bincount(of[where], pixels[where], number).astype(np.int64)

    area = total(true, true_number, true > 0)
    shared = (true > 0) & (found_in > 0)
    right = total(true, true_number, shared)
    wrong = total(found_in, found_number, (true == 0) & (found_in > 0) & (unknown == 0))
    overlapping = np.unique(pair[shared])
    united = area.copy()
    np.add.at(united, overlapping // found_number, wrong[overlapping % found_number])
    return area[1:], right[1:], united[1:]
