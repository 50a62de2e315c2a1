"""Looks at every image and mask of a data set, once, for the audit to judge."""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader, Dataset

from segapp.base.devices import available_cores
from segapp.base.errors import UserError
from segapp.base.images import deep_pixels, read_header, read_image
from segapp.base.logs import progress_bar
from segapp.data.checks.labels import ScannedSet, scan_set
from segapp.data.dataset import Role, SegmentationDataset
from segapp.data.loading.loader import start_worker

BATCH = 8
"""Images that a process takes at a time."""


@dataclass(frozen=True)
class Inspection:
    """What one image's pixels tell. `size`: (height, width) once turned. `digest`: of the pixels, empty if broken."""

    problem: str | None = None
    size: tuple[int, int] = (0, 0)
    orientation: int = 1
    digest: bytes = b""


@dataclass(frozen=True)
class AuditedSet(ScannedSet):
    """A data set and all that was seen of it: an entry an image, in a few arrays however many there are.

    sizes: N x 2, (height, width) in pixels, 0 where the image is broken.
    orientations: N, EXIF's. digests: N, 16 bytes each.
    broken: by index, why the image cannot be read.
    """

    sizes: npt.NDArray[np.int32]
    orientations: npt.NDArray[np.uint8]
    digests: npt.NDArray[np.bytes_]
    broken: Mapping[int, str]


def inspect_set(dataset: SegmentationDataset, role: Role) -> AuditedSet:
    """Decodes every image, and every mask that the label scan does not know yet, on all cores."""
    number = len(dataset)
    labels = scan_set(dataset, role)
    sizes, orientations = np.zeros((number, 2), np.int32), np.ones(number, np.uint8)
    digests = np.zeros(number, "S16")
    broken: dict[int, str] = {}
    loader = DataLoader(
        _Inspections(dataset),
        batch_size=BATCH,
        num_workers=min(available_cores(), math.ceil(number / BATCH)),
        collate_fn=list,
        worker_init_fn=start_worker,
    )
    with progress_bar(number, f"looking at {dataset.name}", "image", leave=False) as bar:
        for index, inspection in enumerate(chain.from_iterable(loader)):
            sizes[index], orientations[index] = inspection.size, inspection.orientation
            digests[index] = inspection.digest
            if inspection.problem is not None:
                broken[index] = inspection.problem
            bar.update()
    return AuditedSet(**vars(labels), sizes=sizes, orientations=orientations, digests=digests, broken=broken)


class _Inspections(Dataset[Inspection]):
    """Picklable, so that processes may be spawned."""

    def __init__(self, dataset: SegmentationDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Inspection:
        path = self.dataset.images[index]
        try:
            image = read_image(path)
            header = read_header(path)
            deep = deep_pixels(path) if header.is_deep else None
        except UserError as error:
            return Inspection(problem=str(error))
        digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
        digest.update(np.ascontiguousarray(image if deep is None else deep).data)  # which in 8 bits may all be black
        return Inspection(None, image.shape[:2], header.orientation, digest.digest())
