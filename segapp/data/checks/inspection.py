"""Looks at every image and mask of a data set, once, for the audit to judge."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

import cv2
import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader, Dataset

from segapp.base.devices import available_cores
from segapp.base.errors import UserError
from segapp.base.images import exif_orientation, read_image
from segapp.base.logs import progress_bar
from segapp.data.checks.labels import ScannedSet, scan_set
from segapp.data.dataset import Array, Role, SegmentationDataset
from segapp.data.loading.loader import start_worker

BATCH = 8
"""Images that a process takes at a time."""
MIN_VALUES = 4
"""Two labels, and two values between them: with fewer, a mask is not taken for blurred."""


@dataclass(frozen=True)
class Inspection:
    """What one image's pixels tell. `size`: (height, width) once turned. `digest`: of the pixels, empty if broken."""

    problem: str | None = None
    size: tuple[int, int] = (0, 0)
    orientation: int = 1
    digest: bytes = b""
    blurred: bool = False


@dataclass(frozen=True)
class AuditedSet(ScannedSet):
    """A data set and all that was seen of it: an entry an image, in a few arrays however many there are.

    sizes: N x 2, (height, width) in pixels, 0 where the image is broken.
    orientations: N, EXIF's. digests: N, 16 bytes each. blurred: N, masks with mixed edges.
    broken: by index, why the image cannot be read.
    """

    sizes: npt.NDArray[np.int32]
    orientations: npt.NDArray[np.uint8]
    digests: npt.NDArray[np.bytes_]
    blurred: npt.NDArray[np.bool_]
    broken: Mapping[int, str]


def inspect_set(dataset: SegmentationDataset, role: Role) -> AuditedSet:
    """Decodes every image, and every mask that the label scan does not know yet, on all cores."""
    number = len(dataset)
    labels = scan_set(dataset, role)
    may_be_blurred = (labels.counts > 0).sum(1) >= MIN_VALUES
    sizes, orientations = np.zeros((number, 2), np.int32), np.ones(number, np.uint8)
    digests, blurred = np.zeros(number, "S16"), np.zeros(number, bool)
    broken: dict[int, str] = {}
    loader = DataLoader(
        _Inspections(dataset, may_be_blurred),
        batch_size=BATCH,
        num_workers=min(available_cores(), math.ceil(number / BATCH)),
        collate_fn=list,
        worker_init_fn=start_worker,
    )
    with progress_bar(number, f"looking at {dataset.name}", "image", leave=False) as bar:
        for index, inspection in enumerate(chain.from_iterable(loader)):
            sizes[index], orientations[index] = inspection.size, inspection.orientation
            digests[index], blurred[index] = inspection.digest, inspection.blurred
            if inspection.problem is not None:
                broken[index] = inspection.problem
            bar.update()
    return AuditedSet(
        **vars(labels), sizes=sizes, orientations=orientations, digests=digests, blurred=blurred, broken=broken
    )


class _Inspections(Dataset[Inspection]):
    """Picklable, so that processes may be spawned."""

    def __init__(self, dataset: SegmentationDataset, may_be_blurred: npt.NDArray[np.bool_]) -> None:
        self.dataset = dataset
        self.may_be_blurred = may_be_blurred

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Inspection:
        path = self.dataset.images[index]
        blurred = False
        try:
            if self.dataset.masks is not None and self.may_be_blurred[index]:
                blurred = has_mixed_edges(self.dataset.read_label(self.dataset.masks[index]))
            image = read_image(path)
            orientation = exif_orientation(path)
        except UserError as error:
            return Inspection(problem=str(error), blurred=blurred)
        digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
        digest.update(image.data)
        return Inspection(None, image.shape[:2], orientation, digest.digest(), blurred)


def has_mixed_edges(label: Array) -> bool:
    """Whether the labels (H x W) were blurred: resized smoothly, or drawn with anti-aliasing.

    A value is *mixed* if it nowhere fills 3 x 3 pixels, and nine in ten of its pixels have both a lower and a higher
    value within two pixels. A mask is blurred if it has two mixed values or more, with at least a tenth as many pixels
    as there are steps from one unmixed label straight to another. So one thin class between two others (an outline
    class) is not taken for blur, nor is blur seen between labels that differ by no more than 2.
    """
    three, five = np.ones((3, 3), np.uint8), np.ones((5, 5), np.uint8)
    pixels = np.bincount(label.ravel(), minlength=256)
    fills = np.zeros(256, bool)
    fills[label[cv2.erode(label, three) == cv2.dilate(label, three)]] = True
    between = label[(cv2.erode(label, five) < label) & (label < cv2.dilate(label, five))]
    mixed = (pixels > 0) & ~fills & (np.bincount(between, minlength=256) >= 0.9 * pixels)
    if mixed.sum() < 2:
        return False
    straight = sum(
        np.count_nonzero((one != other) & ~mixed[one] & ~mixed[other])
        for one, other in ((label[1:], label[:-1]), (label[:, 1:], label[:, :-1]))
    )
    return bool(pixels[mixed].sum() >= 0.1 * straight)
