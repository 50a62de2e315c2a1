"""A data set with what the label scan knows of it, from which training and the audit judge alike."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from segapp.data.checks.scan import LabelScan, count_labels, no_labels
from segapp.data.dataset import Role, SegmentationDataset


@dataclass(frozen=True)
class ScannedSet(LabelScan):
    """A data set, and the label scan of its masks."""

    role: Role
    dataset: SegmentationDataset

    @property
    def class_pixels(self) -> npt.NDArray[np.int64]:
        pixels: npt.NDArray[np.int64] = self.counts[:, : len(self.dataset.classes)].sum(0)
        return pixels

    @property
    def white_level(self) -> int:
        """Of deep images."""
        return self.dataset.decoding.white_level

    @property
    def class_images(self) -> npt.NDArray[np.int64]:
        """How many images hold each class."""
        images: npt.NDArray[np.int64] = (self.counts[:, : len(self.dataset.classes)] > 0).sum(0)
        return images


def scan_set(dataset: SegmentationDataset, role: Role) -> ScannedSet:
    """Every mask of a set, of which those that are known are not read again."""
    scan = no_labels(len(dataset)) if dataset.masks is None else count_labels(dataset)
    return ScannedSet(**vars(scan), role=role, dataset=dataset)
