"""Which splits share images: a figure on what was trained on is none."""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from segapp.base.errors import UserError
from segapp.data.dataset import SegmentationDataset

PARTS = {
    "voc2012 trainval": {"voc2012 train", "voc2012 val"},
    "voc2012 trainaug": {"voc2012 train", "voc2012 SBD"},
    "coco": {"coco train", "coco val"},  # of published weights, which seldom tell one part from the other
    "ade20k train": {"ade20k training"},  # of published weights; the folder's name is the other
}
"""Splits that are made of others, or go by another name."""

SIZES = 16
"""Files of which `marked` takes the sizes: a look at a million would take long, and at none, numbers be all alike."""


def fingerprinted(name: str, ids: Sequence[str], images: Sequence[Path]) -> str:
    """The name of a split with what tells its images from others: six digits, as in "pets train #3fa9c1".

    They follow from all ids, in any order, and the sizes of some files: so they stay when a folder is moved or
    renamed, or the split plays another role, and change with any image that comes or goes.
    """
    order = sorted(range(len(ids)), key=ids.__getitem__)
    digest = hashlib.sha256("\0".join([ids[at] for at in order]).encode(errors="surrogateescape"))
    for at in order[:: max(1, len(order) // SIZES)]:
        digest.update(f"\0{images[at].stat().st_size if images[at].exists() else 0}".encode())
    return f"{name} #{digest.hexdigest()[:6]}"


def overlapping(split: str, splits_seen: Iterable[str]) -> list[str]:
    """Those of `splits_seen` that share images with `split`, as far as names tell.

    Two names with marks are of the same images if the marks are one, whatever stands before them; else the names
    without marks are compared, of which some are known to be parts of others. Splits that share a part of their
    images under names of their own go unknown.
    """
    return [seen for seen in splits_seen if _share(seen, split)]


def _share(one: str, other: str) -> bool:
    (name, mark), (other_name, other_mark) = _unmarked(one), _unmarked(other)
    if mark and other_mark:
        return mark == other_mark
    return bool(PARTS.get(name, {name}) & PARTS.get(other_name, {other_name}))


def _unmarked(split: str) -> tuple[str, str]:
    """Name and mark; the mark is empty where there is none."""
    match = re.fullmatch("(.*) #([0-9a-f]{6})", split)
    return (match[1], match[2]) if match else (split, "")


def check_apart(training: SegmentationDataset, validation: SegmentationDataset) -> None:
    """Raises:
    UserError: an image is in both sets.
    """
    both = {*_files(training.images)} & {*_files(validation.images)}
    if both:
        raise UserError(
            f"{len(both)} images are in both {training.name} and {validation.name}, {min(both)} among them: a figure "
            "on what was trained on is none; choose other data.train and data.val"
        )


def _files(images: Sequence[Path]) -> Iterator[str]:
    """Their paths, by whatever way their folders are named."""
    real: dict[Path, str] = {}
    for image in images:
        folder = image.parent
        if folder not in real:
            real[folder] = os.path.realpath(folder)
        yield f"{real[folder]}/{image.name}"
