"""Windows over a large image, and the average of their class probabilities, a row of windows at a time."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segapp.inference.arrays import Size, best, on_device, to_numpy, zeros
from segapp.inference.prediction import Outputs, empty_prediction

if TYPE_CHECKING:
    import torch


class WindowStitcher:
    """Sums windows' class probabilities over one row of windows at a time.

    Args:
        tops, lefts: where windows begin.
        side: of a window, in pixels.
        size: of the image.
        outputs: of the mean probabilities, beside the labels.

    Attributes:
        result: as far as rows are finished.
    """

    def __init__(
        self,
        num_classes: int,
        tops: Sequence[int],
        lefts: Sequence[int],
        side: int,
        size: Size,
        device: "torch.device | None",
        outputs: Outputs,
    ) -> None:
        self.result = empty_prediction(num_classes, size, device, outputs)
        down, across = _counts(tops, side, size[0]), _counts(lefts, side, size[1])
        self._down, self._across = (on_device(each, device) for each in (down, across))
        self._top = 0
        self._sums = zeros((num_classes, min(side, size[0]), size[1]), device)

    def add(self, rows: slice, left: int, probabilities: Any) -> None:
        """K x rows x W of a window of the present row."""
        self._sums[:, rows, left : left + probabilities.shape[2]] += probabilities

    def finish(self, end: int) -> None:
        """The next row of windows begins at `end`: what lies above it is done."""
        number = end - self._top
        sums, rows = self._sums[:, :number], slice(self._top, end)
        result = self.result
        highest, result.labels[rows] = best(sums)
        counts = self._down[rows, None] * self._across
        if result.confidence is not None:
            result.confidence[rows] = highest / counts
        if result.probabilities is not None:
            result.probabilities[:, rows] = to_numpy(sums / counts)
        later = self._sums[:, number:] + 0  # a copy: the two overlap
        self._sums[:, : later.shape[1]] = later
        self._sums[:, later.shape[1] :] = 0
        self._top = end


def window_starts(length: int, side: int, step: int) -> list[int]:
    """Where windows begin, evenly and at most `step` apart; the last one ends at the border."""
    last = max(0, length - side)
    return np.linspace(0, last, -(-last // step) + 1).round().astype(int).tolist()  # type: ignore[no-any-return]


def _counts(starts: Sequence[int], side: int, length: int) -> npt.NDArray[np.float32]:
    """How many windows lie over each pixel along one side."""
    counts = np.zeros(length, np.float32)
    for start in starts:
        counts[start : start + side] += 1
    return counts
