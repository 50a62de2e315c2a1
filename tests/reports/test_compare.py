"""The comparison of runs, from folders made by hand."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segapp.cli import run_tool
from segapp.reports.compare import MOST, differences, names_apart, write_comparison
from segapp.runs.history import read_run
from tests.pages import EVIL, Classed, assert_nothing_injected, assert_self_contained
from tests.training_runs import LINES, START, make_run, train_line, val_line

Capture = pytest.CaptureFixture[str]


def compare_runs(*arguments: object) -> int:
    return run_tool("compare", list(map(str, arguments)))


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    """A, as above; B, with an hour's pause, classes of its own and a config that differs in three keys."""
    base = {"name": "x", "iterations": 60, "optimizer": {"lr": 0.01, "power": 0.9}, "splits": ["a", "b"]}
    transforms = {"train": [{"Flip": {"p": 0.5}}, {"Crop": {"height": 65}}]}
    other = {"train": [{"Flip": {"p": 0.5}}, {"Crop": {"height": 129}}]}
    lines = [
        train_line(10, 0, 4.0, images_per_second=40.0),
        train_line(20, 5, 2.0, images_per_second=50.0),
        train_line(30, 4000, 3.0, images_per_second=60.0),
        val_line(30, 4020, 0.5, {"road": 0.75, "sky": 0.25}),
    ]
    return [
        make_run(tmp_path / "a", config=base | {"transform": transforms}, environment={"device": "cpu"}),
        make_run(
            tmp_path / "b",
            lines,
            config=base | {"transform": other, "optimizer": {"lr": 0.02, "power": 0.9}, "seed": None},
            environment={"device": "cuda", "parameters": 41055413},
        ),
    ]


@pytest.mark.parametrize(
    ("other", "unlike"),
    [
        ({"data": {"val": "val", "train": "trainaug", "root": "/elsewhere"}}, []),
        ({"data": {"val": "minival"}}, ["data.val"]),
        (
            {"inference": {"scales": [0.5, 1.0]}, "model": {"output_stride": 8}},
            ["inference.scales", "model.output_stride"],
        ),
    ],
)
def test_runs_scored_differently_are_not_compared_silently(
    other: dict[str, Any], unlike: list[str], tmp_path: Path, capsys: Capture
) -> None:
    base = {"data": {"val": "val", "train": "train"}, "inference": {"scales": [1.0]}, "model": {"output_stride": 16}}
    make_run(tmp_path / "a", config=base)
    make_run(tmp_path / "b", config={key: value | other.get(key, {}) for key, value in base.items()})
    output = tmp_path / "c.html"
    assert compare_runs(tmp_path / "a", tmp_path / "b", f"output={output}") == 0
    page, told = output.read_text(), capsys.readouterr().err
    assert ("Not scored alike" in page) == bool(unlike)
    assert ("not scored alike: they differ in " + ", ".join(unlike) in told) == bool(unlike)
    assert not unlike or f"The runs differ in {', '.join(unlike)}:" in page


def test_comparison_figures_are_the_hand_worked_ones(two: list[Path], tmp_path: Path, capsys: Capture) -> None:
    output = tmp_path / "new" / "c=1.html"
    assert compare_runs(*two, f"output={output}") == 0
    assert capsys.readouterr().out == f"page  {output}\n"
    page = Classed(output)
    rows = [[cell.replace("\N{NO-BREAK SPACE}", " ") for cell in row] for row in page.tables["runs"]]
    assert rows == [
        ["Run", "Best mIoU", "to A", "at", "Iterations", "Time trained", "Images/s", "Parameters"],
        ["Aa", "0.4750EMA", "", "40", "60", "1 min 30 s", "22", "n/a"],
        ["Bb", "0.5000", "+0.0250", "30", "30of 60", "35 s", "50", "41,055,413"],
    ]
    assert page.texts["value"][0] == "0.5000"
    assert page.tables["iou"] == [
        ["Class", "A", "B"],
        ["road", "70.00%", "75.00%+5.00"],  # of A at iteration 40
        ["tree", "20.00%", "n/a"],
        ["rare", "n/a", "n/a"],
        ["sky", "n/a", "25.00%"],
    ]
    assert page.tables["configs"] == [
        ["Key", "A", "B"],
        ["optimizer.lr", "0.01", "0.02"],
        ["transform.train.1.Crop.height", "65", "129"],
        ["seed", "absent", "null"],
    ]
    assert page.tables["environments"][1:] == [["device", "cpu", "cuda"], ["parameters", "absent", "41055413"]]
    assert_self_contained(page)
    curves = page.curves()
    assert list(curves) == [
        f"{title} by {x}" for title in ("Loss", "mIoU", "mIoU of the EMA") for x in ("iteration", "seconds trained")
    ]
    *_, last = curves["mIoU by seconds trained"]
    assert np.array(last) == pytest.approx(np.array([[35, 0.5]]), rel=2e-3)
    assert [x for x, _ in curves["mIoU by seconds trained"][0]] == pytest.approx([30, 60, 90], abs=0.2)
    assert [y for _, y in curves["Loss by iteration"][1]] == pytest.approx([4, 2, 3], abs=0.01), "as logged, too"


def test_everything_is_escaped(tmp_path: Path) -> None:
    lines = [train_line(10, 0, 1.0), val_line(10, 1, 0.5, {EVIL: 0.5}, **{EVIL: 1.0})]
    folders = [
        make_run(tmp_path / name, lines, config={EVIL: EVIL, "x": name}, environment={EVIL: EVIL, "y": name})
        for name in ('<b onclick="x">', "other")
    ]
    assert compare_runs(*folders, f"output={tmp_path / 'c.html'}") == 0
    page = Classed(tmp_path / "c.html")
    assert_nothing_injected(page)
    assert_self_contained(page)
    assert page.tables["iou"][1][0] == EVIL
    assert page.tables["configs"][1:] == [["x", '<b onclick="x">', "other"]]


def test_time_has_the_unit_that_fits(tmp_path: Path) -> None:
    """Three times 30 minutes, and three times 30 hours."""
    for factor, unit in ((60, "minutes"), (3600, "hours")):
        lines = [{**line, "time": START + factor * (line["time"] - START)} for line in LINES]
        folders = [make_run(tmp_path / unit / name, lines) for name in "ab"]
        assert compare_runs(*folders, f"output={tmp_path / unit / 'c.html'}") == 0
        curve = Classed(tmp_path / unit / "c.html").curves()[f"mIoU by {unit} trained"][1]
        assert [x for x, _ in curve] == pytest.approx([30, 60, 90], abs=0.2)


def test_differences_are_exact() -> None:
    one = {"a": 1, "b": {"c": [1, 2], "d": None}, "same": "x", "e": {}, "f": "1"}
    other = {"a": 1, "b": {"c": [1, 3], "d": None}, "same": "x", "e": {"g": True}, "f": 2, "h": 1.5}
    assert differences([one, other]) == {
        "b.c": ["[1, 2]", "[1, 3]"],
        "e": ["{}", None],
        "f": ["1", "2"],
        "e.g": [None, "true"],
        "h": [None, "1.5"],
    }
    assert differences([one, one, one]) == {}
    assert differences([{}, {}]) == {}


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [read_run(make_run(tmp_path / place)) for place in ("x/1/run", "y/1/run", "y/2/run")]
    assert names_apart(runs) == ["x/1/run", "y/1/run", "y/2/run"]
    assert names_apart(runs[1:]) == ["1/run", "2/run"]
    assert names_apart([runs[0], read_run(make_run(tmp_path / "z"))]) == ["run", "z"]


def test_as_many_as_fit_have_lines_of_their_own(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / f"run {number:02}") for number in range(MOST)]
    make_run(folders[3], [])
    assert compare_runs(*folders, f"output={tmp_path / 'c.html'}") == 0
    page = Classed(tmp_path / "c.html")
    samples = {attributes.get("class") or "" for tag, attributes in page.tags if tag == "svg"}
    assert len({each for each in samples if each.startswith("sample")}) == MOST
    assert page.tables["runs"][4][:2] == ["Drun 03", "n/a"]
    assert len(page.curves()["mIoU by iteration"]) == MOST - 1
    assert "No key differs" in page.text


def test_runs_of_before_and_of_now_have_their_parameters(tmp_path: Path) -> None:
    """Once they were written as text with commas."""
    folders = [
        make_run(tmp_path / name, environment={"parameters": parameters})
        for name, parameters in (("a", "41,055,413"), ("b", 41_055_413), ("c", "many"))
    ]
    assert compare_runs(*folders, f"output={tmp_path / 'c.html'}") == 0
    rows = Classed(tmp_path / "c.html").tables["runs"][1:]
    assert [row[-1] for row in rows] == ["41,055,413", "41,055,413", "n/a"]


def test_runs_of_another_metric_than_miou(tmp_path: Path) -> None:
    lines = [{key.replace("miou", "top1"): value for key, value in line.items()} for line in LINES]
    environment = {"metric": "top1", "metric_title": "Top-1 accuracy"}
    folders = [make_run(tmp_path / name, lines, environment=environment) for name in "ab"]
    assert compare_runs(*folders, f"output={tmp_path / 'c.html'}") == 0
    page = Classed(tmp_path / "c.html")
    assert page.tables["runs"][0][1] == "Best Top-1 accuracy"
    assert [row[1:3] for row in page.tables["runs"][1:]] == [["0.4750EMA", ""], ["0.4750EMA", "+0.0000"]]
    assert {"Top-1 accuracy by iteration", "Top-1 accuracy of the EMA by iteration"} <= set(page.curves())
    assert "mIoU" not in page.text


def test_runs_judged_by_different_metrics_are_not_compared_silently(tmp_path: Path, capsys: Capture) -> None:
    lines = [{key.replace("miou", "top1"): value for key, value in line.items()} for line in LINES]
    folders = [
        make_run(tmp_path / "a"),
        make_run(tmp_path / "b", lines, environment={"metric": "top1", "metric_title": "Top-1 accuracy"}),
    ]
    assert compare_runs(*folders, f"output={tmp_path / 'c.html'}") == 0
    assert "not scored alike: they differ in metric" in capsys.readouterr().err
    page = Classed(tmp_path / "c.html")
    assert "The runs differ in metric:" in page.source
    assert page.tables["runs"][0][1] == "Best score"
    assert [row[1:3] for row in page.tables["runs"][1:]] == [["0.4750EMA", ""], ["0.4750EMA", ""]]
    assert {"mIoU by iteration", "Top-1 accuracy by iteration"} <= set(page.curves())


def test_of_many_runs_the_first_are_shown(tmp_path: Path) -> None:
    runs = [
        read_run(make_run(tmp_path / f"run{at}", config={"seed": at, "output": str(at)})) for at in range(MOST + 2)
    ]
    write_comparison(tmp_path / "page.html", runs, {})
    page = (tmp_path / "page.html").read_text()
    assert f"the best {MOST} of {MOST + 2} runs" in page
    assert f"run{MOST - 1}<" in page
    assert f"run{MOST}<" not in page
    assert ">seed</th>" in page
    assert ">output</th>" not in page, "which differs by itself"
