"""The export tool: what it says and leaves, and what it refuses before any work."""

import re
from pathlib import Path

import numpy as np
import pytest

from segapp.base.images import write_image
from segapp.cli import run_tool
from segapp.data.formats.shapes import SHAPES_CLASSES
from segapp.models.encoders.interface import INCEPTION
from segapp.weights.checkpoint import CheckpointInfo, save_checkpoint
from tests.commands.tools import run_predict
from tests.networks import randomise, small

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    network = small(encoder={"name": "alexnet", "width": 0.125})
    model = network.build(len(SHAPES_CLASSES))
    randomise(model)
    info = CheckpointInfo(
        network=network, classes=SHAPES_CLASSES, normalization=INCEPTION, canvas=65, trained_on=("none",)
    )
    save_checkpoint(tmp_path / "small.safetensors", model, info)
    return tmp_path / "small.safetensors"


def test_export_compares_and_predict_takes_it(checkpoint: Path, tmp_path: Path, capsys: Capture) -> None:
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name, np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8))
    assert run_tool("export", [str(tmp_path / "a.png"), f"checkpoint={checkpoint}", "format=torch"]) == 0
    told = capsys.readouterr().out
    (file,) = (tmp_path / "runs" / "export").glob("*_small/small.pt2")
    assert str(file) in told
    assert "beside the original in float32, on 1 images:" in told
    assert "pixels that change            0.0000%" in told
    for source, folder in ((checkpoint, "torch"), (file, "exported")):
        assert run_predict(tmp_path / "b.png", f"checkpoint={source}", f"output={tmp_path / folder}") == 0
    masks = [(tmp_path / folder / "masks" / "b.png").read_bytes() for folder in ("torch", "exported")]
    assert masks[0] == masks[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["output=net.xml"], "output=net.xml: a file of format=onnx ends in .onnx"),
        (["format=torch", "precision=int8"], "precision=int8 is for format=onnx and format=openvino"),
        (["precision=int8"], "name some"),
        (["size=64"], "size=64 is not k * output_stride + 1 at output stride 16; take 65"),
        (["format=onnxx"], "format=onnxx"),
        (["nowhere.jpg"], "nowhere.jpg: no such file or folder"),
        (["checkpoint=small.onnx"], "no such checkpoint"),
    ],
)
def test_what_cannot_be_is_told_in_a_line(
    arguments: list[str], message: str, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(checkpoint.parent)
    assert run_tool("export", [f"checkpoint={checkpoint}", *arguments]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.count("\n") == 1
    assert {path.name for path in checkpoint.parent.iterdir()} <= {"small.safetensors", "runs"}


@pytest.mark.parametrize(("kind", "library"), [("torch", "torch"), ("onnx", "onnxruntime"), ("openvino", "openvino")])
def test_with_data_both_are_scored(kind: str, library: str, checkpoint: Path, capsys: Capture) -> None:
    pytest.importorskip(library)
    data = ["data=shapes", "data.train=1", "data.val=3", "data.height=48", "data.width=60"]
    assert run_tool("export", [f"checkpoint={checkpoint}", f"format={kind}", *data]) == 0
    told = capsys.readouterr().out
    (original,) = re.findall(r"mIoU of the original +(\S+)", told)
    (exported,) = re.findall(r"mIoU of the exported +(\S+)", told)
    assert original == exported, "the same weights"
    assert "+0.0000, 95 % interval +0.0000 to +0.0000" in told
