"""What a run tells as it goes: metrics.jsonl for programs, TensorBoard for people."""

import json
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.tensorboard import SummaryWriter

from segapp.base.files import write_text


class MetricLogger:
    """Appends to metrics.jsonl (one object a line, with its iteration) and to tensorboard/.

    Args:
        folder: the run's.
        start: iterations done; what a resumed run wrote after them is cut off.
        validated: whether what it wrote in validation after iteration `start` stays.
    """

    def __init__(self, folder: Path, start: int, *, validated: bool = True) -> None:
        path = folder / "metrics.jsonl"
        if path.exists():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            kept = [line for line in lines if _belongs(line, start, validated)]
            write_text(path, "".join(f"{line}\n" for line in kept))
        self._lines = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + validated)

    def write(self, iteration: int, values: dict[str, float]) -> None:
        record: dict[str, Any] = {"iteration": iteration, "time": round(time.time(), 3)}
        record |= {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._lines.write(json.dumps(record) + "\n")
        self._lines.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, iteration)

    def show(self, iteration: int, pictures: npt.NDArray[np.uint8]) -> None:
        """`pictures`: H x W x 3 RGB."""
        self._board.add_image("validation", pictures, iteration, dataformats="HWC")

    def close(self) -> None:
        self._lines.close()
        self._board.close()


def _belongs(line: str, start: int, validated: bool) -> bool:
    try:
        record = json.loads(line)
        return bool(record["iteration"] < start + ("miou" not in record or validated))
    except (ValueError, KeyError, TypeError):
        return False  # the last line of a killed run


class Throughput:
    """Images since the last reset, and the time that training waited for them."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.images = 0
        self._waited = 0.0
        self._since = time.perf_counter()

    def count(self, images: int) -> None:
        self.images += images

    @contextmanager
    def waiting(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def figures(self) -> dict[str, float]:
        """Images a second, and the share of the time spent waiting for them, in [0, 1]."""
        elapsed = time.perf_counter() - self._since
        return {"images_per_second": self.images / elapsed, "data_wait": self._waited / elapsed}
