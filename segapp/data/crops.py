"""The endless stream of training crops; everything is picklable, so workers may be spawned."""

import logging
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from segapp.data.dataset import SegmentationDataset
from segapp.data.loader import Workers, start_worker, worker_count
from segapp.data.memory import InMemory
from segapp.data.sampling import ClassBalanced, Uniform
from segapp.data.transforms import TransformConfig, build_transform
from segapp.errors import UserError

log = logging.getLogger(__name__)


class TrainingStream(Dataset[tuple[Tensor, Tensor] | UserError]):
    """Crop n is a function of n and the seed alone.

    So the order and the random numbers do not depend on the workers, and a run resumes at any n.

    Args:
        order: which image comes where in an epoch; `Uniform` if None.
    """

    def __init__(
        self,
        dataset: SegmentationDataset | InMemory,
        transform: TransformConfig,
        seed: int,
        order: Uniform | ClassBalanced | None = None,
    ) -> None:
        self.dataset = dataset
        self.crop = transform.crop
        self.transform = build_transform(transform.train)
        self.seed = seed
        self.order = order or Uniform(len(dataset), seed)
        self._epoch = -1
        self._order = np.empty(0, np.int64)

    def __getitem__(self, position: int) -> tuple[Tensor, Tensor] | UserError:
        """uint8 image C x C x 3 and label C x C; an error is returned, for the main process to raise."""
        epoch, offset = divmod(position, len(self.dataset))
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = self.order(epoch)
        try:
            sample = self.dataset[int(self._order[offset])]
        except UserError as error:
            return error
        self.transform.set_random_seed(int(np.random.SeedSequence([self.seed, position]).generate_state(1)[0]))
        try:
            crop = self.transform(image=sample.image, mask=sample.label)
        except (
            Exception
        ) as error:  # a crop larger than the image, for one: the steps and their arguments are the user's
            log.debug("a transform failed", exc_info=True)
            return UserError(f"transform.train fails on {self.dataset.images[int(self._order[offset])]}: {error}")
        image, label = crop["image"], crop["mask"]
        if image.shape != (self.crop, self.crop, 3) or image.dtype != np.uint8:
            return UserError(
                f"transform.train gives {image.dtype} images of {image.shape[1]} x {image.shape[0]}; "
                f"uint8 of {self.crop} x {self.crop} (transform.crop) are needed: change the one or the other"
            )
        return _tensor(image), _tensor(label)


def _tensor(array: npt.NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))  # a step may have passed its input on


def training_batches(
    stream: TrainingStream,
    *,
    start: int,
    stop: int,
    batch_size: int,
    workers: Workers,
    pin_memory: bool,
    parts: int = 1,
    share: int = 0,
    shares: int = 1,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches `start` to `stop`: images N x C x C x 3 and labels N x C x C, uint8.

    Args:
        parts: each batch comes in so many, one after the other.
        share, shares: which of how many equal shares of each batch to give.

    Raises:
        UserError: an image or mask cannot be read.
    """
    loader = DataLoader(
        stream,
        batch_sampler=_positions(start, stop, batch_size, parts, share, shares),
        num_workers=worker_count(workers),
        collate_fn=_stack,
        pin_memory=pin_memory,
        worker_init_fn=start_worker,
        generator=torch.Generator(),  # the default one is the network's: a resumed run must find it unmoved
    )
    for batch in loader:
        if isinstance(batch, UserError):
            raise batch
        yield batch


def _positions(start: int, stop: int, batch_size: int, parts: int, share: int, shares: int) -> Iterator[list[int]]:
    size = batch_size // (parts * shares)
    for batch in range(start, stop):
        for part in range(share * parts, (share + 1) * parts):
            first = batch * batch_size + part * size
            yield list(range(first, first + size))


def _stack(crops: list[tuple[Tensor, Tensor] | UserError]) -> tuple[Tensor, Tensor] | UserError:
    for crop in crops:
        if isinstance(crop, UserError):
            return crop
    images, labels = default_collate(crops)  # in a worker it stacks straight into shared memory
    return images, labels
