"""The label scan: counts every mask's pixels by value before training starts, and caches the counts."""

import hashlib
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segapp.base.cache import cache_folder
from segapp.base.classes import IGNORE_INDEX
from segapp.base.errors import UserError, and_more
from segapp.base.files import atomic_write
from segapp.base.images import image_size
from segapp.base.logs import progress_bar
from segapp.base.mask_format import mask_format
from segapp.data.dataset import SegmentationDataset, check_labels, check_size
from segapp.data.formats.label_readers import held_values

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
    """What the label scan of N masks has found.

    counts: each mask's pixels by value, N x 256; zeros where `problems` (by index) says why there are none.
    lossy: the name of each mask's format where that changes values, else empty.
    colours: N x 256, each index's colour in the mask's palette as 0xRRGGBB; -1 where the mask does not hold the
        index, or has no colours.
    """

    counts: npt.NDArray[np.int64]
    problems: dict[int, Problem]
    lossy: npt.NDArray[np.str_]
    colours: "Colours"


@dataclass(frozen=True)
class Colours:
    """N x 256 colours, of which most rows are alike: `rows`, and the one of each mask in `of`."""

    rows: npt.NDArray[np.int32]
    of: npt.NDArray[np.int32]


def no_labels(number: int) -> LabelScan:
    """Of images without masks."""
    colours = Colours(np.full((1, 256), -1, np.int32), np.zeros(number, np.int32))
    return LabelScan(np.zeros((number, 256), np.int64), {}, np.zeros(number, "U8"), colours)


def scan_labels(dataset: SegmentationDataset) -> npt.NDArray[np.int64]:
    """Counts every mask's pixels by value, N x 256. Files whose size and time are known are not read again.

    Raises:
        UserError: no labels; a mask is damaged, of another size than its image, or holds a value that is neither a
            class nor 255. The first file and the number of others are named.
    """
    scan = count_labels(dataset)
    refuse_problems(dataset, scan)
    return scan.counts


def refuse_problems(dataset: SegmentationDataset, scan: LabelScan) -> None:
    """Raises:
    UserError: as `scan_labels`, of labels that were counted.
    """
    problems = [str(problem.error) for problem in scan.problems.values()]
    for index in np.flatnonzero(scan.counts[:, len(dataset.classes) : IGNORE_INDEX].any(1)).tolist():
        try:
            check_labels(masks_of(dataset)[index], scan.counts[index], len(dataset.classes))
        except UserError as error:
            problems.append(str(error))
    if problems:
        every = "; tools/prepare_data.py check lists them all" if len(problems) > 1 else ""
        raise UserError(min(problems) + and_more(len(problems)) + every)


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
    lossy, rows, of = np.zeros(len(masks), "U8"), np.full((1, 256), -1, np.int32), np.full(len(masks), -1, np.int32)
    known = _read_cache(cache, len(masks))
    if known:
        same = (known["stamps"] == stamps).all(1)
        counts[same] = known["counts"][same]
        if "colours" in known:
            rows = known["colours"]
            lossy[same], of[same] = known["lossy"][same], known["colours_of"][same]
    todo = np.flatnonzero((counts[:, 0] < 0) | (of < 0))
    problems: dict[int, Problem] = {}
    colours: dict[int, bytes] = {}
    equal = {row.tobytes(): row.tobytes() for row in rows}  # so that those that are alike are kept once

    def scan(block: npt.NDArray[np.int64]) -> int:
        for index in block.tolist():
            of_image = False
            try:
                if counts[index, 0] < 0:
                    label = dataset.read_label(masks[index])
                    of_image = True
                    size = image_size(images[index])
                    of_image = False
                    check_size(masks[index], label.shape, size)
                    counts[index] = np.bincount(label.ravel(), minlength=256)
                form = mask_format(masks[index])
                lossy[index] = form.lossy
                row = _colours(dataset, masks[index], form.palette, counts[index] > 0).tobytes()
                colours[index] = equal.setdefault(row, row)
            except UserError as error:
                problems[index] = Problem(error, of_image)
        return len(block)

    blocks = [todo[at : at + BLOCK] for at in range(0, len(todo), BLOCK)]
    with ThreadPoolExecutor() as pool, progress_bar(len(todo), f"checking {dataset.name}", "mask", leave=False) as bar:
        for done in pool.map(scan, blocks):
            bar.update(done)
    place = {row: at for at, row in enumerate(equal)}
    rows = np.frombuffer(b"".join(equal), np.int32).reshape(-1, 256)
    for index, row in colours.items():
        of[index] = place[row]
    if len(todo) > len(problems):
        _write_cache(cache, stamps=stamps, counts=counts, lossy=lossy, colours=rows, colours_of=of)
    return LabelScan(counts.clip(min=0, out=counts), problems, lossy, Colours(rows, of.clip(min=0)))


def _colours(
    dataset: SegmentationDataset,
    mask: Path,
    palette: npt.NDArray[np.uint8] | None,
    labels: npt.NDArray[np.bool_],
) -> npt.NDArray[np.int32]:
    """A row of `LabelScan.colours`; `labels` has the class indices that the mask holds."""
    row = np.full(256, -1, np.int32)
    held = held_values(dataset.read_label, mask, labels) if palette is not None else None
    if palette is not None and held is not None:
        red, green, blue = palette.astype(np.int32).T
        packed = np.where(held[: len(palette)], red << 16 | green << 8 | blue, -1)
        grey = np.arange(len(palette)) * 0x10101
        if (
            packed[packed >= 0] != grey[packed >= 0]
        ).any():  # a ramp of greys is how a program saves a mask without any
            row[: len(palette)] = packed
    return row


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


def _read_cache(path: Path, number: int) -> dict[str, npt.NDArray[Any]]:
    """Empty where there is none that fits; caches from before masks' formats were looked at have the counts alone."""
    shapes = {"stamps": (number, 4), "counts": (number, 256), "lossy": (number,), "colours_of": (number,)}
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file.items())
        if all(arrays[name].shape == shapes[name] for name in arrays.keys() & shapes.keys()):
            return arrays if {"stamps", "counts"} <= arrays.keys() else {}
    except Exception:  # absent, or damaged in one of many ways: it is only a cache
        pass
    return {}


def _write_cache(path: Path, **arrays: npt.NDArray[Any]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            np.savez_compressed(temporary, **arrays)  # type: ignore[arg-type]
    except OSError as error:
        log.warning("the label scan is not cached: %s", error)
