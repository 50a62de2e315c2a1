"""Reads a data set's whole images by worker processes; everything is picklable, so they may be spawned."""

import signal
from collections.abc import Sequence
from typing import Annotated, Literal

import cv2
import torch
from pydantic import Field
from torch.utils.data import DataLoader, Dataset

from segapp.base.devices import available_cores
from segapp.base.distributed import local_world_size
from segapp.base.errors import STOP_SIGNALS, UserError
from segapp.data.dataset import ImageDataset, Sample

Workers = Literal["auto"] | Annotated[int, Field(ge=0, le=256)]
"""Loading processes; auto: one a core but at most 8, and none on fewer than 3 cores, which training itself needs."""


class WholeImages(Dataset[Sample | UserError]):
    """A data set's samples as they are; one that cannot be read is the error that says so."""

    def __init__(self, dataset: ImageDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample | UserError:
        try:
            return self.dataset[index]
        except UserError as error:
            return error


def whole_images(
    dataset: ImageDataset, indices: Sequence[int], *, batch_size: int, workers: Workers
) -> DataLoader[Sample | UserError]:
    """Lists of up to `batch_size` samples or errors: the images of these indices, in their order."""
    return DataLoader(
        WholeImages(dataset),
        batch_size=batch_size,
        sampler=indices,
        num_workers=worker_count(workers),
        collate_fn=list,
        worker_init_fn=start_worker,
        generator=torch.Generator(),  # the default one is the network's: a resumed run must find it unmoved
    )


def worker_count(workers: Workers) -> int:
    """How many loading processes `workers` means here."""
    if workers != "auto":
        return workers
    cores = available_cores() // local_world_size()
    return 0 if cores < 3 else min(cores, 8)


def start_worker(worker: int) -> None:
    """What each loading process does first.

    The main process, which loads where there are no workers, keeps OpenCV's threads: nothing else runs meanwhile.
    """
    cv2.setNumThreads(0)  # the workers are the parallelism
    for number in STOP_SIGNALS:  # sent to all of a job; the main process ends the workers
        signal.signal(number, signal.SIG_IGN)
