"""IoU against the size of things: connected components of the truth, by their area."""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from segapp.base.classes import IGNORE_INDEX
from segapp.evaluation.additive import Additive
from segapp.evaluation.confusion import Counts, Floats, Labels, ratio

AREAS = tuple(4**power for power in range(2, 9))
"""Pixels at which a bucket ends and the next begins: 16, 64, ..., 65536; sides of squares double, from 4 to 256."""
BUCKETS = len(AREAS) + 1


@dataclass(frozen=True)
class ComponentCounts(Additive):
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
    # Counted by runs of pixels alike in a row, which are far fewer than pixels: each lies in one component.
    begins = np.ones(truth.shape, np.bool_)
    begins[:, 1:] = (truth[:, 1:] != truth[:, :-1]) | (prediction[:, 1:] != prediction[:, :-1])
    starts = np.flatnonzero(begins)
    del begins
    pixels = np.diff(starts, append=truth.size)
    rows, columns = np.divmod(starts, truth.shape[1])
    true, predicted = truth.ravel()[starts], prediction.ravel()[starts]
    for index in np.flatnonzero(np.bincount(true, minlength=IGNORE_INDEX + 1)[:num_classes]):
        runs = np.flatnonzero((true == index) | (predicted == index))
        down, across, length = rows[runs], columns[runs], pixels[runs]
        left, right = across.min(), (across + length).max()
        box, at = np.s_[down[0] : down[-1] + 1, left:right], (down - down[0], across - left)
        true_in, predicted_in = (
            cv2.connectedComponents((labels[box] == index).view(np.uint8), connectivity=8)[1][at]
            for labels in (truth, prediction)
        )
        measured = _measure(true_in, predicted_in, length, true[runs] >= num_classes)
        bucket = np.digitize(measured[0], AREAS)
        counts[0, index] = np.bincount(bucket, minlength=BUCKETS)
        for total, values in zip(counts[1:, index], measured, strict=True):
            np.add.at(total, bucket, values)
    return ComponentCounts(*counts)


def _measure(
    true: npt.NDArray[np.int32], predicted: npt.NDArray[np.int32], pixels: Counts, ignored: npt.NDArray[np.bool_]
) -> tuple[Counts, Counts, Counts]:
    """The pixels, the right pixels and the union of each true component.

    Args:
        true, predicted: the component of each run in the truth and in the prediction, from 1 on; 0 is none.
        pixels: of each run.
        ignored: whether a run is.
    """
    number, predicted_number = int(true.max()) + 1, int(predicted.max()) + 1

    def total(of: npt.NDArray[np.int32], number: int, where: npt.NDArray[np.bool_]) -> Counts:
        return np.bincount(of[where], pixels[where], number).astype(np.int64)

    shared = (true > 0) & (predicted > 0)
    area = total(true, number, true > 0)
    right = total(true, number, shared)
    wrong = total(predicted, predicted_number, (true == 0) & ~ignored)
    overlapping = np.unique(true[shared].astype(np.int64) * predicted_number + predicted[shared])
    united = area.copy()
    np.add.at(united, overlapping // predicted_number, wrong[overlapping % predicted_number])
    return area[1:], right[1:], united[1:]
