"""Training, evaluation and prediction one after another, as a person runs them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.commands.tools import evaluate, run_predict, train
from tests.training.test_training import TINY


def miou_of_masks(folder: Path, root: Path) -> float:
    """Counted pixel by pixel from the saved files: what the tools are held against."""
    intersection, union = np.zeros(21), np.zeros(21)
    for id in (root / "ImageSets" / "Segmentation" / "val.txt").read_text().split():
        with Image.open(root / "SegmentationClass" / f"{id}.png") as mask, Image.open(folder / f"{id}.png") as saved:
            truth, prediction = np.array(mask), np.array(saved)
        for index in range(21):
            hit = (truth == index) & (prediction == index)
            either = ((truth == index) | (prediction == index)) & (truth != 255)
            intersection[index] += hit.sum()
            union[index] += either.sum()
    return float(np.mean(intersection[union > 0] / union[union > 0]))


def test_train_eval_predict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The whole way, and one figure at its end: training's, eval's, predict's and the masks' mIoU agree."""
    run, data = tmp_path / "runs" / "train" / "tiny", tmp_path / "data"
    overrides = [*TINY, "iterations=4", "validate_every=2", "colour_baseline=true"]
    assert train(*overrides, f"data.root={data}", f"output={run}") == 0
    shown = capsys.readouterr().out
    assert "colour table mIoU 0." in shown
    assert "python tools/predict.py" in shown
    for name in ("config.yaml", "log.txt", "metrics.jsonl", "best.safetensors", "run.html"):
        assert (run / name).is_file(), name
    assert list((run / "tensorboard").iterdir())
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [record["iteration"] for record in records if "loss" in record] == [1, 2, 3, 4]
    assert [record["iteration"] for record in records if "miou" in record] == [2, 4]
    trained = json.loads((run / "metrics.json").read_text())
    assert trained["miou"] == max(record["miou"] for record in records if "miou" in record)
    with Image.open(run / "pictures.png") as pictures:
        assert pictures.width > 100
    assert f"{trained['miou']:.4f}" in (run / "report.html").read_text()

    (root,) = data.iterdir()
    out = tmp_path / "eval"
    shapes = ["data=shapes", *[option for option in TINY if option.startswith("data.")], f"data.root={data}"]
    assert evaluate(*shapes, "checkpoint=latest", f"output={out}", "eval.classes=[background,disc]") == 0
    scored = json.loads((out / "metrics.json").read_text())
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == f"mIoU {scored['miou']:.4f}"
    assert f"scoring {run / 'best.safetensors'}" in captured.err, "latest is named"
    assert scored["miou"] == trained["miou"]
    assert scored["confusion_matrix"] == trained["confusion_matrix"]
    assert scored["images"] == 4
    two = [scored["per_class_iou"][name] for name in ("background", "disc")]
    assert scored["selected"]["miou"] == pytest.approx(np.mean([iou for iou in two if iou is not None]))

    predicted = tmp_path / "predicted"
    val = [root / "JPEGImages" / f"{id}.jpg" for id in (root / "ImageSets/Segmentation/val.txt").read_text().split()]
    assert run_predict(*val, f"checkpoint={run}", f"output={predicted}", f"labels={root / 'SegmentationClass'}") == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"mIoU {scored['miou']:.4f}"
    assert miou_of_masks(predicted / "masks", root) == pytest.approx(scored["miou"], abs=1e-9)

    assert evaluate(*shapes, f"predictions={predicted / 'masks'}", f"output={tmp_path / 'masks'}") == 0
    again = json.loads((tmp_path / "masks" / "metrics.json").read_text())
    assert again["confusion_matrix"] == scored["confusion_matrix"]
    assert again["protocol"] == "saved masks"
