"""Matches class lists by name: those of two data sets, or of weights and the data that they are scored on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np

from segapp.base.classes import IGNORE_INDEX
from segapp.base.errors import UserError
from segapp.data.dataset import Array, ClassificationDataset, ImageDataset, SegmentationDataset

ONE_LIST = (
    "give both the same class names, also those that only one has images of; data=coco can choose and rename with "
    "data.classes"
)
"""What to do about lists that differ."""
SHOWN = 40
"""Names of a list that a message shows."""


@dataclass(frozen=True)
class Renumbered:
    """Reads labels whose indices are those of another list: `indices` has the new one of each."""

    read_label: Callable[[Path], Array]
    indices: tuple[int, ...]

    def __call__(self, path: Path) -> Array:
        return np.asarray(cv2.LUT(self.read_label(path), _table(self.indices)), np.uint8)


@lru_cache(maxsize=4)
def _table(indices: tuple[int, ...]) -> Array:
    """What is no class stays none."""
    table = np.arange(256, dtype=np.uint8)
    outside = table[len(indices) : IGNORE_INDEX]
    outside[outside <= max(indices)] = IGNORE_INDEX - 1
    table[: len(indices)] = indices
    return table


D = TypeVar("D", SegmentationDataset, ClassificationDataset)


def matched(dataset: D, classes: tuple[str, ...], owner: str) -> D:
    """The data set with the class indices of `owner`, whose list is `classes`: the same names in any order.

    Raises:
        UserError: a name is missing or extra; both lists are shown.
    """
    if {*dataset.classes} != {*classes}:
        raise UserError(f"{difference(dataset, classes, owner)}; {both_lists(dataset, classes, owner)}; {ONE_LIST}")
    return renumbered(dataset, classes)


def renumbered(dataset: D, classes: tuple[str, ...]) -> D:
    """The data set with the indices of a list that has all of its names."""
    if dataset.classes == classes:
        return dataset
    places = {name: index for index, name in enumerate(classes)}
    indices = tuple(places[name] for name in dataset.classes)
    if isinstance(dataset, ClassificationDataset):
        return replace(dataset, classes=classes, labels=np.array(indices, np.int64)[dataset.labels])
    return replace(
        dataset,
        classes=classes,
        read_label=Renumbered(dataset.read_label, indices),
        background=None if dataset.background is None else indices[dataset.background],
    )


def joined(one: SegmentationDataset, other: SegmentationDataset) -> tuple[SegmentationDataset, SegmentationDataset]:
    """Both with the indices of one list that has all names, to be looked at together.

    Raises:
        UserError: these are more than label values.
    """
    classes = tuple(dict.fromkeys([*one.classes, *other.classes]))
    if len(classes) >= IGNORE_INDEX:
        raise UserError(f"{difference(one, other.classes, other.name)}; {both_lists(one, other.classes, other.name)}")
    return renumbered(one, classes), renumbered(other, classes)


def difference(dataset: ImageDataset, classes: Sequence[str], owner: str) -> str:
    """Which names only one of two lists has."""
    one = [name for name in dataset.classes if name not in classes]
    other = [name for name in classes if name not in dataset.classes]
    only = [f"only {who} has {_some(names)}" for who, names in ((dataset.name, one), (owner, other)) if names]
    return f"the class lists of {dataset.name} and {owner} differ: {', '.join(only)}"


def both_lists(dataset: ImageDataset, classes: Sequence[str], owner: str) -> str:
    return f"{dataset.name}: [{_some(dataset.classes)}], {owner}: [{_some(classes)}]"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
