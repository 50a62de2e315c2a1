"""Keeps what an evaluation has counted in files, from which one that was broken off goes on."""

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segapp.base.config import Config, save_config
from segapp.base.errors import UserError
from segapp.base.files import atomic_write
from segapp.data.checks.scan import masks_of
from segapp.data.dataset import SegmentationDataset
from segapp.evaluation.boundary import BoundaryCounts
from segapp.evaluation.calibration import Reliability
from segapp.evaluation.components import ComponentCounts
from segapp.evaluation.config import EvalToolConfig
from segapp.evaluation.details import DetailCounts
from segapp.evaluation.state import EvaluationState
from segapp.runs.layout import CONFIG, COUNTS, COUNTS_FILES


class EvaluationCheckpoint:
    """A folder of evaluation states, a file for each rank of each start.

    Args:
        folder: of the evaluation; its config is written as soon as anything is counted.
        key: names and values of what is scored: the weights, the images, the protocol.
        config: of the evaluation.
        files: of an image, by its index in the data set: what its counts depend on.
        name: of what is counted apart from other things in the folder.
    """

    def __init__(
        self,
        folder: Path,
        key: Mapping[str, str],
        config: Config,
        files: Callable[[int], Sequence[Path]],
        name: str = "",
    ) -> None:
        self.folder = folder
        self.counts = folder / COUNTS / name
        self.key = dict(key)
        self.config = config
        self.files = files
        self._fingerprints: dict[int, str] = {}

    def read(self) -> list[EvaluationState] | None:
        """Of each labeller the sum of all files; None without one. What could not be scored is to be tried again.

        Raises:
            UserError: a file is damaged, or of other weights, images or another protocol; an image has changed since.
        """
        sums: list[EvaluationState] | None = None
        for path in sorted(self.counts.glob(COUNTS_FILES)):
            try:
                states, key, fingerprints = _read(path)
                sums = states if sums is None else [each + more for each, more in zip(sums, states, strict=True)]
            except (OSError, EOFError, ValueError, KeyError, TypeError, zipfile.BadZipFile, zlib.error) as error:
                raise UserError(f"{path}: damaged ({error}); remove it, and its images are scored again") from None
            for name, value in self.key.items():
                if key.get(name) != value:
                    other = f"{name} there: {key.get(name)}; here: {value}"
                    raise UserError(f"resume={self.folder}: {other}; name another output folder")
            for index, fingerprint in zip(states[0].indices.tolist(), fingerprints, strict=True):
                if self._fingerprint(index) != fingerprint:
                    changed = " or ".join(map(str, self.files(index)))
                    raise UserError(
                        f"{changed} has changed since it was scored in {self.folder}; name another output folder"
                    )
        if sums is not None and len(np.unique(sums[0].indices)) < len(sums[0].indices):
            raise UserError(f"{self.counts}: images were counted twice, by two that ran at once; name another folder")
        return sums

    def write(self, states: Sequence[EvaluationState], start: int, rank: int) -> None:
        """In the place of what this rank has written since the start, which was after `start` images."""
        if not any(len(state.indices) for state in states):
            return
        if not self._fingerprints:  # the first time
            self.counts.mkdir(parents=True, exist_ok=True)
            save_config(self.folder / CONFIG, self.config)
        indices = states[0].indices.tolist()
        self._fingerprints |= {index: self._fingerprint(index) for index in indices if index not in self._fingerprints}
        arrays: dict[str, Any] = {
            "key": json.dumps(self.key),
            "labellers": len(states),
            "states": np.array([self._fingerprints[index] for index in indices]),
        }
        for labeller, state in enumerate(states):
            arrays |= {f"{labeller}.{name}": values for name, values in _arrays(state).items()}
        with atomic_write(self.counts / f"{start:07d}-{rank}.npz") as temporary:
            np.savez_compressed(temporary, **arrays)

    def _fingerprint(self, index: int) -> str:
        """Sizes and times of an image's files."""
        stats = [path.stat() for path in self.files(index) if path.is_file()]
        return " ".join(f"{stat.st_size} {int(stat.st_mtime)}" for stat in stats)


def open_checkpoint(
    folder: Path, config: EvalToolConfig, dataset: SegmentationDataset, scored: Mapping[str, str], *, name: str = ""
) -> EvaluationCheckpoint:
    """The checkpoint of an evaluation of a data set.

    Args:
        scored: names and values of what is scored beside the images.
        name: of a part of the evaluation.
    """
    ids = hashlib.sha256(os.fsencode("\n".join(dataset.ids))).hexdigest()

    def files(index: int) -> list[Path]:
        own = [] if config.predictions is None else [config.predictions / f"{dataset.ids[index]}.png"]
        return [dataset.images[index], masks_of(dataset)[index], *own]

    key = {**scored, "images": f"{len(dataset)} of {dataset.name}, list {ids[:16]}"}
    return EvaluationCheckpoint(folder, key, config, files, name)


PARTS = {"boundary": BoundaryCounts, "components": ComponentCounts, "reliability": Reliability}
"""Classes of nothing but arrays."""


def _arrays(state: EvaluationState) -> dict[str, npt.NDArray[Any]]:
    parts: dict[str, object] = {"reliability": state.reliability}
    if state.counts is not None:
        parts |= {"boundary": state.counts.boundary, "components": state.counts.components}
    return {"places": state.indices, "areas": state.areas, "matrix": state.matrix} | {
        f"{part}.{each.name}": getattr(value, each.name)
        for part, value in parts.items()
        if value is not None
        for each in fields(PARTS[part])
    }


def _read(path: Path) -> tuple[list[EvaluationState], dict[str, str], list[str]]:
    """The states, the key, and the fingerprint of each image that was scored.

    Raises:
    OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile, zlib.error: not written by
        `EvaluationCheckpoint.write`.
    """
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file.items())

    def part(labeller: int, name: str) -> Any:
        begin = f"{labeller}.{name}."
        values = {key.removeprefix(begin): array for key, array in arrays.items() if key.startswith(begin)}
        return PARTS[name](**values) if values else None

    def state(labeller: int) -> EvaluationState:
        indices, areas, matrix = (arrays[f"{labeller}.{name}"] for name in ("places", "areas", "matrix"))
        boundary, components = part(labeller, "boundary"), part(labeller, "components")
        counts = None if boundary is None else DetailCounts(boundary, components)
        return EvaluationState(indices, areas, matrix, {}, counts, part(labeller, "reliability"))

    key = json.loads(str(arrays["key"]))
    if not isinstance(key, dict):
        raise TypeError("no key")
    return [state(labeller) for labeller in range(int(arrays["labellers"]))], key, arrays["states"].tolist()
