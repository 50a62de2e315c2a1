"""From data sets to batches. Everything here is picklable: workers may be spawned."""

import os
from collections.abc import Iterator
from typing import Literal

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from segapp.data.dataset import Sample, SegmentationDataset
from segapp.data.transforms import TransformConfig, build_transform
from segapp.errors import UserError

Workers = Literal["auto"] | int
"""Loading processes; auto: one a core but at most 8, and none on fewer than 3 cores, which training itself needs."""


class TrainingStream(Dataset[tuple[Tensor, Tensor] | UserError]):
    """The endless stream of training crops: crop n is a function of n and the seed alone.

    So the order and the random numbers do not depend on the workers, and a run resumes at any n.
    """

    def __init__(self, dataset: SegmentationDataset, transform: TransformConfig, seed: int) -> None:
        self.dataset = dataset
        self.crop = transform.crop
        self.transform = build_transform(transform.train)
        self.seed = seed
        self._epoch = -1
        self._order = np.empty(0, np.int64)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor] | UserError:
        """uint8 image C x C x 3 and label C x C; an error is returned, for the main process to raise."""
        epoch, offset = divmod(position, len(self.dataset))
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = np.random.default_rng([self.seed, epoch]).permutation(len(self.dataset))
        try:
            sample = self.dataset[int(self._order[offset])]
        except UserError as error:
            return error
        self.transform.set_random_seed(int(np.random.SeedSequence([self.seed, position]).generate_state(1)[0]))
        crop = self.transform(image=sample.image, mask=sample.label)
        image, label = crop["image"], crop["mask"]
        if image.shape != (self.crop, self.crop, 3) or image.dtype != np.uint8:
            return UserError(
                f"transform.train gives {image.dtype} images of {image.shape[1]} x {image.shape[0]}; "
                f"uint8 of {self.crop} x {self.crop} (transform.crop) are needed"
            )
        return torch.from_numpy(np.ascontiguousarray(image)), torch.from_numpy(np.ascontiguousarray(label))


class WholeImages(Dataset[Sample | UserError]):
    """A data set's samples as they are; one that cannot be read is the error that says so."""

    def __init__(self, dataset: SegmentationDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample | UserError:
        try:
            return self.dataset[index]
        except UserError as error:
            return error


# Each loader has a generator of its own: the default one is the network's, and a resumed run must find it unmoved.


def training_batches(
    stream: TrainingStream, *, start: int, stop: int, batch_size: int, workers: Workers, pin_memory: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches `start` to `stop`: images N x C x C x 3 and labels N x C x C, uint8.

    Raises:
        UserError: an image or mask cannot be read.
    """
    loader = DataLoader(
        stream,
        batch_size=batch_size,
        sampler=range(start * batch_size, stop * batch_size),
        num_workers=worker_count(workers),
        collate_fn=_stack,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),
        drop_last=True,
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch


def whole_images(dataset: SegmentationDataset, *, batch_size: int, workers: Workers) -> DataLoader[Sample | UserError]:
    """Lists of up to `batch_size` samples or errors, in the data set's order."""
    return DataLoader(
        WholeImages(dataset),
        batch_size=batch_size,
        num_workers=worker_count(workers),
        collate_fn=list,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),
    )


def worker_count(workers: Workers) -> int:
    if workers != "auto":
        return workers
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if cores < 3 else min(cores, 8)


def _start_worker(worker: int) -> None:
    cv2.setNumThreads(0)  # the workers are the parallelism


def _stack(crops: list[tuple[Tensor, Tensor] | UserError]) -> tuple[Tensor, Tensor] | UserError:
    images, labels = [], []
    for crop in crops:
        if isinstance(crop, UserError):
            return crop
        images.append(crop[0])
        labels.append(crop[1])
    return torch.stack(images), torch.stack(labels)
