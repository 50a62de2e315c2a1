"""Counts a data set's images, shared among ranks, and writes checkpoints to go on from where it is broken off."""

import logging
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import reduce
from operator import add

import numpy as np
import torch
from torch import Tensor

from segapp.base.devices import to_device
from segapp.base.distributed import Processes
from segapp.base.errors import UserError
from segapp.base.logs import progress_bar
from segapp.data.checks.scan import masks_of
from segapp.data.dataset import Sample, SegmentationDataset
from segapp.data.loading.loader import Workers, whole_images
from segapp.evaluation.calibration import ReliabilityHistogram
from segapp.evaluation.checkpoint import EvaluationCheckpoint
from segapp.evaluation.confusion import ConfusionMatrix, class_areas
from segapp.evaluation.details import DetailsAccumulator
from segapp.evaluation.labellers import JointLabeller
from segapp.evaluation.state import EvaluationState
from segapp.inference.prediction import Prediction

log = logging.getLogger(__name__)

WRITE_EVERY = 10.0
"""Seconds between writes of a checkpoint; more where they would take over WRITE_FRACTION of the time."""
WRITE_FRACTION = 0.05


def accumulate(
    dataset: SegmentationDataset,
    label: JointLabeller,
    *,
    labellers: int,
    batch_size: int,
    trimap_widths: Sequence[int] | None,
    workers: Workers,
    device: torch.device,
    processes: Processes,
    checkpoint: EvaluationCheckpoint | None = None,
    description: str,
) -> list[EvaluationState]:
    """The whole set's state of each labeller. Nothing is kept of an image but its areas.

    Args:
        label: gives labels on `device`.
        trimap_widths: None: areas alone are counted.
        processes: share the images, each of which is scored once; all get the whole result.
        checkpoint: what was counted before, and is not counted again.
        description: beside the progress bar.

    Raises:
        UserError: the data set has no labels; the checkpoint is damaged or of something else.
    """
    masks_of(dataset, "its images have no labels to score against")
    num_classes = len(dataset.classes)
    before = checkpoint.read() if checkpoint is not None and processes.main else None
    scored = processes.from_main(np.empty(0, np.int64) if before is None else before[0].indices)
    if len(scored):
        log.info("going on after %d of %d images", len(scored), len(dataset))
    indices = np.setdiff1d(np.arange(len(dataset)), scored)[processes.rank :: processes.world_size].tolist()
    remaining = iter(indices)
    with ExitStack() as stack:
        accumulators = [_Accumulator(num_classes, trimap_widths, device, stack) for _ in range(labellers)]
        done = len(scored) // processes.world_size
        progress = stack.enter_context(progress_bar(done + len(indices), description, "image", done=done, leave=False))
        written, took = time.monotonic(), 0.0
        for items in whole_images(dataset, indices, batch_size=batch_size, workers=workers):
            samples = []
            for item in items:
                index = next(remaining)
                if isinstance(item, UserError):
                    for accumulator in accumulators:
                        accumulator.problems[index] = str(item)
                else:
                    samples.append((index, item))
            outputs = label([sample for _, sample in samples]) if samples else []
            for accumulator, predictions in zip(accumulators, outputs, strict=False):
                for (index, sample), prediction in zip(samples, predictions, strict=True):
                    accumulator.add(index, sample, prediction)
            progress.update(len(items))
            started = time.monotonic()
            if checkpoint is not None and started - written > max(WRITE_EVERY, took / WRITE_FRACTION):
                checkpoint.write([each.compute() for each in accumulators], len(scored), processes.rank)
                written = time.monotonic()
                took = written - started
        states = [each.compute() for each in accumulators]
    if checkpoint is not None and indices:
        checkpoint.write(states, len(scored), processes.rank)
    if before is not None:
        states = [each + earlier for each, earlier in zip(states, before, strict=True)]
    of_ranks = processes.gather(states)
    return [reduce(add, of_labeller).in_order() for of_labeller in zip(*of_ranks, strict=True)]


class _Accumulator:
    """Adds images up, on the device but for what threads of the CPU count."""

    def __init__(
        self, num_classes: int, trimap_widths: Sequence[int] | None, device: torch.device, stack: ExitStack
    ) -> None:
        self.problems: dict[int, str] = {}
        self._device = device
        self._matrix = ConfusionMatrix(num_classes, device)
        self._reliability = ReliabilityHistogram(num_classes, device=device)
        self._details = (
            None if trimap_widths is None else stack.enter_context(DetailsAccumulator(num_classes, trimap_widths))
        )
        self._confident = False
        self._indices: list[int] = []
        self._areas: list[Tensor] = []

    def add(self, index: int, sample: Sample, prediction: Prediction | UserError) -> None:
        if isinstance(prediction, UserError):
            self.problems[index] = str(prediction)
            return
        assert sample.label is not None  # the data set has masks
        truth = to_device(sample.label, self._device)
        self._areas.append(class_areas(self._matrix.update(truth, prediction.labels)))
        self._indices.append(index)
        if prediction.confidence is not None:
            self._confident = True
            self._reliability.update(truth, prediction.labels, prediction.confidence)
        if self._details is not None:
            self._details.add(sample.label, prediction.labels)

    def compute(self) -> EvaluationState:
        """Waits for the device and the threads."""
        matrix = self._matrix.compute()
        return EvaluationState(
            np.array(self._indices, np.int64),
            torch.stack(self._areas).cpu().numpy() if self._areas else np.empty((0, 3, len(matrix)), np.int64),
            matrix,
            dict(self.problems),
            None if self._details is None else self._details.compute(),
            self._reliability.compute() if self._confident else None,
        )
