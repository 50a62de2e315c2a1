"""Launchers: on this machine's cores, as jobs of submitit, and what SLURM says by its variables and signals."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest

from segapp.base.errors import STOP_SIGNALS
from segapp.runs.history import read_run
from segapp.sweeps.launch import join_tasks, put_back
from segapp.training.stopping import stop_request
from tests.sweeps.test_sweep import table
from tests.training.test_training import TINY

JOB = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture
def _environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.slow
@pytest.mark.parametrize(
    "launcher", [["joblib", "hydra.launcher.n_jobs=2"], ["submitit_local"]], ids=lambda each: each[0]
)
def test_runs_in_other_processes(launcher: list[str], tmp_path: Path) -> None:
    """As a process of its own: the launchers leave others, and threads, behind."""
    words = [*TINY, f"data.root={tmp_path / 'shapes'}", "iterations=1", "eval.examples=0", "eval.detailed=false"]
    values = "seed=0,1" if launcher[0] == "joblib" else "seed=0"
    folder = tmp_path / "sweep"
    choice, *more = launcher
    own = tmp_path / "own" / "optimizer"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("defaults: [sgd]\nmomentum: 0.5\n")
    words += ["--config-dir", str(own.parent), "optimizer=mine"]
    words += ["-m", values, f"hydra/launcher={choice}", *more, f"output={folder}"]
    command = [sys.executable, "-m", "segapp", "train", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert all(line.split()[2] == "done" for line in table(done.stdout)[1:])
    runs = [read_run(folder / str(at)) for at in range(len(values.split(",")))]
    assert [run.config["seed"] for run in runs] == list(range(len(runs)))
    assert all(run.finished and run.config["optimizer"]["momentum"] == 0.5 for run in runs)


@pytest.mark.usefixtures("_environment")
def test_tasks_of_a_slurm_job_are_the_processes_of_a_run() -> None:
    for name in JOB:
        os.environ.pop(name, None)
    join_tasks()
    assert not set(JOB) & set(os.environ), "this is no job"
    os.environ |= {
        "SUBMITIT_EXECUTOR": "slurm",
        "SLURM_JOB_ID": "17",
        "SLURM_JOB_NODELIST": "node[3-4]",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_NODEID": "1",
        "SLURM_NTASKS": "4",
        "SLURM_PROCID": "3",
        "SLURM_LOCALID": "1",
    }
    join_tasks()
    wanted = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "node3"}
    assert {name: os.environ[name] for name in wanted} == wanted
    os.environ |= {"SLURM_NTASKS": "1", "SLURM_PROCID": "0", "RANK": "untouched"}
    join_tasks()
    assert os.environ["RANK"] == "untouched", "a single task is a process alone"


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_training_takes_slurms_signals_and_hands_them_on(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Submitit's handler puts the job back into the queue; the signal must reach it after the checkpoint."""
    came: list[int] = []

    def requeue(number: int, frame: FrameType | None) -> None:
        came.append(number)

    before = signal.signal(number, requeue)
    try:
        with stop_request() as stop:
            signal.raise_signal(number)
            assert stop.signal == number
        assert not came
        put_back(number)
        assert not came, "outside of submitit nobody waits for it"
        monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
        put_back(number)
        assert came == ([] if number == signal.SIGTERM else [number]), "SIGTERM is the end: scancel sends it, too"
    finally:
        signal.signal(number, before)
