"""What became of each image of a folder: kept line by line while it goes on, and one table in the end."""

import csv
import heapq
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from itertools import groupby, islice
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from segapp.base.errors import UserError
from segapp.base.extras import require
from segapp.base.files import atomic_write, write_text
from segapp.runs.layout import PREDICTED, PROGRESS

Array = npt.NDArray[np.uint8]
FORMATS = ("csv", "parquet")

NAMES = "names"
"""The file in PROGRESS of the images' names, each ending in a null character."""
NETWORK = "network"
"""The file in PROGRESS of what the checkpoint says of itself."""
STEPS = ("read", "compute", "draw", "write")
ROWS_AT_ONCE = 10_000


class Seconds(NamedTuple):
    """How long each step took; of images that go through the network together, each has its part."""

    read: float = 0.0
    compute: float = 0.0
    draw: float = 0.0
    write: float = 0.0


UNKNOWN = Seconds()


@dataclass(frozen=True)
class ImageRow:
    """One image.

    Attributes:
        at: its place in the list.
        size: (height, width); None where it could not be read.
        pixels: of the classes that occur, by index.
        seconds: of each step.
        error: why there is nothing of it; empty where there is.
    """

    at: int
    size: tuple[int, int] | None = None
    pixels: dict[int, int] = field(default_factory=dict)
    seconds: Seconds = UNKNOWN
    error: str = ""


def pixels_of(labels: Array) -> dict[int, int]:
    """Pixels of each class that occurs in H x W, by index."""
    counts = np.bincount(labels.ravel())
    return {index: int(counts[index]) for index in np.flatnonzero(counts).tolist()}


def share_columns(classes: Sequence[str]) -> list[str]:
    """Of a table; their beginning keeps them apart from other columns."""
    return [f"share {name}" for name in classes]


def shares(pixels: dict[int, int], number: int) -> list[float]:
    """The part of the picture that each of `number` classes takes, in [0, 1]."""
    whole = sum(pixels.values()) or 1
    return [float(f"{pixels.get(index, 0) / whole:.6g}") for index in range(number)]


class Progress(AbstractContextManager["Progress"]):
    """The rows of one process since one start, each written once its image's files are there.

    Args:
        folder: of the run.
        start: how many starts there were before; see `starts`.
        rank: of the process.
    """

    def __init__(self, folder: Path, start: int, rank: int) -> None:
        self._file = (folder / PROGRESS / f"{start}-{rank}.jsonl").open("w", encoding="ascii")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def add(self, row: ImageRow) -> None:
        self._file.write(json.dumps(asdict(row)) + "\n")
        self._file.flush()


def begin_progress(folder: Path, names: Iterable[str], network: str) -> None:
    """For a new run; forgets that of an earlier one in the same folder.

    Args:
        network: what the checkpoint says of itself.
    """
    shutil.rmtree(folder / PROGRESS, ignore_errors=True)
    (folder / PROGRESS).mkdir()
    write_text(folder / PROGRESS / NETWORK, network)
    with atomic_write(folder / PROGRESS / NAMES) as temporary, temporary.open("wb") as file:
        for name in names:
            file.write(os.fsencode(name) + b"\0")


def read_names(folder: Path) -> list[str]:
    """What a run was given.

    Raises:
        UserError: no such run.
    """
    try:
        return [os.fsdecode(name) for name in (folder / PROGRESS / NAMES).read_bytes().split(b"\0")[:-1]]
    except OSError:
        raise UserError(f"resume={folder}: predict has left nothing there to go on with") from None


def check_network(folder: Path, network: str) -> None:
    """Raises:
    UserError: the run was begun with another network, as "auto" and "latest" may name another one.
    """
    path = folder / PROGRESS / NETWORK
    if path.is_file() and path.read_text(encoding="utf-8") != network:
        raise UserError(f"{folder} was begun with another network; name its file with checkpoint=, or another folder")


def starts(folder: Path) -> list[int]:
    """The numbers of a run's starts so far."""
    return sorted({int(path.stem.partition("-")[0]) for path in (folder / PROGRESS).glob("*-*.jsonl")})


def read_rows(folder: Path) -> Iterator[ImageRow]:
    """The last row of each image that has one, in order; in memory that does not grow with their number."""
    paths = sorted((folder / PROGRESS).glob("*-*.jsonl"), key=lambda path: [*map(int, path.stem.split("-"))])
    merged = heapq.merge(*map(_rows, paths), key=lambda row: row.at)
    for _, rows in groupby(merged, key=lambda row: row.at):
        *_, last = rows
        yield last


def _rows(path: Path) -> Iterator[ImageRow]:
    """A last line that was cut off counts for nothing."""
    with path.open(encoding="ascii") as file:
        for line in file:
            if not line.endswith("\n"):
                return
            values = json.loads(line)
            pixels = {int(index): number for index, number in values.pop("pixels").items()}
            yield ImageRow(**(values | {"pixels": pixels, "seconds": Seconds(*values["seconds"])}))


def check_formats(formats: Sequence[str]) -> None:
    """Raises:
    UserError: what writes one is missing.
    """
    if "parquet" in formats:
        require("parquet", "summary=parquet")


def write_summary(folder: Path, images: Sequence[Path], classes: Sequence[str], formats: Sequence[str]) -> list[Path]:
    """Writes the table of all images in each format, and gives the files."""
    paths = []
    for each in formats:
        path = folder / f"{PREDICTED}.{each}"
        with atomic_write(path) as temporary:
            (_write_csv if each == "csv" else _write_parquet)(temporary, folder, images, classes)
        paths.append(path)
    return paths


def _columns(classes: Sequence[str]) -> list[str]:
    return ["name", "width", "height", "error", *(f"{step} seconds" for step in STEPS), *share_columns(classes)]


def _table(folder: Path, images: Sequence[Path], classes: Sequence[str]) -> Iterator[list[Any]]:
    for row in read_rows(folder):
        height, width = row.size or (None, None)
        name = str(images[row.at]).encode("utf-8", "replace").decode()  # a name that is not text holds lone surrogates
        seconds = [round(each, 6) for each in row.seconds]
        known = shares(row.pixels, len(classes)) if row.pixels else [None] * len(classes)
        yield [name, width, height, row.error or None, *seconds, *known]


def _write_csv(path: Path, folder: Path, images: Sequence[Path], classes: Sequence[str]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_columns(classes))
        writer.writerows(_table(folder, images, classes))


def _write_parquet(path: Path, folder: Path, images: Sequence[Path], classes: Sequence[str]) -> None:
    import pyarrow
    import pyarrow.parquet

    kinds = [pyarrow.string(), pyarrow.int32(), pyarrow.int32(), pyarrow.string()]
    kinds += [pyarrow.float64()] * (len(STEPS) + len(classes))
    schema = pyarrow.schema(list(zip(_columns(classes), kinds, strict=True)))
    table = _table(folder, images, classes)
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:
        while rows := list(islice(table, ROWS_AT_ONCE)):
            columns = [
                pyarrow.array(column, kind) for column, kind in zip(zip(*rows, strict=True), kinds, strict=True)
            ]
            writer.write_batch(pyarrow.record_batch(columns, schema=schema))
