"""Tells which splits share images: a score on what was trained on says nothing."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from segapp.base.errors import UserError
from segapp.data.dataset import ImageDataset
from segapp.data.fingerprint import name_and_fingerprint

PARTS = {
    "voc2012 trainval": {"voc2012 train", "voc2012 val"},
    "voc2012 trainaug": {"voc2012 train", "voc2012 SBD"},
    "coco": {"coco train", "coco val"},  # of published weights, which seldom tell one part from the other
    "ade20k train": {"ade20k training"},  # of published weights; the folder's name is the other
}
"""Splits that are made of others, or go by another name."""


def overlapping(split: str, trained_on: Iterable[str]) -> list[str]:
    """Those splits of `trained_on` that share images with `split`, as far as names tell.

    Two names with fingerprints are of the same images if the fingerprints are one, whatever stands before them; else
    the names without them are compared, of which some are known to be parts of others. Splits that share a part of
    their images under names of their own go unknown.
    """
    return [each for each in trained_on if _overlap(each, split)]


def _overlap(one: str, other: str) -> bool:
    (name, fingerprint), (other_name, other_fingerprint) = name_and_fingerprint(one), name_and_fingerprint(other)
    if fingerprint and other_fingerprint:
        return fingerprint == other_fingerprint
    return bool(PARTS.get(name, {name}) & PARTS.get(other_name, {other_name}))


def check_apart(training: ImageDataset, validation: ImageDataset) -> None:
    """Raises:
    UserError: an image is in both sets.
    """
    both = {*_real_paths(training.images)} & {*_real_paths(validation.images)}
    if both:
        raise UserError(
            f"{len(both)} images are in both {training.name} and {validation.name}, {min(both)} among them: a figure "
            "on what was trained on is none; choose other data.train and data.val"
        )


def _real_paths(images: Sequence[Path]) -> Iterator[str]:
    """The same for a file by whatever way its folder is named; one look at the disk a folder."""
    folders: dict[Path, str] = {}
    for image in images:
        folder = image.parent
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        yield f"{folders[folder]}/{image.name}"
