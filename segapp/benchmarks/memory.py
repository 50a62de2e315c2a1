"""How much main memory does it take?"""

import multiprocessing
import re
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

from segapp.base.errors import UserError


def peak_memory(name: str, make: Callable[..., Callable[[], object]], *arguments: Any) -> float:
    """Bytes of main memory at the peak of a fresh process that makes a step and runs it twice.

    Args:
        name: for messages.
        make: a function of a module, given the arguments; all of them are pickled.

    Raises:
        UserError: the process was killed.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_peak, make, *arguments).result()
        except BrokenProcessPool:
            raise UserError(f"{name}: the process that measures its memory was killed; lower batch_size") from None


def _peak(make: Callable[..., Callable[[], object]], *arguments: Any) -> float:
    step = make(*arguments)
    for _ in range(2):
        step()
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would count the parent, too, as it was when this process was forked from it
        return int(re.findall(r"VmHWM:\s+(\d+)", status.read_text())[0]) * 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1.0 if sys.platform == "darwin" else 1e3)
