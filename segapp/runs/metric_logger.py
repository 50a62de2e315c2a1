"""What a run tells as it goes: metrics.jsonl for programs, TensorBoard for people."""

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.tensorboard import SummaryWriter

from segapp.base.files import write_text
from segapp.runs.layout import METRICS, TENSORBOARD


class MetricLogger:
    """Appends to metrics.jsonl (one object a line, with its iteration) and to tensorboard/.

    Args:
        folder: the run's.
        metric: by which validations are judged; lines that have it are of validations.
        start: iterations done; what a resumed run wrote after them is cut off.
        validated: whether what it wrote in validation after iteration `start` stays.
    """

    def __init__(self, folder: Path, metric: str, start: int, *, validated: bool = True) -> None:
        path = folder / METRICS
        if path.exists():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            kept = [line for line in lines if _belongs(line, metric, start, validated)]
            write_text(path, "".join(f"{line}\n" for line in kept))
        self._lines = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / TENSORBOARD), purge_step=start + validated)

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


def _belongs(line: str, metric: str, start: int, validated: bool) -> bool:
    try:
        record = json.loads(line)
        return bool(record["iteration"] < start + (metric not in record or validated))
    except (ValueError, KeyError, TypeError):
        return False  # the last line of a killed run
