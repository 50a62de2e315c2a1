"""Whether a network is right as often as it says: the reliability histogram and the expected calibration error."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segapp.evaluation.confusion import Floats, ratio

Counts = npt.NDArray[np.int64]

BINS = 20
_UNIT = 1 << 24
"""Confidences are summed in steps of 2^-24, float32's own below 1: whole numbers, whose sum no order changes."""


@dataclass(frozen=True)
class Reliability:
    """Pixels by confidence, in bins of equal width over [0, 1], each with its lower end; the last one with 1, too.

    Attributes:
        pixels: B counts.
        right: B counts of those whose most probable class is the true one.
        confidence: B sums of their confidences, in units of 2^-24.
    """

    pixels: Counts
    right: Counts
    confidence: Counts

    def __add__(self, other: "Reliability") -> "Reliability":
        return Reliability(self.pixels + other.pixels, self.right + other.right, self.confidence + other.confidence)

    @cached_property
    def mean_confidence(self) -> Floats:
        """Of each bin, in [0, 1]; NaN where it is empty."""
        return ratio(self.confidence / _UNIT, self.pixels)

    @cached_property
    def accuracy(self) -> Floats:
        """Of each bin, in [0, 1]; NaN where it is empty."""
        return ratio(self.right, self.pixels)

    @property
    def ece(self) -> float:
        """Expected calibration error in [0, 1]: the bins' |accuracy - mean confidence| by their shares of pixels.

        Guo et al., arXiv:1706.04599, equation 3. NaN without a pixel.
        """
        gaps = np.abs(self.right - self.confidence / _UNIT)
        return float(ratio(gaps.sum(), self.pixels.sum()))


class ReliabilityHistogram:
    """Counts pixels on the device of the logits; nothing is kept per image."""

    def __init__(self, bins: int = BINS, device: torch.device | str = "cpu") -> None:
        self.bins = bins
        # One more takes the ignored pixels. Columns: pixels, right, confidence.
        self._sums = torch.zeros(bins + 1, 3, dtype=torch.int64, device=device)

    def update(self, truth: Tensor, logits: Tensor) -> None:
        """Adds the pixels of an image or of a strip of one.

        Args:
            truth: uint8 or int64, H x W; values from K up are ignored.
            logits: K x H x W; logarithms of probabilities serve as well.
        """
        best = logits.float().log_softmax(0).max(0)
        confidence = best.values.exp().clamp(max=1)
        place = (confidence * self.bins).long().clamp(max=self.bins - 1)
        place[truth >= len(logits)] = self.bins
        values = torch.stack(
            [torch.ones_like(place), (best.indices == truth).long(), (confidence * _UNIT).round().long()], -1
        )
        self._sums.index_add_(0, place.flatten(), values.flatten(0, 1))

    def compute(self) -> Reliability:
        pixels, right, confidence = self._sums[: self.bins].T.cpu().numpy().copy()
        return Reliability(pixels, right, confidence)
