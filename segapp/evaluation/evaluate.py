"""Scores a data set's images, by a network or from saved masks."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor

from segapp.config import Config, Words
from segapp.data.dataset import Sample, SegmentationDataset, check_size
from segapp.data.loader import Workers, whole_images
from segapp.data.splits import overlapping
from segapp.distributed import ALONE, Processes
from segapp.errors import UserError
from segapp.evaluation.confusion import ConfusionMatrix, Scores, ratio
from segapp.images import read_mask
from segapp.inference.predictor import Predictor
from segapp.logs import progress_bar

log = logging.getLogger(__name__)

Labeller = Callable[[Sequence[Sample]], Sequence[Tensor | UserError]]
"""Samples to H x W uint8 labels, or to what is wrong with one."""


class EvalConfig(Config):
    """See conf/eval.yaml."""

    batch_size: int = Field(gt=0)
    classes: Words | None
    examples: int = Field(ge=0, le=100)


@dataclass(frozen=True)
class Example:
    """One scored image.

    image: H x W x 3 RGB; truth and prediction: H x W class indices, truth 255 where ignored;
    miou: mean IoU over this image's classes in [0, 1], or NaN.
    """

    id: str
    image: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.uint8]
    prediction: npt.NDArray[np.uint8]
    miou: float


@dataclass(frozen=True)
class Evaluation:
    """`problems`: a line for each image that could not be scored. `examples`: the best, the worst and some between."""

    dataset: str
    scores: Scores
    images: int
    problems: list[str]
    protocol: str
    examples: list[Example]

    @property
    def complete(self) -> bool:
        return not self.problems


def by_network(predictor: Predictor) -> Labeller:
    def label(samples: Sequence[Sample]) -> list[Tensor | UserError]:
        return [prediction.labels for prediction in predictor.predict([sample.image for sample in samples])]

    return label


def by_saved_masks(folder: Path, num_classes: int) -> Labeller:
    """Masks ID.png of class indices, at the images' own sizes."""

    def label(samples: Sequence[Sample]) -> list[Tensor | UserError]:
        return [read(folder / f"{sample.id}.png", sample) for sample in samples]

    def read(path: Path, sample: Sample) -> Tensor | UserError:
        try:
            mask = read_mask(path)
            check_size(path, mask.shape, sample.image.shape)
        except UserError as error:
            return error
        if mask.max() >= num_classes:
            return UserError(f"{path}: value {mask.max()} is outside the {num_classes} classes")
        return torch.from_numpy(mask)

    return label


def evaluate(
    dataset: SegmentationDataset,
    label: Labeller,
    *,
    protocol: str,
    config: EvalConfig,
    workers: Workers,
    device: torch.device | str = "cpu",
    processes: Processes = ALONE,
) -> Evaluation:
    """One dataset-wide confusion matrix over whole images (arXiv:1802.02611, section 4; 255 ignored).

    Args:
        label: gives labels on `device`.
        protocol: how `label` shows images to a network, in words.
        processes: share the images, each of which is scored once; all get the whole result.

    Raises:
        UserError: the data set has no labels, or lacks a class named in `config.classes`.
    """
    if dataset.masks is None:
        raise UserError(f"{dataset.name}: its images have no labels to score against")
    check_classes(config, dataset)
    matrix = ConfusionMatrix(len(dataset.classes), device)
    scored: list[int] = []
    areas: list[Tensor] = []  # of each image: 3 x K pixels, right, true and predicted
    problems: list[tuple[int, str]] = []
    indices = range(processes.rank, len(dataset), processes.size)
    index = indices.start - indices.step
    with progress_bar(len(indices), f"scoring {dataset.name}", "image", leave=False) as progress:
        for items in whole_images(dataset, indices, batch_size=config.batch_size, workers=workers):
            samples = []
            for item in items:
                index += indices.step
                if isinstance(item, UserError):
                    problems.append((index, str(item)))
                else:
                    samples.append((index, item))
            labelled = label([sample for _, sample in samples]) if samples else []
            for (at, sample), labels in zip(samples, labelled, strict=True):
                if isinstance(labels, UserError):
                    problems.append((at, str(labels)))
                    continue
                counts = matrix.update(torch.from_numpy(sample.label).to(device), labels)
                areas.append(torch.stack([counts.diagonal(), counts.sum(1), counts.sum(0)]))
                scored.append(at)
            progress.update(len(items))
    shares = processes.gather((matrix.compute(), scored, _image_mious(areas), problems))
    matrices, *lists = zip(*shares, strict=True)
    order = np.argsort(np.concatenate(lists[0]))
    places, mious = (np.concatenate(each)[order] for each in lists[:2])
    examples = show(dataset, label, places[_chosen(mious, config.examples)]) if processes.main else []
    told = [text for _, text in sorted(each for share in lists[2] for each in share)]
    return Evaluation(dataset.name, Scores(dataset.classes, sum(matrices)), len(mious), told, protocol, examples)


def show(dataset: SegmentationDataset, label: Labeller, indices: Iterable[int]) -> list[Example]:
    """These images with their truths and predictions; what cannot be read or labelled is left out."""
    examples = []
    for index in indices:
        try:
            sample = dataset[int(index)]
        except UserError:  # the evaluation names it
            continue
        labels = label([sample])[0]
        if sample.label is None or isinstance(labels, UserError):
            continue
        truth, found = torch.from_numpy(sample.label), labels.cpu()
        counts = ConfusionMatrix(len(dataset.classes)).update(truth, found)
        miou = float(_image_mious([torch.stack([counts.diagonal(), counts.sum(1), counts.sum(0)])])[0])
        examples.append(Example(sample.id, sample.image, sample.label, found.numpy(), miou))
    return examples


def check_classes(config: EvalConfig, dataset: SegmentationDataset) -> None:
    """Raises:
    UserError: a class named in `config.classes` is none of the data set's.
    """
    unknown = [name for name in config.classes or () if name not in dataset.classes]
    if unknown:
        raise UserError(f"eval.classes: {unknown[0]} is none of {', '.join(dataset.classes)}")


def warn_of_seen(dataset: SegmentationDataset, splits_seen: Iterable[str]) -> str | None:
    """Says so, and returns it, where weights were trained on images that they are to be scored on."""
    splits = list(splits_seen)
    seen = ", ".join(overlapping(dataset.name, splits))
    if not seen and splits:
        return None
    caution = f"these weights were trained on {seen}: their figures on {dataset.name} say little"
    if not splits:
        caution = f"nobody knows what these weights were trained on: whether they have seen {dataset.name}, too"
    log.warning(caution)
    return caution


def _image_mious(areas: list[Tensor]) -> npt.NDArray[np.float64]:
    """Each image's mean IoU over the classes in its truth or prediction; NaN where all of it is ignored."""
    if not areas:
        return np.empty(0)
    right, true, predicted = torch.stack(areas, 1).cpu().double().numpy()
    union = true + predicted - right
    return ratio(np.nansum(ratio(right, union), 1), (union > 0).sum(1))


def _chosen(mious: npt.NDArray[np.float64], number: int) -> list[int]:
    """Places spread evenly from the worst to the best image, which are both among them."""
    order = np.argsort(mious)[: int(np.isfinite(mious).sum())]
    number = min(number, len(order))
    return [int(order[at]) for at in np.linspace(0, len(order) - 1, number).round().astype(int)]


def metrics(evaluation: Evaluation, config: EvalConfig) -> dict[str, Any]:
    """What metrics.json holds; measures are in [0, 1], null where nothing was counted."""
    scores = evaluation.scores
    values: dict[str, Any] = {
        "miou": scores.miou,
        "per_class_iou": dict(zip(scores.classes, scores.per_class_iou.tolist(), strict=True)),
        "pixel_accuracy": scores.pixel_accuracy,
        "mean_accuracy": scores.mean_accuracy,
        "frequency_weighted_iou": scores.frequency_weighted_iou,
    }
    if config.classes is not None:
        values["selected"] = {"classes": list(config.classes), "miou": scores.miou_of(config.classes)}
    values = _null_for_nan(values)
    return values | {
        "data": evaluation.dataset,
        "absent_classes": list(scores.absent),
        "images": evaluation.images,
        "complete": evaluation.complete,
        "problems": evaluation.problems,
        "confusion_matrix": scores.confusion_matrix.tolist(),
        "protocol": evaluation.protocol,
    }


def _null_for_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _null_for_nan(each) for key, each in value.items()}
    return None if isinstance(value, float) and np.isnan(value) else value
