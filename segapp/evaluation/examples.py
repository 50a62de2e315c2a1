"""Images to look at, with truth and prediction: some from the worst to the best, and the worst of single classes."""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from segapp.base.errors import UserError
from segapp.data.dataset import SegmentationDataset
from segapp.evaluation.confusion import Areas, ConfusionMatrix, Floats, Labels, Scores, class_areas, mean_iou
from segapp.evaluation.labellers import Labeller

LONGEST_SIDE = 1024
"""Pixels: dozens of examples of images of any size fit into memory and on a page."""


@dataclass(frozen=True)
class Example:
    """One scored image, made smaller if need be: no side above LONGEST_SIDE.

    Attributes:
        image: H x W x 3 RGB.
        truth, prediction: H x W class indices, truth 255 where ignored.
        miou: mean IoU over this image's classes in [0, 1], or NaN; at the image's own size.
        per_class_iou: K, likewise.
    """

    id: str
    image: npt.NDArray[np.uint8]
    truth: Labels
    prediction: Labels
    miou: float
    per_class_iou: Floats


def make_examples(dataset: SegmentationDataset, label: Labeller, indices: Iterable[int]) -> list[Example]:
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
        truth, labels = torch.from_numpy(sample.label), prediction.labels.cpu()
        matrix = ConfusionMatrix(len(dataset.classes))
        miou = float(mean_iou(class_areas(matrix.update(truth, labels)).numpy()))
        ious = Scores(dataset.classes, matrix.compute()).per_class_iou
        pictures = reduced(sample.image), reduced(sample.label), reduced(labels.numpy())
        examples.append(Example(sample.id, *pictures, miou, ious))
    return examples


def spread(mious: Floats, number: int) -> list[int]:
    """Positions spread evenly from the worst to the best image, which are both among them."""
    order = np.argsort(mious)[: int(np.isfinite(mious).sum())]
    number = min(number, len(order))
    return [int(order[at]) for at in np.linspace(0, len(order) - 1, number).round().astype(int)]


def worst_by_class(areas: Areas, scores: Scores, number: int) -> dict[str, int]:
    """Of the `number` classes of the lowest IoU, the position of the image with the most wrong pixels of the class.

    Wrong are those of its union that are not of its intersection; the lowest IoU of an image would as a rule be the 0
    of a few pixels.

    Args:
        areas: N x 3 x K pixels, right, true and predicted.
    """
    right, true, predicted = np.moveaxis(areas, 1, 0)
    wrong = true + predicted - 2 * right
    classes = [index for index in np.argsort(scores.per_class_iou)[:number] if len(wrong) and wrong[:, index].any()]
    return {scores.classes[index]: int(wrong[:, index].argmax()) for index in classes}


def reduced(picture: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """H x W x 3 RGB, or H x W indices."""
    height, width = picture.shape[:2]
    scale = LONGEST_SIDE / max(height, width)
    if scale >= 1:
        return picture
    kind = cv2.INTER_AREA if picture.ndim == 3 else cv2.INTER_NEAREST
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(picture, size, interpolation=kind)  # type: ignore[return-value]
