"""Which runs tools/compare.py takes, and what it says of mistakes."""

import os
from pathlib import Path

import pytest

from segapp.base.compose import read_config
from segapp.base.paths import runs_folder
from segapp.commands.compare import CompareConfig
from segapp.reports.compare import MOST
from tests.pages import Page
from tests.reports.test_compare import compare_runs
from tests.training_runs import LINES, START, make_run

Capture = pytest.CaptureFixture[str]


def test_globs_latest_and_runs_named_twice(tmp_path: Path, capsys: Capture) -> None:
    base = runs_folder() / "train"
    for age, name in enumerate(("one", "two", "three")):
        make_run(base / name)
        os.utime(base / name / "metrics.jsonl", (START - age, START - age))
    (base / "notes").mkdir()
    assert compare_runs(base / "t*", "latest", base / "two", f"output={tmp_path / 'c.html'}") == 0
    assert [row[0] for row in Page(tmp_path / "c.html").tables["runs"][1:]] == ["Athree", "Btwo", "Cone"]
    capsys.readouterr()
    assert compare_runs(base / "*") == 0, "a glob leaves out what is no run"
    (page,) = runs_folder().glob("compare/*_one/compare.html")
    assert capsys.readouterr().out == f"page  {page}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no run is named; name two or more: python tools/compare.py "),
        (["a"], "a is one run; name two or more"),
        (["a", "./a"], "a is one run; name two or more"),
        (["a", "nothing"], "nothing: no such run"),
        (["a", "n*"], "n*: no such run"),
        (["a", "empty"], "empty: no run's folder, which holds metrics.jsonl"),
        (["a", "more"], "more: no run's folder, which holds metrics.jsonl; try more/*"),
        (["a", "a/config.yaml"], "a/config.yaml: no run's folder"),
        (["a", "latest"], "no run yet under "),
        (["a", "b", "outptu=x.html"], "outptu is no key of this config; did you mean output?"),
        (["a", "b", "output=x"], "output=x: a file that ends in .html is written"),
        (["a", "b", "output=a/config.yaml/x.html"], "cannot write to a/config.yaml"),
        (["more/*"], f"{MOST + 1} runs are named; {MOST} fit on one page"),
        (["--all"], "--all: options are written key=value"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", *(f"more/{number}" for number in range(MOST + 1))):
        make_run(tmp_path / name, LINES[:1])
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert compare_runs(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")
    assert sorted(tmp_path.rglob("*")) == before


def test_the_config_composes() -> None:
    assert read_config("compare", [], CompareConfig).output is None
