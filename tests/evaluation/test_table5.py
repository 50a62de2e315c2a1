"""The grid of Table 5 against the single evaluations of its cells, and the paper's multiply-adds."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from segapp.cli import run_tool
from segapp.evaluation.table5 import MIRRORED, SCALES, SINGLE, multiply_adds
from tests.networks import config

Make = Callable[..., Path]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stride", "setting", "billions"), [(16, SINGLE, 54.17), (8, SINGLE, 177.10), (8, MIRRORED, 3055.35)]
)
def test_multiply_adds_are_the_papers(stride: int, setting: object, billions: float) -> None:
    with torch.device("meta"):
        model = config(output_stride=stride).build(21)
    assert setting in (SINGLE, MIRRORED)
    assert multiply_adds(model, 513, setting) / 1e9 == pytest.approx(billions, rel=0.01)


def run(root: Path, checkpoint: Path, output: Path, *overrides: str) -> int:
    options = ["data=voc2012", "device=cpu", "workers=0", "eval.batch_size=3", "eval.examples=0"]
    options += [f"data.root={root}", f"checkpoint={checkpoint}", f"output={output}"]
    return run_tool("eval", [*options, *overrides])


@pytest.mark.slow
def test_cells_are_single_evaluations(
    shapes_root: Path, make_checkpoint: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = make_checkpoint(classes=tuple(map(str, range(21))))
    assert run(shapes_root, checkpoint, tmp_path / "grid", "table5=true") == 0
    grid = json.loads((tmp_path / "grid" / "table5.json").read_text())
    assert [(cell["output_stride"], cell["setting"]) for cell in grid["cells"]] == [
        (16, "single scale"),
        (16, "six scales, mirrored"),
        (8, "single scale"),
        (8, "six scales"),
        (8, "six scales, mirrored"),
    ]
    assert "+ COCO" in capsys.readouterr().out
    cell = grid["cells"][3]
    scales = f"inference.scales={list(SCALES.scales)}".replace(" ", "")
    assert run(shapes_root, checkpoint, tmp_path / "one", "output_stride=8", scales) == 0
    one = json.loads((tmp_path / "one" / "metrics.json").read_text())
    assert cell["miou"] == one["miou"]
    assert cell["protocol"] == one["protocol"]
    assert cell["paper"] is None
    assert grid["cells"][4]["paper_coco"] == 0.8358
    assert "| 8 | six scales |" in (tmp_path / "grid" / "table5.md").read_text()


@pytest.mark.slow
def test_other_data_are_not_held_against_the_paper(
    shapes_root: Path, make_checkpoint: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = make_checkpoint(classes=tuple(map(str, range(21))))
    assert run(shapes_root, checkpoint, tmp_path / "grid", "table5=true", "data.val=train") == 0
    grid = json.loads((tmp_path / "grid" / "table5.json").read_text())
    assert all(cell["paper"] is None for cell in grid["cells"])
    assert "paper" not in capsys.readouterr().out
    lines = (tmp_path / "grid" / "table5.md").read_text().splitlines()
    assert {line.count("|") for line in lines if line.startswith("|")} == {5}


@pytest.mark.parametrize("mistake", ["output_stride=8", "predictions=.", "inference=sliding"])
def test_mistakes(
    mistake: str, shapes_root: Path, make_checkpoint: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = make_checkpoint(classes=tuple(map(str, range(21))))
    assert run(shapes_root, checkpoint, tmp_path / "grid", "table5=true", mistake) == 2
    assert "table5=true" in capsys.readouterr().err
