"""The baseline that knows nothing but colour."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from segapp.base.errors import UserError
from segapp.base.logs import progress_bar
from segapp.data.class_lists import matched
from segapp.data.config import DataConfig
from segapp.data.dataset import Sample
from segapp.data.loading.loader import Workers
from segapp.evaluation.config import EvalConfig
from segapp.evaluation.evaluate import evaluate
from segapp.inference.prediction import Prediction

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


def colour_table_miou(data: DataConfig, config: EvalConfig, workers: Workers) -> float:
    """The mIoU of a colour look-up table, fitted on the training set, on the validation set."""
    training_set = data.dataset("train")
    validation_set = matched(data.dataset("val"), training_set.classes, training_set.name)
    table = ColourTable(len(training_set.classes))
    with progress_bar(len(training_set), "fitting the colour table", "image", leave=False) as progress:
        for index in range(len(training_set)):
            sample = training_set[index]
            assert sample.label is not None
            table.fit(sample.image, sample.label)
            progress.update()

    def label(samples: Sequence[Sample]) -> list[Prediction | UserError]:
        return [Prediction(torch.from_numpy(table(sample.image))) for sample in samples]

    protocol = "colour look-up table"
    return evaluate(validation_set, label, protocol=protocol, config=config.plain, workers=workers).scores.miou
