"""How a tool ends: what it says where memory is short, and where nobody reads on."""

import importlib
import re
import subprocess
import sys
from collections.abc import Callable

import cv2
import pytest
import torch

from segapp.base.compose import compose_config
from segapp.base.config import flat
from segapp.base.paths import CONF
from segapp.cli import TOOLS, guarded, main


@pytest.mark.parametrize("tool", ["train", "eval", "predict", "voc_server", "benchmark"])
def test_short_memory_names_keys_that_the_tool_has(tool: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = importlib.import_module(f"segapp.commands.{tool}")
    errors: tuple[Callable[[], Exception], ...] = (
        lambda: torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError,
        lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
        lambda: cv2.error("OpenCV(5.0.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 9 bytes"),
    )
    for error in errors:

        def fail(arguments: list[str], error: Callable[[], Exception] = error) -> int:
            raise error()

        assert guarded(fail, [], less_memory=command.LESS_MEMORY) == 2
        assert command.LESS_MEMORY in capsys.readouterr().err
    known = set()
    for config in getattr(command, "CONFIGS", (tool,)):
        group, _, choice = config.rpartition("/")  # a task is a choice of training's config
        composed = compose_config("train", [f"{group}={choice}"]) if group else compose_config(config, [])
        known |= {key for each in flat(composed) for key in (each, each.partition(".")[0])}
    keys = r"\beval\.[a-z_]+|\b[a-z]+(?:_[a-z]+)+\b|\binference\b|\baccumulate\b|\bsize\b"
    named = re.findall(keys, command.LESS_MEMORY)
    assert named
    assert set(named) <= known


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_a_reader_that_has_read_enough_is_no_error() -> None:
    tool = CONF.parent / "tools" / "import_weights.py"
    command = [sys.executable, str(tool), "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # before anything is written
        assert process.stderr.read() == ""
    assert process.returncode == 128 + 13


def test_the_programs_own_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {tool} " in shown for tool in TOOLS)
    assert main(["predcit", "img.jpg"]) == 2
    assert capsys.readouterr().err == "error: predcit is no tool of segapp; did you mean predict?\n"
