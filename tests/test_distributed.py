"""Several processes on one machine, over gloo, as torchrun starts them."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from segapp.paths import PROJECT
from segapp.weights.checkpoint import checkpoint_folders
from tests.test_training import TINY, losses

ALIKE = ["iterations=4", "batch_size=8", "batch_norm=frozen", "model.aspp.dropout=0", "data.train=16", "data.val=5"]
"""Frozen BN and no dropout: nothing then depends on how a batch is divided."""


def torchrun(processes: int, *overrides: str, restarts: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += [f"--max-restarts={restarts}", str(PROJECT / "tools" / "train.py"), *TINY, *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/"
    )


def finish(job: subprocess.Popen[str], expected: int = 0) -> str:
    told, _ = job.communicate(timeout=300)
    assert job.returncode == expected, told
    return told


def alone(*overrides: str) -> None:
    tool = str(PROJECT / "tools" / "train.py")
    subprocess.run([sys.executable, tool, *TINY, *overrides], check=True, capture_output=True)


def scored(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "miou" in line]


def test_two_processes_are_one_and_each_image_is_scored_once(tmp_path: Path) -> None:
    """With different numbers of labelled pixels in each part, and 5 validation images for 2 processes."""
    data, one, two = (tmp_path / name for name in ("data", "one", "two"))
    options = [*ALIKE, f"data.root={data}", "validate_every=2", "eval.batch_size=2", "optimizer.clip_norm=1"]
    alone(*options, f"output={one}")
    told = finish(torchrun(2, *options, "accumulate=2", f"output={two}"))
    assert told.count("mIoU 0.") >= 2, "one of them tells"
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    a, b = (load_file(checkpoint_folders(folder)[-1] / "weights.safetensors") for folder in (one, two))
    for name, each in a.items():
        assert torch.allclose(b[name].float(), each.float(), rtol=1e-3, atol=1e-5), name
    metrics = json.loads((two / "metrics.json").read_text())
    assert metrics["images"] == 5
    tool = str(PROJECT / "tools" / "eval.py")
    command = [sys.executable, tool, "data=shapes", f"data.root={data}", "data.train=16", "data.val=5"]
    command += ["data.height=64", "data.width=64", "workers=0", "device=cpu", f"checkpoint={two}"]
    subprocess.run([*command, f"output={tmp_path / 'eval'}"], check=True, capture_output=True)
    single = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert metrics["confusion_matrix"] == single["confusion_matrix"]
    assert np.sum(metrics["confusion_matrix"]) > 0
    assert scored(two)[-1]["miou"] == metrics["miou"] or len(scored(two)) > 1


def test_sigterm_saves_and_the_job_continues(tmp_path: Path) -> None:
    """torchrun passes the signal on; with local BN statistics, and a job of another size."""
    data, output = tmp_path / "data", tmp_path / "run"
    options = [f"data.root={data}", f"output={output}", "resume=auto", "batch_size=4", "validate_every=null"]
    options += ["iterations=400", "save_every=1000"]
    job = torchrun(2, *options)
    deadline = time.time() + 200
    while not (output / "metrics.jsonl").exists() or len(losses(output)) < 3:
        assert job.poll() is None
        assert time.time() < deadline
        time.sleep(0.2)
    job.send_signal(signal.SIGTERM)
    told, _ = job.communicate(timeout=120)
    assert job.returncode != 0
    stopped = int(checkpoint_folders(output)[-1].name)
    assert f"continues after iteration {stopped}" in told
    assert stopped == len(losses(output))
    config = (output / "config.yaml").read_text()
    (output / "config.yaml").write_text(config.replace("iterations: 400", f"iterations: {stopped + 3}"))
    alone(*options[:-2], f"iterations={stopped + 3}", "save_every=1000")
    assert len(losses(output)) == stopped + 3


def test_a_process_that_fails_takes_the_job_down_with_its_own_error(tmp_path: Path) -> None:
    told = finish(torchrun(2, f"data.root={tmp_path / 'data'}", "batch_size=3", f"output={tmp_path / 'run'}"), 1)
    assert "batch_size=3 cannot be divided among 2 processes" in told
    assert "/segapp/" not in told, "torchrun shows a traceback of its own, and none of ours"
    assert not (tmp_path / "run").exists()
