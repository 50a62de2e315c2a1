"""tools/*.py as processes of their own."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segapp.base.images import write_image
from tests.commands.tools import PREDICT

PROJECT = Path(__file__).parent.parent.parent
Make = Callable[..., Path]


@pytest.mark.slow
def test_scripts_run_from_anywhere(tmp_path: Path, make_checkpoint: Make) -> None:
    """Real processes, another working directory: no traceback, the right exit status."""
    write_image(tmp_path / "img.jpg", np.zeros((20, 30, 3), np.uint8))

    def script(name: str, *arguments: Any) -> subprocess.CompletedProcess[str]:
        command: list[Any] = [sys.executable, PROJECT / "tools" / f"{name}.py", *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = script("predict", "img.jpg", f"checkpoint={make_checkpoint()}", "output=out", "runtime=torch", *PREDICT)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "masks" / "img.png").is_file()
    wrong = script("eval", "data.root=/nowhere", "output=out2")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: VOC 2012 is not in /nowhere")
    assert len(wrong.stderr.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["img.jpg", "net.safetensors", "out"]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("during", ["segapp.base.quiet_start", "torch._C"])
def test_ctrl_c_amid_the_imports_leaves_no_traceback(during: str) -> None:
    command = [sys.executable, "-X", "importtime", str(PROJECT / "tools" / "eval.py"), "data=nothing"]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # not ignored, as in the background of a shell
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heard) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if line.rstrip().endswith(during))
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
    assert process.returncode == -signal.SIGINT
    assert "Traceback" not in told
    assert "segapp.commands.eval" not in told
