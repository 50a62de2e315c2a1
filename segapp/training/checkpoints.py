"""What a stopped run continues from: one folder a checkpoint, written in the background, whole or not at all.

checkpoints/ITERATION/ holds weights.safetensors, averaged.safetensors where the run averages them, and state.pt.
Random numbers are a function of the seed and the iteration, and so need not be kept.
"""

import io
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segapp.base.errors import UserError
from segapp.base.files import scratch_folder
from segapp.runs.layout import AVERAGED, BEST, CHECKPOINTS, STATE, WEIGHTS, checkpoint_folders
from segapp.weights.checkpoint import CheckpointInfo, read_info, write_weights

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a run has come.

    `validated`: the weights as they are have been scored. `anew`: which of the network's parts began without weights,
    as in ("decoder", "logits").
    """

    iteration: int = 0
    validated: bool = False
    best_score: float | None = None
    anew: tuple[str, ...] = ()


def copied(value: Any) -> Any:
    """Tensors in dicts and lists as copies in main memory, which training no longer changes."""
    if isinstance(value, Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: copied(each) for key, each in value.items()}
    return [copied(each) for each in value] if isinstance(value, list) else value


class CheckpointWriter:
    """Writes while training goes on; one write at a time, in order.

    Args:
        folder: the run's.
        keep: so many of the last checkpoints stay.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder = folder
        self.keep = keep
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._writing: Future[None] | None = None

    def best(self, weights: Mapping[str, Tensor], info: CheckpointInfo) -> None:
        """Writes best.safetensors."""
        path, taken = self.folder / BEST, copied(weights)
        self._start(lambda: write_weights(path, taken, info.as_metadata()))

    def checkpoint(
        self,
        progress: Progress,
        weights: Mapping[str, Tensor],
        averaged: Mapping[str, Tensor] | None,
        info: CheckpointInfo,
        state: Mapping[str, Any],
    ) -> None:
        """Writes a checkpoint, and then removes those that are too many.

        Args:
            state: the optimizer's and the like, plain data and tensors.

        Raises:
            UserError: the last write failed.
        """
        weights, averaged, state = copied(weights), copied(averaged), copied(state)
        description = info.as_metadata()

        def write() -> None:
            place = self.folder / CHECKPOINTS / f"{progress.iteration:07d}"
            with scratch_folder(place.with_name(f".{place.name}")) as scratch:
                write_weights(scratch / WEIGHTS, weights, description)
                if averaged is not None:
                    write_weights(scratch / AVERAGED, averaged, description)
                _save(scratch / STATE, {"progress": asdict(progress), **state})
                if place.exists():  # saved before, and since then validated
                    place.rename(_aside(place))
                scratch.replace(place)
            shutil.rmtree(_aside(place), ignore_errors=True)
            _to_disk(place.parent)
            for old in checkpoint_folders(self.folder)[: -self.keep]:
                shutil.rmtree(old)

        self._start(write)

    def _start(self, write: Callable[[], None]) -> None:
        self.wait()
        self._writing = self._thread.submit(write)

    def check(self) -> None:
        """Raises:
        UserError: a write has failed.
        """
        if self._writing is not None and self._writing.done():
            self.wait()

    def settle(self) -> None:
        """Until all is written, or not: where another error is told already."""
        if self._writing is not None:
            futures.wait([self._writing])

    def wait(self) -> None:
        """Until all is written.

        Raises:
            UserError: a write has failed.
        """
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.result()
        except UserError as error:
            raise UserError(f"{error}; make room or mend the disk; {to_continue(self.folder)}") from None
        except OSError as error:
            raise UserError(
                f"{self.folder}: the checkpoint cannot be written ({error.strerror}); make room or mend the disk; "
                f"{to_continue(self.folder)}"
            ) from None


def to_continue(folder: Path) -> str:
    """How a run that ends with an error goes on."""
    kept = checkpoint_folders(folder)
    if not kept:
        return "no checkpoint was written yet"
    return f"resume={folder} continues after iteration {int(kept[-1].name)}"


def _save(path: Path, state: Mapping[str, Any]) -> None:
    packed = io.BytesIO()  # PyTorch's own writer does not say why it failed
    torch.save(dict(state), packed)
    with path.open("wb") as file:
        file.write(packed.getbuffer())
        file.flush()
        os.fsync(file.fileno())


def _to_disk(folder: Path) -> None:
    """A renamed entry survives a power cut."""
    if hasattr(os, "O_DIRECTORY"):
        handle = os.open(folder, os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _aside(place: Path) -> Path:
    return place.with_name(f".{place.name}-old")


BEST_OF_SEGAPP_1 = "best_miou"
"""What version 0.1 called `Progress.best_score`."""
Checkpoint = tuple[Path, Progress, dict[str, Any]]
"""Its folder, how far the run had come, and the optimizer's state and the like."""


def read_checkpoint(place: Path) -> Checkpoint:
    """Raises whatever a damaged file leads to."""
    for weights in place.glob("*.safetensors"):
        read_info(weights)
    state = torch.load(place / STATE, map_location="cpu", weights_only=True)
    kept = state.pop("progress")
    if BEST_OF_SEGAPP_1 in kept:
        kept["best_score"] = kept.pop(BEST_OF_SEGAPP_1)
    progress = Progress(**kept)
    if progress.iteration != int(place.name):
        raise ValueError("no count of iterations")
    return place, progress, state


def newest_checkpoint(folder: Path) -> Checkpoint | None:
    """A run's last sound checkpoint; None where it has none yet.

    Later ones, which are damaged, are named and removed, and so is what a killed process left half-written.

    Raises:
        UserError: there are some, and all are damaged.
    """
    _tidy(folder)
    found = checkpoint_folders(folder)
    damaged = []
    for place in reversed(found):
        try:
            checkpoint = read_checkpoint(place)
        except Exception as error:  # whatever unpickling makes of a damaged file
            reason = next(iter(str(error).splitlines()), type(error).__name__).split(". ")[0]
            log.warning("%s: damaged (%s)", place, reason)
            damaged.append(place)
            continue
        for each in damaged:
            shutil.rmtree(each)
        return checkpoint
    if found:
        raise UserError(f"{folder / CHECKPOINTS}: every checkpoint is damaged; start again in another folder")
    return None


def _tidy(folder: Path) -> None:
    for left in (folder / CHECKPOINTS).glob(".*"):
        place = left.with_name(left.name.removeprefix(".").removesuffix("-old"))
        if left == _aside(place) and not place.exists():  # killed between the two renamings
            left.rename(place)
        else:
            shutil.rmtree(left)
    for left in folder.glob(".*.safetensors"):
        left.unlink()
