"""What scores an image: our measures and, where it is installed, torchmetrics on the same pixels."""

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segapp.base.classes import IGNORE_INDEX
from segapp.benchmarks.made_up import LogitsReader, ScoredImage, content_size
from segapp.evaluation.boundary import count_boundaries
from segapp.evaluation.calibration import BINS, ReliabilityHistogram
from segapp.evaluation.components import count_components
from segapp.evaluation.confusion import ConfusionMatrix, class_areas
from segapp.inference.geometry import Geometry

OURS, PEER = "segapp", "torchmetrics"
PEER_BARE = "torchmetrics, validate_args=False"
SOFTMAX = "softmax over all classes"
MATRIX, CALIBRATION = "confusion matrix, areas", "calibration histogram"
BOUNDARIES, COMPONENTS = "boundaries", "components"
LABELS, LABELS_AND_CONFIDENCE = "labels of logits", "labels of logits, confidence"
CONFIDENCE = "confidence alone"

ScorerName = tuple[str, str]
"""What is counted, and by what."""


@dataclass(frozen=True)
class Scorer:
    """What is timed: `update` of each image, or of what `prepare` makes of it, and `compute` at the end."""

    update: Callable[[Any], object]
    compute: Callable[[], Any] = lambda: None
    prepare: Callable[[ScoredImage], Any] = lambda image: image


def new_scorers(num_classes: int, trimap_widths: Sequence[int], reader: LogitsReader) -> dict[ScorerName, Scorer]:
    """Nothing counted yet. What differs between the two ways to read logits is what confidence costs."""
    device = reader.device
    matrix, histogram = ConfusionMatrix(num_classes, device), ReliabilityHistogram(num_classes, device=device)

    def read(confidence: bool) -> Callable[[ScoredImage], object]:
        return lambda image: reader.read(image.pixels, image.logits, confidence=confidence)

    return {
        (MATRIX, OURS): Scorer(lambda image: class_areas(matrix.update(image.truth, image.labels)), matrix.compute),
        (LABELS, OURS): Scorer(read(confidence=False)),
        (LABELS_AND_CONFIDENCE, OURS): Scorer(read(confidence=True)),
        (CALIBRATION, OURS): Scorer(
            lambda image: histogram.update(image.truth, image.labels, image.confidence),
            lambda: histogram.compute().ece,
        ),
        (BOUNDARIES, OURS): Scorer(
            lambda image: count_boundaries(image.mask, image.labels.cpu().numpy(), num_classes, widths=trimap_widths)
        ),
        (COMPONENTS, OURS): Scorer(
            lambda image: count_components(image.mask, image.labels.cpu().numpy(), num_classes)
        ),
        **_peers(num_classes, reader),
    }


def _peers(num_classes: int, reader: LogitsReader) -> dict[ScorerName, Scorer]:
    """torchmetrics' metrics, and the softmax that its calibration error needs."""

    def scores(image: ScoredImage) -> Tensor:
        return class_scores(image, reader.side)

    softmax: dict[ScorerName, Scorer] = {
        (CONFIDENCE, SOFTMAX): Scorer(lambda scores: scores.softmax(1), prepare=scores)
    }
    if not peer_installed():
        return softmax
    from torchmetrics.classification import MulticlassCalibrationError, MulticlassJaccardIndex

    calibration = MulticlassCalibrationError(num_classes, BINS, ignore_index=IGNORE_INDEX, validate_args=False)
    calibration = calibration.to(reader.device)

    def jaccard(validate_args: bool) -> Scorer:
        metric = MulticlassJaccardIndex(num_classes, ignore_index=IGNORE_INDEX, validate_args=validate_args)
        metric = metric.to(reader.device)

        def compute() -> npt.NDArray[np.int64]:
            metric.compute()
            return metric.confmat.cpu().numpy()

        return Scorer(lambda image: metric.update(image.labels, image.truth), compute)

    return softmax | {
        (MATRIX, PEER): jaccard(validate_args=True),
        (MATRIX, PEER_BARE): jaccard(validate_args=False),
        (CALIBRATION, PEER_BARE): Scorer(
            lambda pair: calibration.update(*pair),
            lambda: float(calibration.compute()),
            prepare=lambda image: (scores(image).softmax(1), image.truth[None]),
        ),
    }


def class_scores(image: ScoredImage, side: int) -> Tensor:
    """1 x K x H x W on a canvas of `side`, of which the predictor takes the highest."""
    size = image.mask.shape[0], image.mask.shape[1]
    strips = Geometry((side, side), content_size(size, side), size).scores([image.logits], probabilities=False)
    return torch.cat([strip for _, strip in strips], 2)


def peer_installed() -> bool:
    """Whether torchmetrics, which only developers need, is."""
    return importlib.util.find_spec(PEER) is not None


def peer_version() -> str:
    """Of torchmetrics, for the line above a table."""
    if not peer_installed():
        return f"{PEER} is left out: it is not installed; pip install {PEER}"
    return f"{PEER} {version(PEER)}"
