"""Scores a classifier on a data set's images: by whether their class is its first choice, or among its first five."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segapp.base.distributed import ALONE, Processes
from segapp.base.errors import UserError
from segapp.base.files import sha256
from segapp.base.logs import progress_bar
from segapp.data.class_lists import renumbered
from segapp.data.dataset import ClassificationDataset, Sample
from segapp.data.formats.image_folder import ImageFolderConfig
from segapp.data.loading.loader import Workers, whole_images
from segapp.evaluation.calibration import Reliability, ReliabilityHistogram
from segapp.evaluation.checks import check_any_scored, matched_to_weights, warn_of_dim, warn_of_seen
from segapp.evaluation.config import EvalOptions, EvalToolConfig
from segapp.evaluation.confusion import ConfusionMatrix, Counts, Floats, Scores, mean, ratio
from segapp.evaluation.examples import reduced
from segapp.weights.find import find_checkpoint
from segapp.weights.zoo import ZOO

log = logging.getLogger(__name__)

TOP = 5
"""Choices of an image that are kept."""
Classify = Callable[[Sequence[Sample]], Tensor]
"""The probabilities of the classes of each sample, N x K."""


@dataclass(frozen=True)
class Choices:
    """What a classifier made of N images.

    Attributes:
        indices: N, in the data set.
        truth: N class indices.
        classes: N x T, of the T = min(5, K) most probable ones, in order.
        probabilities: N x T, of these.
        of_truth: N, the true class's.
    """

    indices: Counts
    truth: Counts
    classes: Counts
    probabilities: Floats
    of_truth: Floats

    @cached_property
    def is_first(self) -> npt.NDArray[np.bool_]:
        """N: whether the true class is the most probable one."""
        return np.asarray(self.classes[:, 0] == self.truth)

    @cached_property
    def is_among(self) -> npt.NDArray[np.bool_]:
        """N: whether it is one of the T."""
        return np.asarray((self.classes == self.truth[:, None]).any(1))


@dataclass(frozen=True)
class Mistake:
    """A wrongly classified image, H x W x 3 RGB, no side above LONGEST_SIDE. `choices`: with their probabilities."""

    id: str
    image: npt.NDArray[np.uint8]
    truth: str
    of_truth: float
    choices: list[tuple[str, float]]


@dataclass(frozen=True)
class Classification:
    """What was scored, and how well. Measures are in [0, 1], or NaN where nothing was counted.

    Attributes:
        scores: of the first choices; its pixels are images.
        problems: a line for each image that could not be scored.
        worst: those of the lowest probability of the truth, worst first.
    """

    dataset: str
    scores: Scores
    choices: Choices
    ids: tuple[str, ...]
    reliability: Reliability
    problems: list[str]
    protocol: str
    worst: list[Mistake] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        return not self.problems

    @property
    def images(self) -> int:
        return len(self.ids)

    @property
    def top1(self) -> float:
        return self.scores.pixel_accuracy

    @property
    def top5(self) -> float:
        return float(ratio(self.choices.is_among.sum(), self.images))

    @cached_property
    def per_class_images(self) -> Counts:
        return np.asarray(self.scores.confusion_matrix.sum(1), np.int64)

    @cached_property
    def per_class_top5(self) -> Floats:
        hits = np.bincount(self.choices.truth, self.choices.is_among, len(self.scores.classes))
        return ratio(hits, self.per_class_images)

    @property
    def mean_top1(self) -> float:
        """Over the classes that have images."""
        return float(mean(self.scores.per_class_accuracy))

    def confusions(self, number: int) -> list[tuple[str, str, int]]:
        """Which class was most often taken for which other, and how often."""
        wrong = self.scores.confusion_matrix.copy()
        np.fill_diagonal(wrong, 0)
        order = np.argsort(-wrong, axis=None, kind="stable")[:number]
        pairs = [divmod(int(at), len(wrong)) for at in order]
        names = self.scores.classes
        return [
            (names[truth], names[taken], int(wrong[truth, taken])) for truth, taken in pairs if wrong[truth, taken]
        ]


def classify(
    dataset: ClassificationDataset,
    predict: Classify,
    *,
    protocol: str,
    config: EvalOptions,
    workers: Workers,
    processes: Processes = ALONE,
) -> Classification:
    """Scores every image that can be read.

    Args:
        protocol: how `predict` is shown images, in words.
        processes: share the images, each of which is scored once; all get the whole result, the main one its worst.
    """
    indices = list(range(len(dataset)))[processes.rank :: processes.world_size]
    parts, problems = [], {}
    remaining = iter(indices)
    with progress_bar(len(indices), f"scoring {dataset.name}", "image", leave=False) as progress:
        for items in whole_images(dataset, indices, batch_size=config.batch_size, workers=workers):
            samples = []
            for item, index in zip(items, remaining, strict=False):  # in this order: none is taken in vain
                if isinstance(item, UserError):
                    problems[index] = str(item)
                else:
                    samples.append((index, item))
            if samples:
                probabilities = predict([sample for _, sample in samples])
                parts.append(_choices(np.array([index for index, _ in samples]), dataset.labels, probabilities))
            progress.update(len(items))
    gathered = processes.gather((parts, problems))
    choices = _joined([each for part, _ in gathered for each in part], len(dataset.classes))
    problems = {index: problem for _, part in gathered for index, problem in part.items()}
    truth, first = torch.from_numpy(choices.truth), torch.from_numpy(choices.classes[:, 0].copy())
    matrix = ConfusionMatrix(len(dataset.classes))
    matrix.update(truth, first)
    histogram = ReliabilityHistogram(len(dataset.classes))
    histogram.update(truth, first, torch.from_numpy(choices.probabilities[:, 0].astype(np.float32)))
    return Classification(
        dataset.name,
        Scores(dataset.classes, matrix.compute()),
        choices,
        tuple(dataset.ids[index] for index in choices.indices.tolist()),
        histogram.compute(),
        [problems[index] for index in sorted(problems)],
        protocol,
        _worst(dataset, choices, config.examples) if processes.main else [],
    )


def _choices(indices: Counts, labels: Counts, probabilities: Tensor) -> Choices:
    truth = labels[indices]
    top = probabilities.topk(min(TOP, probabilities.shape[1]), 1)
    of_truth = probabilities.gather(1, torch.from_numpy(truth).to(probabilities.device)[:, None])[:, 0]
    return Choices(
        indices,
        truth,
        top.indices.cpu().numpy(),
        top.values.double().cpu().numpy(),
        of_truth.double().cpu().numpy(),
    )


def _joined(parts: Sequence[Choices], num_classes: int) -> Choices:
    """All images', in the data set's order."""
    top = min(TOP, num_classes)
    none = np.empty(0, np.int64)
    empty = Choices(none, none, np.empty((0, top), np.int64), np.empty((0, top)), np.empty(0))
    names = ("indices", "truth", "classes", "probabilities", "of_truth")
    columns = {name: np.concatenate([getattr(each, name) for each in (empty, *parts)]) for name in names}
    order = np.argsort(columns["indices"])
    return Choices(**{name: column[order] for name, column in columns.items()})


def _worst(dataset: ClassificationDataset, choices: Choices, number: int) -> list[Mistake]:
    """Of the wrongly classified images those of the lowest probability of the truth."""
    wrong = np.flatnonzero(~choices.is_first)
    worst = []
    for at in wrong[np.argsort(choices.of_truth[wrong], kind="stable")][:number].tolist():
        sample = dataset[int(choices.indices[at])]
        names = [dataset.classes[index] for index in choices.classes[at].tolist()]
        worst.append(
            Mistake(
                sample.id,
                reduced(sample.image),
                dataset.classes[choices.truth[at]],
                float(choices.of_truth[at]),
                list(zip(names, choices.probabilities[at].tolist(), strict=True)),
            )
        )
    return worst


def score_classifier(config: EvalToolConfig, processes: Processes = ALONE) -> tuple[Classification, dict[str, str]]:
    """Scores a checkpoint on the data's images for validation. Returns the result and, by name, its source.

    Raises:
        UserError: the data or the checkpoint cannot be used, the classes do not match, or no image could be scored.
    """
    assert isinstance(config.data, ImageFolderConfig)
    dataset = config.data.dataset("val")
    if config.checkpoint in ZOO and ZOO[config.checkpoint].kind == "network":  # told before a long download
        raise UserError(f"{config.checkpoint} segments images; name a classifier with checkpoint=, a file or a run")
    with processes.main_first():
        path: Path = find_checkpoint(config.checkpoint, offline=config.offline)
    predictor, info = config.open_classifier(path)
    dataset.decoding = predictor.decoding
    log.info("scoring %s: %s", path, info.describe())
    if not {*dataset.classes} < {*info.classes}:  # a part of the classes is scored as it is
        dataset = matched_to_weights(dataset, path, info.classes)
    else:
        dataset = renumbered(dataset, info.classes)
    warn_of_dim(dataset)
    caution = warn_of_seen(dataset, info.trained_on)
    evaluation = classify(
        dataset,
        lambda samples: predictor.predict([sample.image for sample in samples]),
        protocol=predictor.protocol,
        config=config.eval,
        workers=config.workers,
        processes=processes,
    )
    check_any_scored(evaluation.images, evaluation.problems, evaluation.images)
    source = {
        "checkpoint": str(path.resolve()),
        "SHA-256": sha256(path),
        "network": info.network.encoder.describe(),
        "trained on": info.describe(),
        "data": dataset.name,
    }
    return evaluation, source if caution is None else source | {"caution": caution}
