"""What is set before anything else is imported; a process of its own, since this one has imported all."""

import os
import subprocess
import sys

import pytest

CODE = "import os, segapp.base.quiet_start; print(os.environ.get('GOMP_SPINCOUNT'))"


@pytest.mark.parametrize(
    ("own", "expected"),
    [({}, "10000"), ({"GOMP_SPINCOUNT": "5"}, "5"), ({"OMP_WAIT_POLICY": "active"}, "None")],
)
def test_threads_soon_sleep_unless_the_user_says_otherwise(own: dict[str, str], expected: str) -> None:
    rest = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")}
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(command, env=rest | own, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == expected


def test_nothing_heavy_is_imported_before() -> None:
    code = "import sys, segapp.base.quiet_start; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
