"""Hydra's flags beside Hydra's own: an app of three lines over the same configs must show the same."""

import sys
from collections.abc import Callable
from pathlib import Path

import hydra
import pytest
from omegaconf import DictConfig

from segapp.base.paths import CONF
from segapp.cli import main, run_tool

Capture = pytest.CaptureFixture[str]


def hydras_own(arguments: list[str], monkeypatch: pytest.MonkeyPatch, name: str = "train") -> None:
    """What @hydra.main prints."""

    def task(config: DictConfig) -> None:
        raise AssertionError("nothing is to be run")

    task.__module__ = f"segapp.commands.{name}"  # from which Hydra takes the program's name
    monkeypatch.setattr(sys, "argv", ["train", *arguments])
    app: Callable[[], None] = hydra.main(version_base="1.3", config_path=str(CONF), config_name=name)(task)
    app()


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A user's own configs: an experiment, a data set, an encoder, an optimizer, a tool's config."""
    folder = tmp_path / "my configs"
    files = {
        "experiment/mine.yaml": "# @package _global_\ndefaults:\n  - override /data: mine\n"
        "  - override /model/encoder: mine\nbatch_size: 3\n",
        "data/mine.yaml": "defaults: [folder]\nroot: /my/data\n",
        "model/encoder/mine.yaml": "defaults: [xception41]\nwidth: 0.25\n",
        "site/ours.yaml": "# @package _global_\nworkers: 0\n",
        "optimizer/mine.yaml": "defaults: [sgd]\nlr: 0.125\n",
        "mine_train.yaml": "defaults: [train, _self_]\niterations: 77\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ["--cfg", "job"],
        ["-c", "hydra", "hydra/launcher=basic"],
        ["--cfg", "all", "--resolve", "optimizer.lr=0.1", "-p", "data"],
        ["--cfg", "job", "--package", "optimizer"],
        ["--cfg", "job", "-p", "optimizer.lr", "optimizer=adamw"],
        ["--info", "defaults-tree", "optimizer=adamw"],
        ["--info", "defaults"],
        ["--info", "config"],
        ["--info", "searchpath", "--config-dir", "MINE"],
        ["--config-dir", "MINE", "--cfg", "job", "experiment=mine", "optimizer=mine"],
        ["--config-dir", "MINE", "--config-name", "mine_train", "--cfg", "job", "-p", "iterations"],
        ["--shell-completion", "install=bash"],
        ["-sc", "uninstall=bash"],
        ["-sc", "query=bash"],
    ],
    ids=" ".join,
)
def test_what_is_shown_is_hydras(
    arguments: list[str], mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    arguments = [str(mine) if each == "MINE" else each for each in arguments]
    monkeypatch.setenv("COMP_LINE", "train optimizer=a")
    hydras_own(arguments, monkeypatch)
    expected = capsys.readouterr().out
    assert expected
    assert run_tool("train", arguments) == 0
    shown = capsys.readouterr()
    assert shown.out == expected
    assert not shown.err


def test_words_of_ours_are_shown_as_hydra_would_read_them_quoted(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    hydras_own(["--cfg", "job", "--package", "output", "output='a, (b)'"], monkeypatch)
    expected = capsys.readouterr().out
    assert run_tool("train", ["--cfg", "job", "--package", "output", "output=a, (b)"]) == 0
    assert capsys.readouterr().out == expected == "a, (b)\n"


def test_own_configs_are_listed_and_checked(mine: Path, capsys: Capture) -> None:
    assert run_tool("train", ["--help", "--config-dir", str(mine)]) == 0
    shown = capsys.readouterr().out
    assert "python tools/train.py experiment=demo" in shown
    for group in ("experiment", "data", "model/encoder", "optimizer"):
        (line,) = (each for each in shown.splitlines() if each.startswith(f"  {group}="))
        assert "mine" in line.split("=")[1].split("|")
    assert "  +site=ours\n" in shown
    assert run_tool("train", ["--config-dir", str(mine), "+site=ours", "--cfg", "job", "-p", "workers"]) == 0
    assert capsys.readouterr().out == "0\n"
    (mine / "optimizer" / "mine.yaml").write_text("defaults: [sgd]\nlrr: 1\n")
    assert run_tool("train", ["--config-dir", str(mine), "optimizer=mine", "--cfg", "job"]) == 2
    assert capsys.readouterr().err == ("error: optimizer.lrr is no key of this config; did you mean optimizer.lr?\n")
    assert run_tool("train", ["--config-dir", str(mine), "optimizer=mien"]) == 2
    assert "optimizer/mien: no such choice; there are: adamw, mine, " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("train", ["--cfg", "jobs"], "argument --cfg/-c: invalid choice: 'jobs'"),
        ("train", ["--cfg"], "argument --cfg/-c: expected one argument"),
        ("train", ["--cfg", "job", "iteration=5"], "iteration is no key of this config; did you mean iterations?"),
        ("train", ["--cfg", "job", "batch_size=0"], "batch_size=0: "),
        ("train", ["--cfg", "job", "--package", "optimiser"], "package 'optimiser' not found in config"),
        ("train", ["--cfg", "job", "--info"], "--cfg, --info: only one of these can be given"),
        ("train", ["--cfg", "job", "resume=runs/x"], "--cfg: resume=runs/x takes the config of that run"),
        ("train", ["-m", "resume=runs/x"], "resume=runs/x: a sweep goes on with --multirun resume=auto"),
        ("train", ["--resolve"], "--resolve goes with --cfg job"),
        ("train", ["--config-dir", "/nowhere/at/all"], "--config-dir /nowhere/at/all: no such folder"),
        ("train", ["--config-path", "/x"], "--config-path: the project's configs are always read"),
        ("train", ["--config-name", "trian"], "trian: no such choice; there are: "),
        ("train", ["--verbose"], "--verbose: options are written key=value"),
        ("train", ["--shell-completion", "install=tcsh"], "--shell-completion: No completion plugin for 'tcsh'"),
        ("train", ["--shell-completion"], "--shell-completion: Expecting one subcommand"),
        ("train", ["+hydra.callbacks.x._target_=os.abort"], "hydra.callbacks: a config runs no code here"),
        ("train", ["hydra.run.dir=x"], "hydra.run.dir: the folder of a run is named by output=DIR"),
        ("train", ["optimizer.lr=1,2"], "Ambiguous value for argument 'optimizer.lr=1,2'; a list stands in brackets"),
        ("eval", ["-m"], "--multirun: eval does one thing at a time"),
        ("zoo", ["--cfg", "job", "list"], "--cfg: zoo has no config"),
    ],
)
def test_mistakes_are_one_line(tool: str, arguments: list[str], message: str, capsys: Capture) -> None:
    assert run_tool(tool, arguments) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"error: {message}")
    assert shown.err.count("\n") == 1
    assert not shown.out


def test_flags_of_other_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Among images, a file whose name begins as a flag does, and a tool of several configs."""
    monkeypatch.chdir(tmp_path)
    Path("--cfg.png").touch()
    assert run_tool("predict", ["--cfg.png", "--cfg", "job", "-p", "save"]) == 0
    assert "# @package save" in capsys.readouterr().out
    assert run_tool("prepare_data", ["check", "--cfg", "job", "data=folder", "-p", "data.name"]) == 0
    assert capsys.readouterr().out == "folder\n"


def test_the_shell_completes_the_programs_tools(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    for line, expected in [
        ("segapp pre", "predict\nprepare_data"),
        ("segapp train optimizer=", "optimizer=adamw optimizer=rmsprop optimizer=sgd"),
    ]:
        monkeypatch.setenv("COMP_LINE", line)
        assert main(["-sc", "query=bash"]) == 0
        assert expected in capsys.readouterr().out
