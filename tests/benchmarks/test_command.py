"""The benchmark tool's mistakes, and the script that runs it on a GPU."""

import os
import stat
import subprocess
from pathlib import Path

import pytest
import torch

from segapp.base.compose import read_config
from segapp.benchmarks.infer import InferBenchmarkConfig
from segapp.benchmarks.train import TrainBenchmarkConfig
from segapp.cli import run_tool
from tests.benchmarks.tables import MEASURES, TINY, Capture


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["something"], "say first what to time: python tools/benchmark.py infer|train|data|measures"),
        (["infer", "contenders=[segap]"], "segap is none of segapp, smp, "),
        (["infer", "samples=3"], "samples is no key of this config"),
        (["infer", "size=[0,33]"], "size.0=0: "),
        (["infer", *TINY, "clock=cpu"], "clock=cpu is for device=cpu and one thread: set OMP_NUM_THREADS=1"),
        (["infer", *TINY, "batch_size=1000000000000"], "out of memory; lower batch_size or size"),
        (["infer", *TINY, "contenders=smp"], "no network is left to time"),
        (["folder"], "images=None: name a folder of photos"),
        (["measures", *MEASURES, *TINY, "clock=cpu"], "clock=cpu is for device=cpu and one thread"),
    ],
)
def test_mistakes_are_a_line(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert run_tool("benchmark", arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def run_gpu_script(folder: Path, python: str) -> str:
    """What the script prints with another program in Python's place."""
    fake = folder / "python"
    fake.write_text(f"#!/bin/sh\n{python}")
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    script = Path(__file__).parent.parent.parent / "tools" / "benchmark_gpu.sh"
    environment = os.environ | {"PYTHON": str(fake), "LOGS": str(folder / "logs"), "MODEL": "a=1 b=2"}
    done = subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_gpu_script_goes_on_after_a_piece_that_fails(tmp_path: Path) -> None:
    printed = run_gpu_script(
        tmp_path,
        'case "$*" in *float32*) echo "noise" >&2; echo "error: out of GPU memory; lower it" >&2; exit 2;; esac\n'
        'echo "| network | median ms |"; echo "| ------- | --------: |"; echo "| segapp  |    $# |"\n'
        'echo; echo "where the time of segapp goes:"; echo "| BN | forward |"\n',
    )
    assert "train 512 OS16 float32: error: out of GPU memory; lower it" in printed
    header, rule, *rows = printed.partition("whole logs are in")[2].splitlines()[1:]
    assert header.count("|") == rule.count("|")
    assert len(rows) == 14, "of 16 pieces two fail"
    assert rows[0] == "| train 513 OS16 eager | segapp | 10 |", "ten arguments, two of them of MODEL"


def test_the_gpu_script_gives_overrides_that_the_configs_know(tmp_path: Path) -> None:
    run_gpu_script(tmp_path, f'echo "$*" >> {tmp_path / "calls"}\n')
    calls = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
    assert len(calls) == 16
    assert {tool for tool, *_ in calls} == {"tools/benchmark.py"}
    for question, kind in (("infer", InferBenchmarkConfig), ("train", TrainBenchmarkConfig)):
        overrides = {each.partition("=")[0]: each for _, what, *rest in calls if what == question for each in rest}
        assert {"device", "size", "compile", "contenders", "precision", "model.output_stride"} < overrides.keys()
        known = ["device=cpu" if key == "device" else each for key, each in overrides.items() if key not in "ab"]
        assert read_config(f"benchmark_{question}", known, kind).rounds == 15
