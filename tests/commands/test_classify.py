"""A classifier from training to predictions, as a person goes, and what is refused on the way."""

import csv
import json
from pathlib import Path

import pytest

from segapp.cli import run_tool
from tests.images import split
from tests.training.test_classifying import TINY

Capture = pytest.CaptureFixture[str]
FEW = ["model.encoder.width=0.25", "iterations=30", "batch_size=8", "validate_every=15"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("classify")
    split(folder / "data")
    assert run_tool("train", [*TINY, *FEW, f"data.root={folder / 'data'}", f"output={folder / 'run'}"]) == 0
    return folder


def test_eval_finds_what_training_found(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    words = [f"checkpoint={trained / 'run'}", "data=image_folder", f"data.root={trained / 'data'}", "device=cpu"]
    assert run_tool("eval", [*words, "workers=0", f"output={tmp_path / 'eval'}"]) == 0
    there, here = (json.loads((each / "metrics.json").read_text()) for each in (trained / "run", tmp_path / "eval"))
    for key in ("top1", "top5", "confusion_matrix", "protocol", "calibration_error"):
        assert here[key] == there[key], key
    assert there["top1"] > 0.6, "three colours"
    assert [path.name for path in sorted((trained / "run" / "pictures").iterdir())] == ["0000015.png", "0000030.png"]
    assert "data:image/jpeg" in (trained / "run" / "run.html").read_text()
    assert capsys.readouterr().out.splitlines()[-1] == f"top-1 {here['top1']:.4f}"
    more = ["inference=resize", "inference.size=48", "inference.share=1", "inference.flip=true"]
    assert run_tool("eval", [*words, "workers=0", *more, f"output={tmp_path / 'other'}"]) == 0
    protocol = json.loads((tmp_path / "other" / "metrics.json").read_text())["protocol"]
    assert protocol.startswith("middle 1 of either side resized to 48 x 48, single scale and the mirror image")


def test_predict_names_classes(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"nothing")
    images = [str(trained / "data" / "val"), str(tmp_path / "broken.jpg")]
    out = tmp_path / "out"
    words = [f"checkpoint={trained / 'run'}", "device=cpu", "save=[json]", f"output={out}"]
    assert run_tool("predict", [*images, *words]) == 1
    shown = capsys.readouterr().out
    assert "12 of 13 images" in shown
    assert "broken.jpg: not an image" in shown
    with (out / "classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 36
    for at in range(0, 36, 3):
        values = [float(row["probability"]) for row in rows[at : at + 3]]
        assert sum(values) == pytest.approx(1, abs=1e-5)
        assert values == sorted(values, reverse=True)
    first = [row for row in rows if row["rank"] == "1"]
    right = sum(Path(row["image"]).parent.name == row["class"] for row in first)
    assert right / 12 == json.loads((trained / "run" / "metrics.json").read_text())["top1"]
    files = [json.loads(path.read_text()) for path in (out / "json").iterdir()]
    found = {
        (file["image"], each["name"], str(rank), each["probability"])
        for file in files
        for rank, each in enumerate(file["classes"], 1)
    }
    assert found == {(row["image"], row["class"], row["rank"], float(row["probability"])) for row in rows}
    assert f"{first[0]['image']}  {first[0]['class']} {float(first[0]['probability']):.3f}, " in shown


def test_a_segmentation_starts_from_it(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    from tests.training.test_training import TINY as SEGMENTS

    encoder = ["model/encoder=mobilenet_v2", "model.encoder.width=0.25", f"encoder_weights={trained / 'run'}"]
    words = [each for each in SEGMENTS if "encoder" not in each]
    more = [f"data.root={tmp_path / 'data'}", "iterations=1", "validate_every=null", f"output={tmp_path / 'run'}"]
    assert run_tool("train", [*words, *encoder, *more]) == 0
    assert "classifier mobilenet_v2 trained on data train #" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=shapes"], "holds a classifier, which data=image_folder scores; training starts from it"),
        (["data=image_folder", "output_stride=8"], "output_stride=8: classifiers have none to choose"),
        (["data=image_folder", "inference=sliding"], "inference.kind=sliding is for segmentation"),
        (["data=image_folder", "table5=true"], "table5 is for segmentation"),
        (["data=image_folder", "eval.classes=[red]"], "eval.classes is for segmentation"),
        (["data=image_folder", "checkpoint=xception65_voc_coco_trainaug"], "segments images; name a classifier"),
        (["data=image_folder", "data.root=/nowhere"], "/nowhere: no such folder; DIR/train/CLASS/"),
    ],
)
def test_mistakes_are_one_line(words: list[str], message: str, trained: Path, tmp_path: Path, capsys: Capture) -> None:
    root = f"data.root={trained / 'data'}" if "image_folder" in words[0] else f"data.root={tmp_path / 'shapes'}"
    small = ["data.train=1", "data.val=1", "data.height=32", "data.width=32"] if "shapes" in words[0] else []
    output = tmp_path / "out"
    given = [words[0], root, *small, *words[1:], f"output={output}"]
    assert run_tool("eval", [f"checkpoint={trained / 'run'}", *given]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert not output.exists()


def test_other_classes_are_named(trained: Path, tmp_path: Path, capsys: Capture) -> None:
    (trained / "data" / "val" / "green").rename(tmp_path / "green")
    try:
        words = [f"checkpoint={trained / 'run'}", "data=image_folder", "device=cpu", "workers=0"]
        assert run_tool("eval", [*words, f"data.root={trained / 'data'}", f"output={tmp_path / 'part'}"]) == 0
        assert json.loads((tmp_path / "part" / "metrics.json").read_text())["images"] == 8
        split(tmp_path / "other")
        (tmp_path / "other" / "val" / "green").rename(tmp_path / "other" / "val" / "violet")
        assert run_tool("eval", [*words, f"data.root={tmp_path / 'other'}", f"output={tmp_path / 'out'}"]) == 2
        assert "only run" not in capsys.readouterr().out
    finally:
        (tmp_path / "green").rename(trained / "data" / "val" / "green")


def test_a_network_that_segments_is_no_classifier(tmp_path: Path, make_checkpoint: object, capsys: Capture) -> None:
    path = make_checkpoint()  # type: ignore[operator]
    split(tmp_path / "data")
    words = [f"checkpoint={path}", "data=image_folder", f"data.root={tmp_path / 'data'}", "device=cpu"]
    assert run_tool("eval", words) == 2
    assert "holds a network for segmentation, not a classifier" in capsys.readouterr().err
