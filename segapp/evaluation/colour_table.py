"""The baseline that knows nothing but colour."""

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.uint8]


class ColourTable:
    """Gives each pixel the most frequent class of its colour, whatever surrounds it.

    Colours that agree in the upper `bits` bits of every channel count as one. Of equally frequent classes the
    lowest index wins.
    """

    def __init__(self, num_classes: int, bits: int = 5) -> None:
        self.num_classes = num_classes
        self.bits = bits
        self._counts = np.zeros((2 ** (3 * bits), num_classes), np.int64)

    def _bins(self, image: Array) -> npt.NDArray[np.int64]:
        return (image >> (8 - self.bits)) @ (1 << np.array([2 * self.bits, self.bits, 0]))

    def fit(self, image: Array, label: Array) -> None:
        """Adds one image's pixels: H x W x 3 RGB, and H x W indices; those from num_classes up are ignored."""
        scored = label < self.num_classes
        pairs = self._bins(image)[scored] * self.num_classes + label[scored]
        self._counts += np.bincount(pairs, minlength=self._counts.size).reshape(self._counts.shape)

    def __call__(self, image: Array) -> Array:
        """H x W x 3 RGB to H x W indices; a colour never seen is the most frequent class of all pixels."""
        overall = self._counts.sum(0).argmax()
        table = np.where(self._counts.any(1), self._counts.argmax(1), overall).astype(np.uint8)
        return np.take(table, self._bins(image))
