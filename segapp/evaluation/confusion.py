"""One dataset-wide confusion matrix, and the measures read off it."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]
Labels = npt.NDArray[np.uint8]
Areas = npt.NDArray[np.int64]
"""... x 3 x K pixels of each class: right, true and predicted."""


def ratio(part: npt.ArrayLike, whole: npt.ArrayLike) -> Floats:
    """part / whole, NaN where the whole is 0."""
    whole = np.asarray(whole, np.float64)
    return np.asarray(np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0))


class ConfusionMatrix:
    """Counts pixels on the device of the labels; nothing is kept per image."""

    def __init__(self, num_classes: int, device: torch.device | str = "cpu") -> None:
        self.num_classes = num_classes
        # Row num_classes takes the ignored pixels: cheaper than masking them out.
        self._counts = torch.zeros((num_classes + 1) * num_classes, dtype=torch.int64, device=device)
        self._one = torch.ones(1, dtype=torch.int64, device=device)

    def update(self, truth: Tensor, prediction: Tensor) -> Tensor:
        """Adds one image's or batch's pixels.

        Args:
            truth: uint8 or int64, any shape; values from num_classes up are ignored.
            prediction: same shape, 0 to num_classes - 1.

        Returns:
            The K x K counts of these pixels alone, on their device.
        """
        row = truth.clamp(max=self.num_classes).int()
        pairs = row.mul_(self.num_classes).add_(prediction).flatten()
        # bincount would wait for the GPU, to learn the highest value.
        counts = torch.zeros_like(self._counts).index_add_(0, pairs, self._one.expand(len(pairs)))
        self._counts += counts
        return self._square(counts)

    def compute(self) -> Counts:
        """K x K counts: row = truth, column = prediction."""
        return self._square(self._counts).cpu().numpy()

    def _square(self, counts: Tensor) -> Tensor:
        return counts.view(self.num_classes + 1, self.num_classes)[: self.num_classes]


@dataclass(frozen=True)
class Scores:
    """Measures of one K x K confusion matrix (row = truth, column = prediction).

    A class that is in neither truth nor prediction has no IoU (NaN) and is left out of the means, as in
    TensorFlow's `mean_iou`. Every measure lies in [0, 1], or is NaN where nothing was counted.
    """

    classes: tuple[str, ...]
    confusion_matrix: Counts

    @cached_property
    def _hits(self) -> Floats:
        return np.asarray(np.diag(self.confusion_matrix), np.float64)

    @cached_property
    def _truth(self) -> Floats:
        return np.asarray(self.confusion_matrix.sum(1), np.float64)

    @cached_property
    def _union(self) -> Floats:
        return np.asarray(self._truth + self.confusion_matrix.sum(0) - self._hits)

    @cached_property
    def per_class_iou(self) -> Floats:
        return ratio(self._hits, self._union)

    @cached_property
    def per_class_accuracy(self) -> Floats:
        """Share of each class's true pixels that were found; NaN where the class has none."""
        return ratio(self._hits, self._truth)

    @cached_property
    def per_class_precision(self) -> Floats:
        """Share of the pixels taken for each class that are of it; NaN where none were."""
        return ratio(self._hits, self.confusion_matrix.sum(0))

    @cached_property
    def per_class_dice(self) -> Floats:
        """Twice the intersection by the sum of the true and the predicted pixels; NaN where both are 0."""
        return ratio(2 * self._hits, self._truth + self.confusion_matrix.sum(0))

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes left out of the mean."""
        return tuple(name for name, union in zip(self.classes, self._union, strict=True) if union == 0)

    @property
    def miou(self) -> float:
        return self.miou_of(self.classes)

    def miou_of(self, names: tuple[str, ...]) -> float:
        """Mean IoU over the named classes, those without a union left out."""
        return float(mean(self.per_class_iou[[self.classes.index(name) for name in names]]))

    @property
    def pixel_accuracy(self) -> float:
        return float(ratio(self._hits.sum(), self._truth.sum()))

    @property
    def mean_accuracy(self) -> float:
        return float(mean(self.per_class_accuracy))

    @property
    def frequency_weighted_iou(self) -> float:
        return float(ratio((self._truth * np.nan_to_num(self.per_class_iou)).sum(), self._truth.sum()))


def class_areas(counts: Tensor) -> Tensor:
    """Of an image's K x K counts 3 x K pixels: right, true and predicted."""
    return torch.stack([counts.diagonal(), counts.sum(1), counts.sum(0)])


def mean_iou(areas: npt.NDArray[np.generic]) -> Floats:
    """Of ... x 3 x K pixels, right, true and predicted, over the classes that have a union; NaN where none has."""
    right, true, predicted = np.moveaxis(np.asarray(areas, np.float64), -2, 0)
    union = true + predicted - right
    return ratio(np.nansum(ratio(right, union), -1), (union > 0).sum(-1))


def mean(values: Floats) -> Floats:
    """Over the first axis, of what is not NaN; NaN where all is."""
    return ratio(np.nansum(values, 0), np.isfinite(values).sum(0))
