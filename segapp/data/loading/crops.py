"""The endless stream of training crops; everything is picklable, so workers may be spawned."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from segapp.base.errors import UserError
from segapp.data.dataset import ImageDataset
from segapp.data.loading.loader import Workers, start_worker, worker_count
from segapp.data.loading.memory import InMemory
from segapp.data.loading.sampling import ClassBalanced, Uniform
from segapp.data.loading.transforms import TransformConfig, build_transform

log = logging.getLogger(__name__)

Array = npt.NDArray[np.uint8]

PREFETCH = 2
"""Items that each loading process makes ahead."""


class TrainingStream(Dataset[tuple[Tensor, Tensor] | UserError]):
    """Crop n is a function of n and the seed alone.

    So the order and the random numbers do not depend on the workers, and a run resumes at any n.

    Args:
        order: which image comes where in an epoch; `Uniform` if None.
        labels: class indices of whole images, N int64; None: each has its own label, of its pixels.
    """

    def __init__(
        self,
        dataset: ImageDataset | InMemory,
        transform: TransformConfig,
        seed: int,
        order: Uniform | ClassBalanced | None = None,
        labels: npt.NDArray[np.int64] | None = None,
    ) -> None:
        self.dataset = dataset
        self.crop = transform.crop
        self.transform = build_transform(transform.train)
        self.seed = seed
        self.order = order or Uniform(len(dataset), seed)
        self.labels = labels
        self._epoch = -1
        self._order = np.empty(0, np.int64)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor] | UserError:
        """uint8 image C x C x 3 and label, of pixels C x C, of the image 1; an error is returned, for the main process
        to raise."""
        images, labels = self.empty(1)
        return self.fill(position, images, labels) or (images[0], labels[0])

    def empty(self, *number: int, pin_memory: bool = False) -> tuple[Tensor, Tensor]:
        """Tensors for `number` crops: images ... x C x C x 3, and labels ... x C x C, all uint8; or int64 labels of
        whole images, ... x 1."""
        images = torch.empty((*number, self.crop, self.crop, 3), dtype=torch.uint8, pin_memory=pin_memory)
        if self.labels is not None:
            return images, torch.empty((*number, 1), dtype=torch.int64, pin_memory=pin_memory)
        return images, torch.empty((*number, self.crop, self.crop), dtype=torch.uint8, pin_memory=pin_memory)

    def fill(self, start: int, images: Tensor, labels: Tensor) -> UserError | None:
        """Writes crops `start` and following over what `empty(N)` gives; an error is returned."""
        positions = range(start, start + len(images))
        # All of them beforehand: between two images, which take the caches, each would take several times as long.
        randoms = [np.random.default_rng([self.seed, position]) for position in positions]
        pairs = [(random, Random(int(random.integers(1 << 63)))) for random in randoms]
        try:
            for position, pair, image, label in zip(positions, pairs, images.numpy(), labels.numpy(), strict=True):
                self.transform.set_random_state(*pair)
                self._write(position, image, label)
        except UserError as error:
            return error
        return None

    def _write(self, position: int, image: Array, label: Array) -> None:
        epoch, offset = divmod(position, len(self.dataset))
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = self.order(epoch)
        index = int(self._order[offset])
        sample = self.dataset[index]
        try:
            if self.labels is None:
                crop = self.transform(image=sample.image, mask=sample.label, into=(image, label))
            else:
                crop = self.transform(image=sample.image)
        except (
            Exception
        ) as error:  # a crop larger than the image, for one: the steps and their arguments are the user's
            log.debug("a transform failed", exc_info=True)
            raise UserError(f"transform.train fails on {self.dataset.images[index]}: {error}") from None
        cropped = crop["image"]
        if cropped.shape != image.shape or cropped.dtype != np.uint8:
            raise UserError(
                f"transform.train gives {cropped.dtype} images of {cropped.shape[1]} x {cropped.shape[0]}; "
                f"uint8 of {self.crop} x {self.crop} (transform.crop) are needed: change the one or the other"
            )
        if cropped is not image:
            image[:] = cropped
        if self.labels is not None:
            label[:] = self.labels[index]
        elif crop["mask"] is not label:
            label[:] = crop["mask"]


def training_batches(
    stream: TrainingStream,
    *,
    start: int,
    stop: int,
    batch_size: int,
    workers: Workers,
    pin_memory: bool,
    accumulation_steps: int = 1,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches `start` to `stop`, each as its micro-batches, as `TrainingStream.empty` says.

    Args:
        batch_size: of all processes and micro-batches together.
        accumulation_steps: micro-batches that a process makes of each batch, one after the other.
        rank, world_size: which of how many processes, each of which gives an equal part of each batch.

    Raises:
        UserError: an image or mask cannot be read; too little memory that processes can share.
    """
    size = batch_size // (accumulation_steps * world_size)
    firsts = _FirstCrops(batch_size, size, accumulation_steps, rank)
    items = range(start * accumulation_steps, stop * accumulation_steps)
    processes = worker_count(workers)
    if not processes:
        for item in items:
            images, labels = stream.empty(size, pin_memory=pin_memory)
            if error := stream.fill(firsts[item], images, labels):
                raise error
            yield images, labels
        return
    slots = _Slots(stream, firsts, processes * PREFETCH + 1)
    loader = DataLoader(
        slots,
        batch_size=None,
        sampler=items,
        num_workers=processes,
        prefetch_factor=PREFETCH,
        worker_init_fn=start_worker,
        generator=torch.Generator(),  # the default one is the network's: a resumed run must find it unmoved
    )
    for slot in loader:
        if isinstance(slot, UserError):
            raise slot
        images, labels = slots.images[slot], slots.labels[slot]
        yield (images.pin_memory(), labels.pin_memory()) if pin_memory else (images.clone(), labels.clone())


@dataclass(frozen=True)
class _FirstCrops:
    """The first crop of each item: items are the micro-batches of one process, batch after batch.

    `size`: crops of a micro-batch. `accumulation_steps`: micro-batches that the process makes of each batch.
    """

    batch_size: int
    size: int
    accumulation_steps: int
    rank: int

    def __getitem__(self, item: int) -> int:
        batch, step = divmod(item, self.accumulation_steps)
        return batch * self.batch_size + (self.rank * self.accumulation_steps + step) * self.size


class _Slots(Dataset[int | UserError]):
    """Items in shared memory that is written to again and again: new pages would cost as much as the crops.

    Item n is the slot in which it now is. While the main process copies it, the loader has asked for none beyond the
    next processes * PREFETCH ones, so with one slot more nobody writes to it.
    """

    def __init__(self, stream: TrainingStream, firsts: _FirstCrops, number: int) -> None:
        self.stream = stream
        self.firsts = firsts
        self.images, self.labels = stream.empty(number, firsts.size)
        try:
            self.images.share_memory_()  # type: ignore[no-untyped-call]
            self.labels.share_memory_()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            size = (self.images.nbytes + self.labels.nbytes) / 1e9
            raise UserError(
                f"workers={number // PREFETCH} need {size:.1f} GB of memory that processes can share ({error}); "
                "take fewer workers, or make /dev/shm larger (docker run --shm-size=8g)"
            ) from None

    def __getitem__(self, item: int) -> int | UserError:
        slot = item % len(self.images)
        return self.stream.fill(self.firsts[item], self.images[slot], self.labels[slot]) or slot
