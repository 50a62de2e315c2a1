"""Where a network runs."""

import subprocess
import sys

import pytest

FAULTS = """
import resource, torch, segapp.base.devices
{call}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(10_000_000)  # 40 MB, freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(sum([faults() for _ in range(20)][10:]))
"""


def faults(call: str, **environment: str) -> int:
    """Pages that ten tensors in turn have to get from the system, each freed at once, after ten others."""
    command = [sys.executable, "-c", FAULTS.format(call=call)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone gives memory page by page")
def test_freed_memory_is_kept() -> None:
    kept = "segapp.base.devices.keep_freed_memory()"
    plain = faults("")
    assert plain > 1000, "else nothing needs be kept"
    assert faults(kept) < plain / 4
    assert faults(kept, MALLOC_ARENA_MAX="2") > plain / 2, "a user's own settings stay"
