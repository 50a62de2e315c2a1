"""Several processes on one machine, over gloo, as torchrun starts them, or with the variables that it sets."""

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

from segapp.base.distributed import ALONE, processes, rank
from segapp.base.errors import UserError
from segapp.base.paths import CONF
from segapp.cli import run_tool
from segapp.data.loading.sampling import Uniform
from segapp.runs.layout import checkpoint_folders
from tests.forked import run_job
from tests.images import split
from tests.training.test_classifying import TINY as CLASSIFIES
from tests.training.test_training import TINY, losses, tiny

ALIKE = ["iterations=4", "batch_size=8", "batch_norm=frozen", "model.aspp.dropout=0", "data.train=16", "data.val=5"]
"""Frozen BN and no dropout: nothing then depends on how a batch is divided."""


def torchrun(processes: int, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += [str(CONF.parent / "tools" / "train.py"), *overrides]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/"
    )


def alone(*overrides: str) -> None:
    assert run_tool("train", [*TINY, *overrides]) == 0


def scored(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "miou" in line]


@pytest.mark.slow
def test_two_processes_are_one_and_each_image_is_scored_once(tmp_path: Path) -> None:
    """With different numbers of labelled pixels in each part, and 5 validation images for 2 processes."""
    data, one, two = (tmp_path / name for name in ("data", "one", "two"))
    options = [*ALIKE, f"data.root={data}", "validate_every=2", "eval.batch_size=2", "optimizer.clip_norm=1"]
    alone(*options, f"output={one}")
    told = run_job(2, "train", *TINY, *options, "accumulate=2", f"output={two}", told=tmp_path / "told")
    assert told.count("iteration 4: mIoU") == 1, "one of them tells"
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    a, b = (load_file(checkpoint_folders(folder)[-1] / "weights.safetensors") for folder in (one, two))
    for name, each in a.items():
        assert torch.allclose(b[name].float(), each.float(), rtol=1e-3, atol=1e-5), name
    metrics = json.loads((two / "metrics.json").read_text())
    assert metrics["images"] == 5
    scoring = ["data=shapes", f"data.root={data}", "data.train=16", "data.val=5", "data.height=64", "data.width=64"]
    scoring += ["workers=0", "device=cpu", "runtime=torch", f"checkpoint={two}"]
    assert run_tool("eval", [*scoring, f"output={tmp_path / 'eval'}"]) == 0
    run_job(2, "eval", *scoring, f"output={tmp_path / 'shared'}", told=tmp_path / "told")
    single = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert metrics["confusion_matrix"] == single["confusion_matrix"]
    assert json.loads((tmp_path / "shared" / "metrics.json").read_text()) == single, "whoever scores them"
    assert np.sum(metrics["confusion_matrix"]) > 0
    assert max(line["miou"] for line in scored(two)) == metrics["miou"]
    assert [line["miou"] for line in scored(two)] == pytest.approx([line["miou"] for line in scored(one)], abs=0.01)


@pytest.mark.slow
def test_classifiers_are_trained_and_scored_by_two_as_by_one(tmp_path: Path) -> None:
    """With 11 validation images, an auxiliary head, and weights by class, which differ in each part."""
    root = split(tmp_path / "data")
    (root / "val" / "red" / "0.jpg").unlink()
    (root / "train" / "red" / "0.jpg").unlink()
    options = [
        *CLASSIFIES,
        f"data.root={root}",
        "batch_norm=frozen",
        "loss.class_weights=balanced",
        "eval.batch_size=2",
    ]
    options += ["loss.class_weights=balanced", "model.auxiliary=plain", "optimizer=rmsprop", "optimizer.lr=0.001"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert run_tool("train", [*options, f"output={one}"]) == 0
    told = run_job(2, "train", *options, "accumulate=2", f"output={two}", told=tmp_path / "told")
    assert told.count("iteration 4: top-1") == 1, "one of them tells"
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    scores = [json.loads((folder / "metrics.json").read_text()) for folder in (one, two)]
    assert [each["images"] for each in scores] == [11, 11]
    assert scores[0]["confusion_matrix"] == scores[1]["confusion_matrix"]
    scoring = ["data=image_folder", f"data.root={root}", "workers=0", "device=cpu", f"checkpoint={two}"]
    run_job(2, "eval", *scoring, f"output={tmp_path / 'shared'}", told=tmp_path / "told")
    shared = json.loads((tmp_path / "shared" / "metrics.json").read_text())
    assert shared["confusion_matrix"] == scores[1]["confusion_matrix"]


@pytest.mark.slow
def test_sigterm_saves_and_the_job_continues(tmp_path: Path) -> None:
    """torchrun passes the signal on; with local BN statistics, and a job of another size."""
    data, output = tmp_path / "data", tmp_path / "run"
    options = [f"data.root={data}", f"output={output}", "resume=auto", "batch_size=4", "validate_every=null"]
    options += ["workers=1", "iterations=400", "save_every=1000"]
    job = torchrun(2, *TINY, *options)
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
    weights = load_file(checkpoint_folders(output)[-1] / "weights.safetensors")
    assert {int(each) for name, each in weights.items() if "tracked" in name} == {stopped}, "no half of an update"
    config = (output / "config.yaml").read_text()
    (output / "config.yaml").write_text(config.replace("iterations: 400", f"iterations: {stopped + 3}"))
    alone(*options[:-2], f"iterations={stopped + 3}", "save_every=1000")
    assert len(losses(output)) == stopped + 3


@pytest.mark.slow
def test_a_process_that_fails_takes_the_job_down_with_its_own_error(tmp_path: Path) -> None:
    """An image that only the second process comes to; labels and sizes alone are looked at before."""
    data = tmp_path / "data"
    config = tiny(data, "data.train=16")
    training = config.data.dataset("train")
    second = int(Uniform(16, config.seed)(0)[3])  # of the first batch of 4, the last image
    whole = training.images[second].read_bytes()
    training.images[second].write_bytes(whole[: len(whole) // 2])
    options = ["data.train=16", f"data.root={data}", "batch_size=4", f"output={tmp_path / 'run'}", "iterations=3"]
    job = torchrun(2, *TINY, *options)
    told, _ = job.communicate(timeout=300)
    assert job.returncode == 1, told
    assert f"process 1: error: {training.images[second]}" in told
    assert "/segapp/" not in told.replace(str(training.images[second]), ""), "a traceback of torchrun's, none of ours"


def test_a_job_of_one_counts_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As schedulers announce it, without all that torchrun sets."""
    for name, value in (("WORLD_SIZE", "1"), ("RANK", "0")):
        monkeypatch.setenv(name, value)
    with processes(gpu=False) as alone:
        assert alone == ALONE


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"WORLD_SIZE": "2", "RANK": "0"}, "WORLD_SIZE=2 is set, but not LOCAL_RANK; torchrun sets"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE=2 is set, but not RANK"),
        ({"WORLD_SIZE": "many"}, "WORLD_SIZE=many: a whole number is needed"),
        ({"WORLD_SIZE": ""}, "WORLD_SIZE=: a whole number is needed"),
        ({"WORLD_SIZE": "2", "RANK": "first"}, "RANK=first: a whole number is needed"),
        (
            {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "MASTER_PORT": "29500"},
            "WORLD_SIZE=2 is set, but not MASTER_ADDR",
        ),
    ],
)
def test_half_a_job_is_told_of(variables: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert rank() == 0, "needed before anything can be told"
    with pytest.raises(UserError, match=message), processes(gpu=False):
        pass
