"""Sweeps: which runs they have beside Hydra's own, what is refused before the first, and how they go on."""

import sys
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from segapp.base.paths import CONF
from segapp.cli import run_tool
from segapp.training.trainer import Trainer
from tests.sweeps.runs import Killed, made_up
from tests.training.test_training import TINY

Capture = pytest.CaptureFixture[str]

GRID = ["-m", "optimizer.lr=0.5,0.05", "seed=1,0", "iterations=10"]


def sweep(*arguments: str) -> int:
    return run_tool("train", arguments)


def table(shown: str) -> list[str]:
    """The lines between the table's head and the next empty one."""
    lines = shown.splitlines()
    start = next(at for at, line in enumerate(lines) if line.startswith(("mIoU ", "score ")) and " state" in line)
    return lines[start : lines.index("", start)]


@pytest.mark.parametrize(
    "words",
    [
        ["optimizer.lr=0.1,0.2", "seed=range(0,3)", "iterations=7"],
        ["optimizer=glob([a*,s*])", "batch_size=choice(2,4)"],
        ["experiment=sweeping"],
    ],
    ids=" ".join,
)
def test_the_runs_are_hydras(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own"
    (own / "experiment").mkdir(parents=True)
    text = "# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {seed: '3,4', ema: '0.9,null'}}}\n"
    (own / "experiment" / "sweeping.yaml").write_text(text)
    there: list[list[str]] = []

    def task(config: DictConfig) -> None:
        there.append(list(HydraConfig.get().overrides.task))

    argv = ["train", "--config-dir", str(own), "-m", f"hydra.sweep.dir={tmp_path / 'there'}", *words]
    monkeypatch.setattr(sys, "argv", argv)
    hydra.main(version_base="1.3", config_path=str(CONF), config_name="train")(task)()
    here: list[list[str]] = []

    def main(overrides: list[str]) -> int:
        here.append(overrides[:-3])  # without output=, resume= and hydra.mode=
        return 0

    monkeypatch.setattr("segapp.commands.train.main", main)
    assert sweep("--config-dir", str(own), "-m", f"output={tmp_path / 'here'}", *words) == 1, "which made nothing"
    assert here == there
    assert len(here) in (4, 6)


def test_a_sweep_ends_with_its_runs_by_score(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    made_up(monkeypatch)
    monkeypatch.setenv("SEGAPP_RUNS", str(tmp_path / "my runs"))
    assert sweep(*GRID) == 0
    shown = capsys.readouterr().out
    assert [line.split() for line in table(shown)] == [
        ["mIoU", "run", "state"],
        ["0.9000", "3", "done", "optimizer.lr=0.05", "seed=0"],
        ["0.8900", "2", "done", "optimizer.lr=0.05", "seed=1"],
        ["0.8000", "1", "done", "optimizer.lr=0.5", "seed=0"],
        ["0.7900", "0", "done", "optimizer.lr=0.5", "seed=1"],
    ]
    (folder,) = (tmp_path / "my runs" / "sweep").iterdir()
    assert f"best  {folder}/3, mIoU 0.9000, optimizer.lr=0.05 seed=0\n" in shown
    assert "uv run python tools/train.py optimizer.lr=0.05 seed=0 iterations=20\n" in shown
    page = (folder / "compare.html").read_text()
    differing = page[page.index('id="configs"') :]
    assert "optimizer.lr" in differing
    assert "<th>output</th>" not in differing, "which differs by itself"
    assert (folder / "multirun.yaml").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optimizer.lr=0.1,many"], "run 1 (optimizer.lr=many): optimizer.lr=many: "),
        (["optimizer.lrr=0.1,0.2"], "run 0 (optimizer.lrr=0.1): optimizer.lrr is no key of this config; did you mean"),
        (["seed=0,1", "model/encoder=xception65,resnet"], "run 1 (seed=0 model/encoder=resnet): model/encoder/resnet"),
        (["experiment=demo,dmeo"], "run 1 (experiment=dmeo): experiment/dmeo: no such choice; there are: demo"),
        (["seed=0,-1"], "run 1 (seed=-1): seed=-1: "),
        (
            ["optimizer.lr=interval(0,1)"],
            "BasicSweeper does not support sweep type : INTERVAL_SWEEP; hydra/",
        ),
        (["seed=0,1", "hydra/launcher=jobslib"], "hydra/launcher/jobslib: no such choice; there are: basic, joblib"),
        (["seed=0,1", "hydra/launcher=basic,joblib"], "Sweeping over Hydra's configuration is not supported"),
        (["seed=0,1", "hydra.sweep.subdir=same"], "runs 0 and 1 would have one folder"),
        (["seed=0,1", "resume=auto"], "resume=auto needs output=DIR, the folder of the sweep"),
        (["seed=0,1", "+hydra.launcher.x._target_=os.abort"], "hydra.launcher: a config runs no code here"),
        (["seed=0,1", "+hydra.callbacks.x._target_=os.abort"], "run 0 (seed=0): hydra.callbacks: a config runs no"),
        (["seed=[1"], "cannot read 'seed=[1'"),
    ],
)
def test_nothing_is_begun_where_a_run_cannot_be_made(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    begun = made_up(monkeypatch)
    folder = tmp_path / "sweep"
    assert sweep("-m", *([] if "resume=auto" in words else [f"output={folder}"]), *words) == 2
    shown = capsys.readouterr()
    assert shown.err.splitlines()[-1].startswith(f"error: {message}")
    assert not begun
    assert not folder.exists()
    assert not (tmp_path / "runs").exists()


def test_a_sweep_goes_on_where_it_was_broken_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    deaths = ["1", "3"]

    def die(name: str) -> None:
        if deaths and name == deaths[0]:
            deaths.pop(0)
            raise Killed

    begun = made_up(monkeypatch, die)
    words = [*GRID, f"output={tmp_path / 'sweep'}"]
    for _ in range(2):
        with pytest.raises(Killed):
            sweep(*words, "resume=auto")
    assert sweep(*words, "resume=auto") == 0
    assert begun == ["0", "1", "1", "2", "3", "3"]
    assert [line.split()[:3] for line in table(capsys.readouterr().out)[1:]] == [
        ["0.9000", "3", "done"],
        ["0.8900", "2", "done"],
        ["0.8000", "1", "done"],
        ["0.7900", "0", "done"],
    ]

    assert sweep(*words) == 2
    assert "holds files already; name another folder, or add resume=auto" in capsys.readouterr().err
    assert sweep(*words, "resume=auto", "batch_size=3") == 2
    error = capsys.readouterr().err
    assert "holds a run with another config: batch_size is 16 there and 3 here" in error
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    assert sweep(*GRID, f"output={tmp_path / 'mine'}", "resume=auto") == 2
    assert "holds files, but no sweep" in capsys.readouterr().err


def test_a_run_that_fails_is_named_and_the_others_are_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def fail(name: str) -> None:
        if name == "0":
            raise OSError(2, "no such file", "data")
        if name == "2":
            raise ZeroDivisionError("a bug")

    made_up(monkeypatch, fail)
    assert sweep(*GRID, f"output={tmp_path / 'sweep'}") == 1
    shown = capsys.readouterr()
    assert [line.split()[:3] for line in table(shown.out)[1:]] == [
        ["0.9000", "3", "done"],
        ["0.8000", "1", "done"],
        ["n/a", "0", "failed"],
        ["n/a", "2", "failed"],
    ]
    assert "error: data: no such file" in shown.err
    assert "run 0: failed; optimizer.lr=0.5 seed=1" in shown.err
    assert "ZeroDivisionError: a bug" in shown.err


@pytest.mark.slow
def test_four_runs_killed_twice_end_as_if_they_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    words = [*TINY, f"data.root={tmp_path / 'shapes'}", "iterations=2", "validate_every=2", "save_every=1"]
    words += ["eval.examples=0", "eval.detailed=false", "pictures=0", "schedule.warmup_iterations=0"]
    words += ["-m", "optimizer.lr=0.001,0.3", "seed=0,1"]
    update, updates = Trainer._update, 0

    def count(self: Trainer, batches: Any) -> None:
        nonlocal updates
        updates += 1
        if updates in (4, 8):  # in the second run after its first checkpoint, and in the third, or fourth
            raise Killed
        update(self, batches)

    broken, whole = f"output={tmp_path / 'broken'}", f"output={tmp_path / 'whole'}"
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_update", count)
        for _ in range(2):
            with pytest.raises(Killed):
                sweep(*words, broken, "resume=auto")
        assert sweep(*words, broken, "resume=auto") == 0
    gone_on = table(capsys.readouterr().out)
    assert updates == 4 * 2 + 2, "nothing is trained twice"
    assert sweep(*words, whole) == 0
    assert table(capsys.readouterr().out) == gone_on
    assert len(gone_on) == 5
    for number in range(4):
        last = f"{number}/checkpoints/0000002/weights.safetensors"
        assert (tmp_path / "broken" / last).read_bytes() == (tmp_path / "whole" / last).read_bytes()
