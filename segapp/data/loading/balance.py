"""Weighs the loss's classes against each other, so that rare ones count (loss.class_weights=balanced)."""

import numpy as np
import numpy.typing as npt


def class_weights(counts: npt.NDArray[np.int64], num_classes: int) -> npt.NDArray[np.float64]:
    """Median-frequency balancing (Eigen and Fergus, ICCV 2015, section 6.3.2): median(freq) / freq of each class.

    freq is a class's pixels over all labelled pixels of the images that hold it, and the median is over the classes
    that occur. A class that never occurs weighs 0.

    Args:
        counts: pixels by image and label value, N x 256 (`scan_labels`); ignored pixels count nowhere.
    """
    labelled = counts[:, :num_classes]
    pixels = labelled.sum(0)
    around = labelled.sum(1) @ (labelled > 0)
    occurs = pixels > 0
    weights = np.zeros(num_classes)
    if occurs.any():
        frequency = pixels[occurs] / around[occurs]
        weights[occurs] = np.median(frequency) / frequency
    return weights
