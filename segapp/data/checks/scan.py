"""The label scan: counts every mask's pixels by value before training starts, and caches the counts."""

import hashlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segapp.base.cache import cache_folder
from segapp.base.classes import IGNORE_INDEX
from segapp.base.errors import UserError, and_more
from segapp.base.files import atomic_write
from segapp.base.images import image_size
from segapp.base.logs import progress_bar
from segapp.data.dataset import SegmentationDataset, check_labels, check_size

log = logging.getLogger(__name__)


VERSION = 2
"""Of what is counted and how it is cached: a cache of another version is not looked at."""

BLOCK = 16
"""Masks that a thread takes at a time: a million single tasks would fill the memory with bookkeeping."""


@dataclass(frozen=True)
class Problem:
    """Why a mask could not be counted, and whether its image is to blame."""

    error: UserError
    of_image: bool


@dataclass(frozen=True)
class LabelScan:
    """`counts`: each mask's pixels by value, N x 256; zeros where `problems` (by index) says why there are none."""

    counts: npt.NDArray[np.int64]
    problems: dict[int, Problem]


def scan_labels(dataset: SegmentationDataset) -> npt.NDArray[np.int64]:
    """Counts every mask's pixels by value, N x 256. Files whose size and time are known are not read again.

    Raises:
        UserError: no labels; a mask is damaged, of another size than its image, or holds a value that is neither a
            class nor 255. The first file and the number of others are named.
    """
    scan = count_labels(dataset)
    problems = [str(problem.error) for problem in scan.problems.values()]
    for index in np.flatnonzero(scan.counts[:, len(dataset.classes) : IGNORE_INDEX].any(1)).tolist():
        try:
            check_labels(masks_of(dataset)[index], scan.counts[index], len(dataset.classes))
        except UserError as error:
            problems.append(str(error))
    if problems:
        every = "; tools/prepare_data.py check lists them all" if len(problems) > 1 else ""
        raise UserError(min(problems) + and_more(len(problems)) + every)
    return scan.counts


def count_labels(dataset: SegmentationDataset) -> LabelScan:
    """The one look at every mask, from which `scan_labels` and the audit are made.

    Files whose size and time are known are not read again; what could not be read is tried again.

    Raises:
        UserError: no labels.
    """
    images, masks = dataset.images, masks_of(dataset)
    stamps = np.array([[*_stamp(images[at]), *_stamp(masks[at])] for at in range(len(masks))], np.int64).reshape(-1, 4)
    cache = cache_folder() / "labels" / f"{_key(dataset)}.npz"
    counts = np.full((len(masks), 256), -1, np.int64)
    known = _read_cache(cache)
    if known is not None and known[0].shape == stamps.shape and known[1].shape == counts.shape:
        same = (known[0] == stamps).all(1)
        counts[same] = known[1][same]
    todo = np.flatnonzero(counts[:, 0] < 0)
    problems: dict[int, Problem] = {}

    def scan(block: npt.NDArray[np.int64]) -> int:
        for index in block.tolist():
            of_image = False
            try:
                label = dataset.read_label(masks[index])
                of_image = True
                size = image_size(images[index])
                of_image = False
                check_size(masks[index], label.shape, size)
                counts[index] = np.bincount(label.ravel(), minlength=256)
            except UserError as error:
                problems[index] = Problem(error, of_image)
        return len(block)

    blocks = [todo[at : at + BLOCK] for at in range(0, len(todo), BLOCK)]
    with ThreadPoolExecutor() as pool, progress_bar(len(todo), f"checking {dataset.name}", "mask", leave=False) as bar:
        for done in pool.map(scan, blocks):
            bar.update(done)
    if len(todo) > len(problems):
        _write_cache(cache, stamps, counts)
    return LabelScan(counts.clip(min=0, out=counts), problems)


def masks_of(dataset: SegmentationDataset, problem: str = "its images have no masks") -> Sequence[Path]:
    """Raises:
    UserError: there are none; `problem` says so.
    """
    if dataset.masks is None:
        raise UserError(f"{dataset.name}: {problem}")
    return dataset.masks


def _key(dataset: SegmentationDataset) -> str:
    """Stands for all that the counts depend on but the files' contents, which their sizes and times stand for."""
    key = hashlib.sha256(f"{VERSION}\0{dataset.read_label!r}".encode())
    for files in (dataset.images, masks_of(dataset)):
        for file in files:
            key.update(b"\0" + os.fsencode(file.absolute()))  # no path holds a zero byte
    return key.hexdigest()[:20]


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:  # told when it is opened
        return -1, -1
    return stat.st_size, stat.st_mtime_ns


def _read_cache(path: Path) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays["stamps"], arrays["counts"]
    except Exception:  # absent, or damaged in one of many ways: it is only a cache
        return None


def _write_cache(path: Path, stamps: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            np.savez_compressed(temporary, stamps=stamps, counts=counts)
    except OSError as error:
        log.warning("the label scan is not cached: %s", error)
