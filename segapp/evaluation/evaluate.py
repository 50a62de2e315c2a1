"""Scores a data set's images, by a network or from saved masks."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Self

import cv2
import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, field_validator

from segapp.base.config import Config, Words
from segapp.base.distributed import ALONE, Processes
from segapp.base.errors import UserError
from segapp.base.images import read_mask
from segapp.data.checks.splits import overlapping
from segapp.data.dataset import Sample, SegmentationDataset, check_size
from segapp.data.loading.loader import Workers
from segapp.evaluation.bootstrap import Areas
from segapp.evaluation.confusion import ConfusionMatrix, Floats, Scores, mean_iou
from segapp.evaluation.details import Details
from segapp.evaluation.state import EvaluationCheckpoint, Labeller, areas, count
from segapp.inference.prediction import Prediction
from segapp.inference.predictor import Predictor

log = logging.getLogger(__name__)

SHOWN_SIDE = 1024
"""Pixels: dozens of examples of any size are kept."""


class EvalConfig(Config):
    """See conf/eval.yaml."""

    batch_size: int = Field(gt=0)
    classes: Words | None
    examples: int = Field(ge=0, le=100)
    detailed: bool
    trimap_widths: tuple[Annotated[int, Field(gt=0, le=1000)], ...] = Field(max_length=100)

    @field_validator("trimap_widths")
    @classmethod
    def _rising(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if list(value) != sorted(set(value)):
            raise ValueError("widths rise from each to the next")
        return value

    @field_validator("classes")
    @classmethod
    def _once(cls, value: Words | None) -> Words | None:
        twice = [name for at, name in enumerate(value or ()) if name in (value or ())[:at]]
        if twice:
            raise ValueError(f"{twice[0]} is named twice")
        return value

    @property
    def plain(self) -> Self:
        """Without what a validation amid training has no use for."""
        return self.model_copy(update={"examples": 0, "detailed": False})


@dataclass(frozen=True)
class Example:
    """One scored image, made smaller if need be: no side above SHOWN_SIDE.

    Attributes:
        image: H x W x 3 RGB.
        truth, prediction: H x W class indices, truth 255 where ignored.
        miou: mean IoU over this image's classes in [0, 1], or NaN; at the image's own size.
        per_class_iou: K, likewise.
    """

    id: str
    image: npt.NDArray[np.uint8]
    truth: npt.NDArray[np.uint8]
    prediction: npt.NDArray[np.uint8]
    miou: float
    per_class_iou: Floats


@dataclass(frozen=True)
class Evaluation:
    """What was scored, and how well.

    Attributes:
        problems: a line for each image that could not be scored.
        examples: the best, the worst and some between.
        worst: for some of the classes, worst first, the image in which most pixels of the class are wrong.
        details: None if none were asked for.
    """

    dataset: str
    scores: Scores
    images: int
    problems: list[str]
    protocol: str
    examples: list[Example]
    worst: dict[str, Example] = field(default_factory=dict)
    details: Details | None = None

    @property
    def complete(self) -> bool:
        return not self.problems


def by_network(predictor: Predictor, *, confidence: bool = False) -> Labeller:
    return lambda samples: predictor.predict([sample.image for sample in samples], confidence=confidence)


def by_saved_masks(folder: Path, num_classes: int) -> Labeller:
    """Masks ID.png of class indices, at the images' own sizes."""

    def label(samples: Sequence[Sample]) -> list[Prediction | UserError]:
        return [read(folder / f"{sample.id}.png", sample) for sample in samples]

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


def evaluate(
    dataset: SegmentationDataset,
    label: Labeller,
    *,
    protocol: str,
    config: EvalConfig,
    workers: Workers,
    device: torch.device | str = "cpu",
    processes: Processes = ALONE,
    kept: EvaluationCheckpoint | None = None,
) -> Evaluation:
    """One dataset-wide confusion matrix over whole images (arXiv:1802.02611, section 4; 255 ignored).

    Args:
        label: gives labels on `device`.
        protocol: how `label` shows images to a network, in words.
        processes: share the images, each of which is scored once; all get the whole result.
        kept: where what is counted is kept, and read from if a part of it is there.

    Raises:
        UserError: the data set has no labels, or lacks a class named in `config.classes`.
    """
    masks_of(dataset)
    check_classes(config, dataset)
    tally = count(
        dataset,
        lambda samples: [label(samples)],
        labellers=1,
        batch_size=config.batch_size,
        trimap_widths=config.trimap_widths if config.detailed else None,
        workers=workers,
        device=torch.device(device),
        processes=processes,
        kept=kept,
        what=f"scoring {dataset.name}",
    )[0]
    places, scores, details = tally.places.tolist(), Scores(dataset.classes, tally.matrix), None
    if tally.counts is not None:
        ids = tuple(dataset.ids[place] for place in places)
        details = Details(ids, tally.areas, config.trimap_widths, tally.counts, tally.reliability)
    examples: list[Example] = []
    worst: dict[str, Example] = {}
    if processes.main:
        chosen = _chosen(mean_iou(tally.areas), config.examples)
        of_classes = _worst(tally.areas, scores, config.examples if config.detailed else 0)
        shown = {
            at: example
            for at in dict.fromkeys([*chosen, *of_classes.values()])
            for example in show(dataset, label, [places[at]])
        }
        examples = [shown[at] for at in chosen if at in shown]
        worst = {name: shown[at] for name, at in of_classes.items() if at in shown}
    problems = list(tally.problems.values())
    return Evaluation(dataset.name, scores, len(places), problems, protocol, examples, worst, details)


def show(dataset: SegmentationDataset, label: Labeller, indices: Iterable[int]) -> list[Example]:
    """These images with their truths and predictions; what cannot be read or labelled is left out."""
    examples = []
    for index in indices:
        try:
            sample = dataset[int(index)]
        except UserError:  # the evaluation names it
            continue
        prediction = label([sample])[0]
        if sample.label is None or isinstance(prediction, UserError):
            continue
        truth, found = torch.from_numpy(sample.label), prediction.labels.cpu()
        matrix = ConfusionMatrix(len(dataset.classes))
        miou = float(mean_iou(areas(matrix.update(truth, found)).numpy()))
        ious = Scores(dataset.classes, matrix.compute()).per_class_iou
        pictures = _reduced(sample.image), _reduced(sample.label), _reduced(found.numpy())
        examples.append(Example(sample.id, *pictures, miou, ious))
    return examples


def _reduced(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """H x W x 3 RGB, or H x W indices."""
    height, width = picture.shape[:2]
    scale = SHOWN_SIDE / max(height, width)
    if scale >= 1:
        return picture
    kind = cv2.INTER_AREA if picture.ndim == 3 else cv2.INTER_NEAREST
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(picture, size, interpolation=kind)  # type: ignore[return-value]


def masks_of(dataset: SegmentationDataset) -> Sequence[Path]:
    """Raises:
    UserError: there is nothing to score against.
    """
    if dataset.masks is None:
        raise UserError(f"{dataset.name}: its images have no labels to score against")
    return dataset.masks


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


def _chosen(mious: npt.NDArray[np.float64], number: int) -> list[int]:
    """Places spread evenly from the worst to the best image, which are both among them."""
    order = np.argsort(mious)[: int(np.isfinite(mious).sum())]
    number = min(number, len(order))
    return [int(order[at]) for at in np.linspace(0, len(order) - 1, number).round().astype(int)]


def _worst(areas: Areas, scores: Scores, number: int) -> dict[str, int]:
    """Of the `number` classes of the lowest IoU, the place of the image that has the most wrong pixels of the class.

    Wrong are those of its union that are not of its intersection; the lowest IoU of an image would as a rule be the 0
    of a few pixels.
    """
    right, true, predicted = np.moveaxis(areas, 1, 0)
    wrong = true + predicted - 2 * right
    classes = [index for index in np.argsort(scores.per_class_iou)[:number] if len(wrong) and wrong[:, index].any()]
    return {scores.classes[index]: int(wrong[:, index].argmax()) for index in classes}
