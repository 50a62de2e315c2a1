"""Whether a data set, its classes and a network's weights go together, told before hours of scoring."""

import logging
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from segapp.base.classes import IGNORE_INDEX
from segapp.base.errors import UserError
from segapp.base.images import is_dim
from segapp.data.checks.splits import overlapping
from segapp.data.class_lists import D, both_lists, matched
from segapp.data.dataset import ImageDataset
from segapp.evaluation.config import EvalConfig
from segapp.weights.sources.common import imagenet_classes

log = logging.getLogger(__name__)

LOOKED_AT = 16
"""Images that are looked at before all are scored."""
UNNAMED = re.compile(r"(class )?\d+")
"""What classes are called of weights that came without names."""
WORDNET_ID = re.compile(r"n\d{8}")
"""What folders of ImageNet's classes are called; in order, they have the order of its classes."""


def check_classes(config: EvalConfig, dataset: ImageDataset) -> None:
    """Raises:
    UserError: a class named in `config.classes` is none of the data set's.
    """
    unknown = [name for name in config.classes or () if name not in dataset.classes]
    if unknown:
        raise UserError(f"eval.classes: {unknown[0]} is none of {', '.join(dataset.classes)}")


def check_number_of_classes(checkpoint: str, classes: int, dataset: ImageDataset, lists: str = "") -> None:
    """Raises:
    UserError: the weights are for another number of classes than the data's; `lists` may show both.
    """
    if classes != len(dataset.classes):
        raise UserError(
            f"{checkpoint} knows {classes} classes, {dataset.name} has {len(dataset.classes)}{lists}; "
            "checkpoint=latest is what was trained here last"
        )


def matched_to_weights(dataset: D, checkpoint: Path, classes: tuple[str, ...]) -> D:
    """The data set with the class indices of weights for `classes`: by name, or by index where weights came without.

    Raises:
        UserError: a name is missing or extra; both lists are shown.
    """
    lists = both_lists(dataset, classes, checkpoint.name)
    check_number_of_classes(str(checkpoint), len(classes), dataset, f" ({lists})")
    if {*classes} != {*dataset.classes} and all(UNNAMED.fullmatch(name) for name in classes):
        log.warning("nobody named the classes of %s; those of %s are matched by index", checkpoint, dataset.name)
        return dataset
    if all(WORDNET_ID.fullmatch(name) for name in dataset.classes) and classes == imagenet_classes():
        return replace(dataset, classes=classes)
    return matched(dataset, classes, checkpoint.name)


def check_any_scored(images: int, problems: Sequence[str], pixels: int) -> None:
    """Raises:
    UserError: no image could be scored, or no pixel of those that could.
    """
    if not images:
        raise UserError(f"none of {len(problems)} images could be scored; {problems[0]}")
    if not pixels:
        raise UserError(f"nothing is scored: every pixel of the {images} masks is {IGNORE_INDEX}, which is ignored")


def warn_of_dim(dataset: ImageDataset) -> None:
    """Says so where one of a few images, spread evenly, is of 16 bits and nearly black."""
    for index in np.linspace(0, len(dataset) - 1, min(LOOKED_AT, len(dataset)), dtype=int).tolist():
        path, white_level = dataset.images[index], dataset.decoding.white_level
        with suppress(UserError):  # told when it is scored
            if is_dim(path, white_level):
                log.warning("%s: nearly black, for 16 bits; white_level says which value is white", path)
                return


def warn_of_seen(dataset: ImageDataset, trained_on: Iterable[str]) -> str | None:
    """Says so, and returns it, where weights were trained on images that they are to be scored on."""
    splits = list(trained_on)
    seen = ", ".join(overlapping(dataset.name, splits))
    if not seen and splits:
        return None
    caution = f"these weights were trained on {seen}: their figures on {dataset.name} say little"
    if not splits:
        caution = f"nobody knows what these weights were trained on: whether they have seen {dataset.name}, too"
    log.warning(caution)
    return caution
