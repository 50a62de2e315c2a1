"""Whether a network is right as often as it says: the reliability histogram and the expected calibration error."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from segapp.evaluation.additive import Additive
from segapp.evaluation.confusion import Counts, Floats, ratio

BINS = 20
_UNIT = 1 << 24
"""Confidences are summed in steps of 2^-24, float32's own below 1: whole numbers, whose sum no order changes."""


@dataclass(frozen=True)
class Reliability(Additive):
    """Pixels by confidence, in bins of equal width over [0, 1], each with its lower end; the last one with 1, too.

    Attributes:
        pixels: B counts.
        right: B counts of those whose most probable class is the true one.
        confidence: B sums of their confidences, in units of 2^-24.
    """

    pixels: Counts
    right: Counts
    confidence: Counts

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
    """Counts pixels on the device of the labels, without a wait for it; nothing is kept per image."""

    def __init__(self, num_classes: int, bins: int = BINS, device: torch.device | str = "cpu") -> None:
        self.num_classes = num_classes
        self.bins = bins
        # One bin more takes the ignored pixels. Of each bin: wrong and right pixels, and the sums of either.
        self._pixels = torch.zeros((bins + 1) * 2, dtype=torch.int64, device=device)
        self._confidence = torch.zeros_like(self._pixels)
        self._one = torch.ones(1, dtype=torch.int64, device=device)

    def update(self, truth: Tensor, labels: Tensor, confidence: Tensor) -> None:
        """Adds the pixels of an image.

        Args:
            truth: uint8, any shape; values from num_classes up are ignored.
            labels: uint8, the same shape: the most probable class.
            confidence: float32, the same shape: its probability.
        """
        confidence = confidence.clamp(max=1)
        bins = (confidence * self.bins).int().clamp_(max=self.bins - 1)
        bins = torch.where(truth < self.num_classes, bins, self.bins)
        cells = bins.mul_(2).add_(labels == truth).flatten()
        self._pixels.index_add_(0, cells, self._one.expand(len(cells)))
        self._confidence.index_add_(0, cells, (confidence * _UNIT).round_().long().flatten())

    def compute(self) -> Reliability:
        sums = torch.stack([self._pixels, self._confidence]).cpu().numpy()
        pixels, confidence = sums.reshape(2, -1, 2)[:, : self.bins]
        return Reliability(pixels.sum(1), pixels[:, 1].copy(), confidence.sum(1))
