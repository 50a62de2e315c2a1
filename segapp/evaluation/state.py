"""Counts a data set's images: shared among processes, and kept in files from which a broken evaluation goes on."""

import json
import logging
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, fields, replace
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segapp.base.config import Config, save_config
from segapp.base.devices import to_device
from segapp.base.distributed import Processes
from segapp.base.errors import UserError
from segapp.base.files import atomic_write
from segapp.base.logs import progress_bar
from segapp.data.dataset import Sample, SegmentationDataset
from segapp.data.loading.loader import Workers, whole_images
from segapp.evaluation.bootstrap import Areas
from segapp.evaluation.boundary import BoundaryCounts
from segapp.evaluation.calibration import Reliability, ReliabilityHistogram
from segapp.evaluation.components import ComponentCounts
from segapp.evaluation.confusion import ConfusionMatrix
from segapp.evaluation.details import Counter, Counts
from segapp.inference.prediction import Prediction
from segapp.runs.layout import CONFIG, COUNTS

log = logging.getLogger(__name__)

T = TypeVar("T")

Labeller = Callable[[Sequence[Sample]], Sequence[Prediction | UserError]]
"""Samples to their labels, or to what is wrong with one."""
Labellers = Callable[[Sequence[Sample]], Sequence[Sequence[Prediction | UserError]]]
"""Samples to what each of several labellers gives."""

KEEP_EVERY = 10.0
"""Seconds of counting between writes of what was counted; more where writes would take over KEEP_SHARE of the time."""
KEEP_SHARE = 0.05


@dataclass(frozen=True)
class EvaluationState:
    """What was counted of N images of a data set; the sum of its parts' tallies is the whole's, to the bit.

    Attributes:
        places: N, in the data set.
        areas: N x 3 x K pixels, right, true and predicted.
        matrix: K x K counts: row = truth, column = prediction.
        problems: what is wrong with those that could not be scored, by place.
        counts: None if nothing but areas was asked for, or N is 0.
        reliability: None if the labels come without confidences, too.
    """

    places: npt.NDArray[np.int64]
    areas: Areas
    matrix: npt.NDArray[np.int64]
    problems: dict[int, str]
    counts: Counts | None = None
    reliability: Reliability | None = None

    def __add__(self, other: "EvaluationState") -> "EvaluationState":
        return EvaluationState(
            np.concatenate([self.places, other.places]),
            np.concatenate([self.areas, other.areas]),
            self.matrix + other.matrix,
            self.problems | other.problems,
            _sum([self.counts, other.counts]),
            _sum([self.reliability, other.reliability]),
        )

    def in_order(self) -> "EvaluationState":
        """By place."""
        order, problems = np.argsort(self.places), dict(sorted(self.problems.items()))
        return replace(self, places=self.places[order], areas=self.areas[order], problems=problems)


def count(
    dataset: SegmentationDataset,
    label: Labellers,
    *,
    labellers: int,
    batch_size: int,
    trimap_widths: Sequence[int] | None,
    workers: Workers,
    device: torch.device,
    processes: Processes,
    kept: "EvaluationCheckpoint | None" = None,
    what: str,
) -> list[EvaluationState]:
    """The whole set's tally of each labeller. Nothing is kept of an image but its areas.

    Args:
        label: gives labels on `device`.
        trimap_widths: None: areas alone are counted.
        processes: share the images, each of which is scored once; all get the whole result.
        kept: what was counted before, and is not counted again.
        what: beside the progress bar.

    Raises:
        UserError: what was kept is damaged or of something else.
    """
    num_classes = len(dataset.classes)
    before = kept.read() if kept is not None and processes.main else None
    scored = processes.from_main(np.empty(0, np.int64) if before is None else before[0].places)
    if len(scored):
        log.info("going on after %d of %d images", len(scored), len(dataset))
    indices = np.setdiff1d(np.arange(len(dataset)), scored)[processes.rank :: processes.size].tolist()
    places = iter(indices)
    with ExitStack() as stack:
        tallies = [_Accumulator(num_classes, trimap_widths, device, stack) for _ in range(labellers)]
        done = len(scored) // processes.size
        progress = stack.enter_context(progress_bar(done + len(indices), what, "image", done=done, leave=False))
        written, took = time.monotonic(), 0.0
        for items in whole_images(dataset, indices, batch_size=batch_size, workers=workers):
            samples = []
            for item in items:
                place = next(places)
                if isinstance(item, UserError):
                    for tally in tallies:
                        tally.problems[place] = str(item)
                else:
                    samples.append((place, item))
            found = label([sample for _, sample in samples]) if samples else []
            for tally, predictions in zip(tallies, found, strict=False):
                for (place, sample), prediction in zip(samples, predictions, strict=True):
                    tally.add(place, sample, prediction)
            progress.update(len(items))
            started = time.monotonic()
            if kept is not None and started - written > max(KEEP_EVERY, took / KEEP_SHARE):
                kept.write([tally.compute() for tally in tallies], len(scored), processes.rank)
                written = time.monotonic()
                took = written - started
        own = [tally.compute() for tally in tallies]
    if kept is not None and indices:
        kept.write(own, len(scored), processes.rank)
    if before is not None:
        own = [each + then for each, then in zip(own, before, strict=True)]
    shares = processes.gather(own)
    return [reduce(add, parts).in_order() for parts in zip(*shares, strict=True)]


class EvaluationCheckpoint:
    """A folder of tallies, a file for each process of each start.

    Args:
        folder: of the evaluation; its config.yaml is written as soon as anything is counted.
        key: names and values of what is scored: the weights, the images, the protocol.
        config: of the evaluation.
        files: of an image, by its place in the data set: what its counts depend on.
        name: of what is counted apart from other things in the folder.
    """

    def __init__(
        self,
        folder: Path,
        key: Mapping[str, str],
        config: Config,
        files: Callable[[int], Sequence[Path]],
        *,
        name: str = "",
    ) -> None:
        self.folder = folder
        self.counts = folder / COUNTS / name
        self.key = dict(key)
        self.config = config
        self.files = files
        self._states: dict[int, str] = {}

    def read(self) -> list[EvaluationState] | None:
        """The sums of all files; None without one. What could not be scored is to be tried again.

        Raises:
            UserError: a file is damaged, or of other weights, images or another protocol; an image has changed since.
        """
        sums: list[EvaluationState] | None = None
        for path in sorted(self.counts.glob("[0-9]*-[0-9]*.npz")):
            try:
                tallies, key, states = _read(path)
                sums = tallies if sums is None else [each + more for each, more in zip(sums, tallies, strict=True)]
            except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
                raise UserError(f"{path}: damaged ({error}); remove it, and its images are scored again") from None
            for name, value in self.key.items():
                if key.get(name) != value:
                    other = f"{name} there: {key.get(name)}; here: {value}"
                    raise UserError(f"resume={self.folder}: {other}; name another output folder")
            for place, state in zip(tallies[0].places.tolist(), states, strict=True):
                if self._state(place) != state:
                    what = " or ".join(map(str, self.files(place)))
                    raise UserError(
                        f"{what} has changed since it was scored in {self.folder}; name another output folder"
                    )
        if sums is not None and len(np.unique(sums[0].places)) < len(sums[0].places):
            raise UserError(f"{self.counts}: images were counted twice, by two that ran at once; name another folder")
        return sums

    def write(self, tallies: Sequence[EvaluationState], start: int, rank: int) -> None:
        """In the place of what this process has written since the start, which was after `start` images."""
        if not any(len(tally.places) for tally in tallies):
            return
        if not self._states:  # the first time
            self.counts.mkdir(parents=True, exist_ok=True)
            save_config(self.folder / CONFIG, self.config)
        places = tallies[0].places.tolist()
        self._states |= {place: self._state(place) for place in places if place not in self._states}
        states = [self._states[place] for place in places]
        arrays: dict[str, Any] = {"key": json.dumps(self.key), "labellers": len(tallies), "states": np.array(states)}
        for at, tally in enumerate(tallies):
            arrays |= {f"{at}.{name}": values for name, values in _arrays(tally).items()}
        with atomic_write(self.counts / f"{start:07d}-{rank}.npz") as temporary:
            np.savez_compressed(temporary, **arrays)

    def _state(self, place: int) -> str:
        """Sizes and times of an image's files."""
        states = [path.stat() for path in self.files(place) if path.is_file()]
        return " ".join(f"{state.st_size} {int(state.st_mtime)}" for state in states)


class _Accumulator:
    """Adds images up, on the device but for what threads of the CPU count."""

    def __init__(
        self, num_classes: int, trimap_widths: Sequence[int] | None, device: torch.device, stack: ExitStack
    ) -> None:
        self.problems: dict[int, str] = {}
        self._device = device
        self._matrix = ConfusionMatrix(num_classes, device)
        self._reliability = ReliabilityHistogram(num_classes, device=device)
        self._counter = None if trimap_widths is None else stack.enter_context(Counter(num_classes, trimap_widths))
        self._confident = False
        self._places: list[int] = []
        self._areas: list[Tensor] = []

    def add(self, place: int, sample: Sample, prediction: Prediction | UserError) -> None:
        if isinstance(prediction, UserError):
            self.problems[place] = str(prediction)
            return
        assert sample.label is not None  # the data set has masks
        truth = to_device(sample.label, self._device)
        self._areas.append(areas(self._matrix.update(truth, prediction.labels)))
        self._places.append(place)
        if prediction.confidence is not None:
            self._confident = True
            self._reliability.update(truth, prediction.labels, prediction.confidence)
        if self._counter is not None:
            self._counter.add(sample.label, prediction.labels)

    def compute(self) -> EvaluationState:
        """Waits for the device and the threads."""
        matrix = self._matrix.compute()
        return EvaluationState(
            np.array(self._places, np.int64),
            torch.stack(self._areas).cpu().numpy() if self._areas else np.empty((0, 3, len(matrix)), np.int64),
            matrix,
            dict(self.problems),
            None if self._counter is None else self._counter.compute(),
            self._reliability.compute() if self._confident else None,
        )


def areas(counts: Tensor) -> Tensor:
    """Of an image's K x K counts 3 x K pixels: right, true and predicted."""
    return torch.stack([counts.diagonal(), counts.sum(1), counts.sum(0)])


PARTS = {"boundary": BoundaryCounts, "components": ComponentCounts, "reliability": Reliability}
"""Classes of nothing but arrays."""


def _arrays(tally: EvaluationState) -> dict[str, npt.NDArray[Any]]:
    parts: dict[str, object] = {"reliability": tally.reliability}
    if tally.counts is not None:
        parts |= {"boundary": tally.counts.boundary, "components": tally.counts.components}
    return {"places": tally.places, "areas": tally.areas, "matrix": tally.matrix} | {
        f"{part}.{each.name}": getattr(value, each.name)
        for part, value in parts.items()
        if value is not None
        for each in fields(PARTS[part])
    }


def _read(path: Path) -> tuple[list[EvaluationState], dict[str, str], list[str]]:
    """The tallies, the key, and the state of each image that was scored.

    Raises:
    OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile, zlib.error: not written by
        `EvaluationCheckpoint.write`.
    """
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file.items())

    def part(at: int, name: str) -> Any:
        begin = f"{at}.{name}."
        values = {key.removeprefix(begin): array for key, array in arrays.items() if key.startswith(begin)}
        return PARTS[name](**values) if values else None

    def tally(at: int) -> EvaluationState:
        places, areas, matrix = (arrays[f"{at}.{name}"] for name in ("places", "areas", "matrix"))
        boundary, components = part(at, "boundary"), part(at, "components")
        counts = None if boundary is None else Counts(boundary, components)
        return EvaluationState(places, areas, matrix, {}, counts, part(at, "reliability"))

    key = json.loads(str(arrays["key"]))
    if not isinstance(key, dict):
        raise TypeError("no key")
    return [tally(at) for at in range(int(arrays["labellers"]))], key, arrays["states"].tolist()


def _sum(parts: Iterable[T | None]) -> T | None:
    there: list[Any] = [each for each in parts if each is not None]
    return reduce(add, there) if there else None
