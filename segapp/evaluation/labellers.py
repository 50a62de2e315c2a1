"""What gives an evaluation its labels: a network, or a folder of saved masks."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

from segapp.base.errors import UserError
from segapp.base.masks import read_mask
from segapp.data.dataset import Sample, check_size
from segapp.data.pairs import as_on_disk
from segapp.inference.prediction import Prediction
from segapp.inference.predictor import Predictor
from segapp.inference.test_time_augmentation import TestTimeAugmentation

Labeller = Callable[[Sequence[Sample]], Sequence[Prediction | UserError]]
"""Of each sample its labels, or what is wrong with it."""
JointLabeller = Callable[[Sequence[Sample]], Sequence[Sequence[Prediction | UserError]]]
"""Several labellers in one, which share their work: for each of them what it gives."""


def by_network(predictor: Predictor, *, confidence: bool = False) -> Labeller:
    """The labels on the predictor's device; with `confidence` the probability of each, too."""

    def label(samples: Sequence[Sample]) -> list[Prediction]:
        return [*map(_in_tensors, predictor.predict([sample.image for sample in samples], confidence=confidence))]

    return label


def jointly(predictor: Predictor, augmentations: Sequence[TestTimeAugmentation]) -> JointLabeller:
    """A labeller for each test-time augmentation."""

    def label(samples: Sequence[Sample]) -> list[list[Prediction]]:
        found = predictor.predict_many([sample.image for sample in samples], augmentations)
        return [[*map(_in_tensors, each)] for each in found]

    return label


def _in_tensors(prediction: Prediction) -> Prediction:
    """Also of a runtime that needs no PyTorch."""
    labels, confidence = (
        torch.from_numpy(each) if isinstance(each, np.ndarray) else each
        for each in (prediction.labels, prediction.confidence)
    )
    return Prediction(labels, prediction.probabilities, confidence)


def by_saved_masks(folder: Path, num_classes: int) -> Labeller:
    """Masks ID.png of class indices, at the images' own sizes; on the CPU."""

    def label(samples: Sequence[Sample]) -> list[Prediction | UserError]:
        names = as_on_disk(folder, [f"{sample.id}.png" for sample in samples])
        return [read(folder / name, sample) for name, sample in zip(names, samples, strict=True)]

    def read(path: Path, sample: Sample) -> Prediction | UserError:
        try:
            mask = read_mask(path)
            check_size(path, mask.shape, sample.image.shape)
        except UserError as error:
            return error
        if mask.max() >= num_classes:
            return UserError(f"{path}: value {mask.max()} is outside the {num_classes} classes")
        return Prediction(torch.from_numpy(mask))

    return label
