"""A thousand damaged files: no reader gives anything but a sound result, or one line that says what is wrong."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.fuzz,
    pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded and measured as Linux does it"),
]

ROOT = Path(__file__).parents[2]
COUNT = int(os.environ.get("SEGAPP_FUZZ", "1000"))
MOST_PEAK_MB = 1024


def test_every_reader_gives_a_sound_result_or_one_line(tmp_path: Path) -> None:
    """In a process of its own, which a decoder may crash. `python -m tests.fuzz KIND NUMBER` shows a case again."""
    log = tmp_path / "cases"
    command = [sys.executable, "-m", "tests.fuzz", str(COUNT)]
    with log.open("w") as file:
        limit = 120 + COUNT / 20  # seconds; a hundredth each is usual
        ended = subprocess.run(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=file, text=True, timeout=limit, check=False
        )
    assert ended.returncode == 0, f"ended by {ended.returncode}:\n{log.read_text(errors='replace')[-2000:]}"
    report = json.loads(ended.stdout)
    print()
    for name, counted in report["outcomes"].items():
        print(f"{name:28}", " ".join(f"{what} {value:<8.5g}" for what, value in counted.items()))
    total = {what: sum(each[what] for each in report["outcomes"].values()) for what in ("sound", "refused", "defect")}
    print(f"together {total}, peak memory {report['peak_mb']} MB above the start")
    assert not report["defects"], "\n".join(report["defects"])
    assert sum(total.values()) == COUNT
    assert min(total["sound"], total["refused"]) >= COUNT // 10, "neither mutations nor readers are idle"
    assert report["peak_mb"] < MOST_PEAK_MB
