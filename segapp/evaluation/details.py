"""What an evaluation counts of each image beside the confusion matrix, on threads while the network goes on."""

from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt
from torch import Tensor

from segapp.base.devices import available_cores
from segapp.evaluation.additive import Additive
from segapp.evaluation.bootstrap import Interval, miou_interval
from segapp.evaluation.boundary import BoundaryCounts, count_boundaries
from segapp.evaluation.calibration import Reliability
from segapp.evaluation.components import ComponentCounts, count_components
from segapp.evaluation.confusion import Areas

THREADS = 4
WAITING = 64
"""Images that may wait to be counted, or be counted; then the network waits."""
WAITING_PIXELS = 1 << 25
"""Of all of these together, unless a single one has more. A thread needs some 6 bytes a pixel beside them."""
_UNIT = 1 << 32
"""F-scores are summed in steps of 2^-32: those of up to 2^20 images to the same bits in any order."""


@dataclass(frozen=True)
class DetailCounts(Additive):
    """Of one image; the sum of several images' is that of the set."""

    boundary: BoundaryCounts
    components: ComponentCounts


@dataclass(frozen=True)
class Details:
    """What a whole set's counts come to, beside the confusion matrix.

    Attributes:
        ids: of the N scored images.
        areas: N x 3 x K pixels, right, true and predicted.
        widths: of the trimap, in pixels.
        counts: over all images.
        reliability: None of saved masks.
    """

    ids: tuple[str, ...]
    areas: Areas
    widths: tuple[int, ...]
    counts: DetailCounts
    reliability: Reliability | None = None

    @cached_property
    def interval(self) -> Interval:
        """Of the mIoU, by drawing the images anew."""
        return miou_interval(self.areas)


class DetailsAccumulator:
    """Adds images up on a few threads; leaving the context ends them."""

    def __init__(self, num_classes: int, widths: Sequence[int]) -> None:
        self.num_classes = num_classes
        self.widths = widths
        self.total: DetailCounts | None = None
        threads = min(THREADS, available_cores())
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="counting")
        self._waiting: deque[tuple[int, Future[DetailCounts]]] = deque()
        self._pixels = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def add(self, truth: npt.NDArray[np.uint8], labels: Tensor) -> None:
        """An image, its labels on any device."""
        self._waiting.append((truth.size, self._pool.submit(self._count, truth, labels)))
        self._pixels += truth.size
        while len(self._waiting) > WAITING or (len(self._waiting) > 1 and self._pixels > WAITING_PIXELS):
            self._take()

    def compute(self) -> DetailCounts | None:
        """Of all images that were added; None without one."""
        while self._waiting:
            self._take()
        return self.total

    def _take(self) -> None:
        pixels, future = self._waiting.popleft()
        self._pixels -= pixels
        counts = future.result()
        self.total = counts if self.total is None else self.total + counts

    def _count(self, truth: npt.NDArray[np.uint8], labels: Tensor) -> DetailCounts:
        prediction = labels.cpu().numpy()  # the thread waits for the device, not the network's
        boundary = count_boundaries(truth, prediction, self.num_classes, widths=self.widths)
        boundary = replace(boundary, f_scores=np.round(boundary.f_scores * _UNIT) / _UNIT)
        return DetailCounts(boundary, count_components(truth, prediction, self.num_classes))
