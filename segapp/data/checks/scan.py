"""The label scan: counts every mask's pixels by value before training starts, and caches the counts."""

import hashlib
import logging
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segapp.base.cache import cache_folder
from segapp.base.classes import IGNORE_INDEX
from segapp.base.errors import UserError, and_more
from segapp.base.files import atomic_write
from segapp.base.images import deep_pixels, read_header
from segapp.base.logs import progress_bar
from segapp.base.mask_format import mask_format
from segapp.data.class_lists import Renumbered
from segapp.data.dataset import Array, Indexed, SegmentationDataset, check_labels, check_size
from segapp.data.edges import MIN_VALUES, has_mixed_edges

log = logging.getLogger(__name__)


VERSION = 3
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
    mixed: masks with mixed edges. peaks: the brightest value of deep images, those of 16 bits; 0 of others.
    colours: N x 256, each index's colour in the mask's palette as 0xRRGGBB; -1 where the mask does not hold the
        index, or has no colours.
    """

    counts: npt.NDArray[np.int64]
    problems: dict[int, Problem]
    lossy: npt.NDArray[np.str_]
    mixed: npt.NDArray[np.bool_]
    peaks: npt.NDArray[np.int32]
    colours: "Colours"


@dataclass(frozen=True)
class Colours:
    """N x 256 colours, of which most rows are alike: `rows`, and the one of each mask in `of`."""

    rows: npt.NDArray[np.int32]
    of: npt.NDArray[np.int32]


def no_labels(number: int) -> LabelScan:
    """Of images without masks."""
    colours = Colours(np.full((1, 256), -1, np.int32), np.zeros(number, np.int32))
    none = np.zeros(number, np.int32)
    return LabelScan(np.zeros((number, 256), np.int64), {}, np.zeros(number, "U8"), none.astype(bool), none, colours)


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
            mask, blurred = masks_of(dataset)[index], bool(scan.mixed[index])
            check_labels(mask, scan.counts[index], len(dataset.classes), blurred=blurred)
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
    scan = no_labels(len(masks))
    scan.counts[:] = -1
    rows = scan.colours.rows
    if known := _read_cache(cache, len(masks)):
        same = (known["stamps"] == stamps).all(1)
        for name, array in _arrays(scan).items():
            array[same] = known[name][same]
        rows = known["rows"]
    todo = np.flatnonzero(scan.counts[:, 0] < 0)
    found: dict[int, bytes] = {}  # rows of colours
    equal = {row.tobytes(): row.tobytes() for row in rows}  # so that those that are alike are kept once

    def look(block: npt.NDArray[np.int64]) -> int:
        for index in block.tolist():
            row = _look(dataset, index, scan)
            if row is not None:
                found[index] = equal.setdefault(row, row)
        return len(block)

    blocks = [todo[at : at + BLOCK] for at in range(0, len(todo), BLOCK)]
    with ThreadPoolExecutor() as pool, progress_bar(len(todo), f"checking {dataset.name}", "mask", leave=False) as bar:
        for done in pool.map(look, blocks):
            bar.update(done)
    place = {row: at for at, row in enumerate(equal)}
    for index, row in found.items():
        scan.colours.of[index] = place[row]
    rows = np.frombuffer(b"".join(equal), np.int32).reshape(-1, 256)
    if len(todo) > len(scan.problems):
        _write_cache(cache, stamps=stamps, rows=rows, **_arrays(scan))
    scan.counts.clip(min=0, out=scan.counts)
    return replace(scan, colours=Colours(rows, scan.colours.of))


def _arrays(scan: LabelScan) -> dict[str, npt.NDArray[Any]]:
    """Those with an entry a mask."""
    return {
        "counts": scan.counts,
        "lossy": scan.lossy,
        "mixed": scan.mixed,
        "peaks": scan.peaks,
        "colours_of": scan.colours.of,
    }


def _look(dataset: SegmentationDataset, index: int, scan: LabelScan) -> bytes | None:
    """Fills in what one mask tells, and gives its row of colours."""
    image, mask = dataset.images[index], masks_of(dataset)[index]
    of_image = False
    try:
        label = dataset.read_label(mask)
        of_image = True
        header = read_header(image)
        deep = deep_pixels(image) if header.is_deep else None
        peak = 0 if deep is None else int(deep.max(initial=0))
        of_image = False
        check_size(mask, label.shape, header.size)
    except UserError as error:
        scan.problems[index] = Problem(error, of_image)
        return None
    scan.counts[index] = np.bincount(label.ravel(), minlength=256)
    held = scan.counts[index] > 0
    form = mask_format(mask)
    scan.lossy[index], scan.peaks[index] = form.lossy, peak
    scan.mixed[index] = held.sum() >= MIN_VALUES and has_mixed_edges(label)
    return _colours(dataset.read_label, form.palette, held).tobytes()


def _colours(
    read_label: Callable[[Path], Array], palette: npt.NDArray[np.uint8] | None, held: npt.NDArray[np.bool_]
) -> npt.NDArray[np.int32]:
    """A row of `LabelScan.colours`, for masks whose values are read as indices because nobody has said otherwise.

    Args:
        held: which class indices and 255 the mask was read to hold.
    """
    row = np.full(256, -1, np.int32)
    if isinstance(read_label, Renumbered):
        stored = held.copy()
        stored[: len(read_label.indices)] = held[list(read_label.indices)]
        return _colours(read_label.read_label, palette, stored)
    if palette is not None and isinstance(read_label, Indexed):
        red, green, blue = palette.astype(np.int32).T
        packed = np.where(held[: len(palette)], red << 16 | green << 8 | blue, -1)
        is_ramp = (packed < 0) | (packed == np.arange(len(palette)) * 0x10101)
        if not is_ramp.all():  # how a program saves a mask without colours
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
    """Empty where there is none that fits."""
    expected = {"stamps": (number, 4)} | {name: array.shape for name, array in _arrays(no_labels(number)).items()}
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file.items())
        if all(arrays[name].shape == shape for name, shape in expected.items()):
            return arrays if arrays["colours_of"].max(initial=-1) < len(arrays["rows"]) else {}
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
