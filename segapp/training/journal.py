"""What a run tells as it goes: metrics.jsonl for programs, TensorBoard for people."""

import json
import math
import time
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter

from segapp.files import write_text


class Journal:
    """Appends to metrics.jsonl (one object a line, with its iteration) and to tensorboard/.

    Args:
        folder: the run's.
        start: iterations done; what a resumed run wrote after them is cut off.
    """

    def __init__(self, folder: Path, start: int) -> None:
        path = folder / "metrics.jsonl"
        if path.exists():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            kept = [line for line in lines if _iteration(line) <= start]
            write_text(path, "".join(f"{line}\n" for line in kept))
        self._lines = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=start + 1)

    def write(self, iteration: int, values: dict[str, float]) -> None:
        record: dict[str, Any] = {"iteration": iteration, "time": round(time.time(), 3)}
        record |= {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._lines.write(json.dumps(record) + "\n")
        self._lines.flush()
        for name, value in values.items():
            self._board.add_scalar(name, value, iteration)

    def close(self) -> None:
        self._lines.close()
        self._board.close()


def _iteration(line: str) -> float:
    try:
        return float(json.loads(line)["iteration"])
    except (ValueError, KeyError, TypeError):
        return float("inf")  # the last line of a killed run


class Pace:
    """Iterations and images since the last reset."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.iterations = self.images = 0
        self._since = time.perf_counter()

    def count(self, images: int) -> None:
        self.iterations += 1
        self.images += images

    def images_per_second(self) -> float:
        return self.images / (time.perf_counter() - self._since)
