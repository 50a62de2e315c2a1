"""Runs COUNT cases in this process, whose memory is bounded, and prints what came of them as JSON; or one again."""

import json
import resource
import sys
import time
import traceback
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from segapp.base.errors import UserError
from segapp.weights.sources import timm
from tests.fuzz.inputs import NARROW, Kind, kinds
from tests.fuzz.readers import one_line

MOST_MEMORY = 1 << 30
"""Bytes that one case may take."""
GUARD = 4 << 30
"""Bytes of addresses beyond which nothing is given, for the sake of the machine."""
MOST_DEFECTS = 5
"""Of a kind, that are told."""


def main(arguments: list[str]) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    timm.ENCODERS[:] = [NARROW]  # else each case would write and read 100 MB
    every = kinds()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + GUARD,) * 2)
    with TemporaryDirectory() as folder:
        if len(arguments) == 2:
            (kind,) = (each for each in every if each.name == arguments[0])
            print(_outcome(kind, int(arguments[1]), Path(folder)))
        else:
            print(json.dumps(_run(every, int(arguments[0]), Path(folder))))


def _run(every: list[Kind], count: int, folder: Path) -> dict[str, Any]:
    """Says before each case which it is, on standard error: one that ends the process is the last."""
    shares = sum(kind.share for kind in every)
    outcomes: dict[str, dict[str, float]] = {}
    defects: list[str] = []
    done = share = 0
    start = _peak()
    for kind in every:
        share += kind.share
        until = count * share // shares
        outcomes[kind.name] = counted = {"sound": 0, "refused": 0, "defect": 0, "seconds": 0.0, "slowest": 0.0}
        begun = time.perf_counter()
        for number in range(until - done):
            print(kind.name, number, file=sys.stderr, flush=True)
            before, at = _peak(), time.perf_counter()
            outcome = _outcome(kind, number, folder)
            if number == 0 and outcome == "refused":
                outcome = "the sound file is refused"
            if _peak() - before > MOST_MEMORY:
                outcome = f"took {(_peak() - before) >> 20} MB"
            counted["slowest"] = max(counted["slowest"], time.perf_counter() - at)
            counted[outcome if outcome in ("sound", "refused") else "defect"] += 1
            if outcome not in ("sound", "refused") and counted["defect"] <= MOST_DEFECTS:
                defects.append(f"{kind.name} {number}: {outcome}")
        counted["seconds"] = time.perf_counter() - begun
        done = until
    return {"outcomes": outcomes, "defects": defects, "peak_mb": (_peak() - start) >> 20}


def _outcome(kind: Kind, number: int, folder: Path) -> str:
    """ "sound", "refused", or the traceback."""
    for name, content in (kind.beside | {kind.file: kind.case(number)}).items():
        (folder / name).write_bytes(content)
    try:
        try:
            kind.read(folder / kind.file)
        except UserError as error:
            one_line(error)
            return "refused"
        return "sound"
    except Exception:
        return traceback.format_exc()


def _peak() -> int:
    """Bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main(sys.argv[1:])
