"""Orders the images of each epoch of training: a function of the epoch's number and the seed alone."""

import numpy as np
import numpy.typing as npt

Order = npt.NDArray[np.int64]


class Uniform:
    """Every image once an epoch."""

    def __init__(self, images: int, seed: int) -> None:
        self.images = images
        self.seed = seed

    def __call__(self, epoch: int) -> Order:
        return np.random.default_rng([self.seed, epoch]).permutation(self.images)


class ClassBalanced:
    """Each draw chooses a class, all alike that occur, and then one of the images with it, all alike.

    So images of rare classes come several times an epoch, which has as many draws as there are images.

    Args:
        counts: pixels of each image by label value, N x 256.
        num_classes: values from 0 that are classes.
    """

    def __init__(self, counts: npt.NDArray[np.int64], num_classes: int, seed: int) -> None:
        self.images = len(counts)
        self.seed = seed
        holders = [np.flatnonzero(counts[:, index]) for index in range(num_classes)]
        self._holders = [images for images in holders if len(images)] or [np.arange(self.images)]

    def __call__(self, epoch: int) -> Order:
        random = np.random.default_rng([self.seed, epoch])
        classes = random.integers(len(self._holders), size=self.images)
        places = random.random(self.images)
        lengths = np.array([len(images) for images in self._holders])
        flat = np.concatenate(self._holders)
        starts = np.cumsum(lengths) - lengths
        order: Order = flat[starts[classes] + (places * lengths[classes]).astype(np.int64)]
        return order
