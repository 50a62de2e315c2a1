"""Holds a data set's decoded samples in memory that worker processes share (data.cache=memory)."""

import logging
import mmap
from pathlib import Path

import numpy as np

from segapp.base.distributed import local_world_size
from segapp.base.errors import UserError
from segapp.base.images import image_size
from segapp.base.logs import progress_bar
from segapp.data.dataset import ImageDataset, Sample

log = logging.getLogger(__name__)


class InMemory:
    """Reads each sample of `dataset` once, and then gives it from memory, as read-only arrays.

    Processes forked later share the memory, and so what each of them has read; one that is spawned has its own.

    Raises:
        UserError: it would not fit into the memory that is free; an image cannot be read.
    """

    def __init__(self, dataset: ImageDataset) -> None:
        self.dataset = dataset
        self.images = dataset.images
        self._layout = np.zeros((len(dataset), 3), np.int64)  # height, width, where it begins
        with progress_bar(len(dataset), f"sizes of {dataset.name}", "image", leave=False) as progress:
            for index, path in enumerate(dataset.images):
                self._layout[index, :2] = image_size(path)
                progress.update()
        channels = 3 + (dataset.masks is not None)
        ends = np.cumsum(self._layout[:, :2].prod(1) * channels)
        self._layout[1:, 2] = ends[:-1]
        self._channels = channels
        self._total = int(ends[-1])
        free = _free_memory()
        if free is not None:
            free //= local_world_size()  # each process of a job holds its own
        if free is not None and self._total > 0.9 * free:
            raise UserError(
                f"data.cache=memory needs {self._total / 1e9:.1f} GB for {dataset.name}, and {free / 1e9:.1f} GB of "
                "memory are free; take data.cache=none"
            )
        log.info("%s: up to %.1f GB of memory for decoded images", dataset.name, self._total / 1e9)
        self._allocate()

    def _allocate(self) -> None:
        # Anonymous and shared: no file, and no limit of /dev/shm. A page takes memory once it is written to.
        self._samples = np.frombuffer(mmap.mmap(-1, max(1, self._total)), np.uint8)
        self._is_read = np.frombuffer(mmap.mmap(-1, len(self.dataset)), np.uint8)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Sample:
        """Raises:
        UserError: as the data set does.
        """
        height, width, start = self._layout[index].tolist()
        pixels = height * width
        values = self._samples[start : start + pixels * self._channels]
        image = values[: 3 * pixels].reshape(height, width, 3)
        label = values[3 * pixels :].reshape(height, width) if self._channels == 4 else None
        if not self._is_read[index]:
            sample = self.dataset[index]
            image[:] = sample.image
            if label is not None and sample.label is not None:
                label[:] = sample.label
            self._is_read[index] = 1  # two processes may both come here, and write the same
        image.flags.writeable = False
        if label is not None:
            label.flags.writeable = False
        return Sample(image, label, self.dataset.ids[index])

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name not in ("_samples", "_is_read")}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._allocate()


def _free_memory() -> int | None:
    """Bytes that can be taken without swapping; None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    values = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return values["MemAvailable"] * 1024 if "MemAvailable" in values else None
