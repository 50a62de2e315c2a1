"""The three tools as a person runs them, on tiny data: what they leave, what they say, how they end."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from segapp.base.classes import VOC_CLASSES, voc_palette
from segapp.base.images import write_image, write_mask
from segapp.benchmarks.loading import PEERS
from segapp.cli import run_tool
from segapp.data.formats.shapes import SHAPES_CLASSES
from segapp.data.formats.voc import voc_layout
from tests.training.test_training import TINY

PROJECT = Path(__file__).parent.parent.parent
Make = Callable[..., Path]
Capture = pytest.CaptureFixture[str]

EVAL = ["data=voc2012", "device=cpu", "workers=0", "inference.canvas=65", "eval.batch_size=3", "eval.examples=3"]
PREDICT = ["device=cpu", "inference.canvas=65"]


def train(*overrides: str) -> int:
    return run_tool("train", overrides)


def evaluate(*overrides: str) -> int:
    return run_tool("eval", [*EVAL, *overrides])


def run_predict(*arguments: object) -> int:
    return run_tool("predict", [*map(str, arguments), *PREDICT])


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


def test_train_eval_predict(tmp_path: Path, capsys: Capture) -> None:
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


def test_train_refuses_a_used_folder_and_bad_labels(shapes_root: Path, tmp_path: Path, capsys: Capture) -> None:
    for mine in ("thesis.txt", "config.yaml"):
        used = tmp_path / f"used {mine}"
        used.mkdir()
        (used / mine).touch()
        assert train(*TINY, f"output={used}") == 2
        assert "holds files already" in capsys.readouterr().err
        assert [path.name for path in used.iterdir()] == [mine]

    root = tmp_path / "VOC2012"
    root.mkdir()
    for name in ("JPEGImages", "ImageSets"):
        (root / name).symlink_to(shapes_root / name)
    (root / "SegmentationClass").mkdir()
    for mask in (shapes_root / "SegmentationClass").iterdir():
        (root / "SegmentationClass" / mask.name).write_bytes(mask.read_bytes())
    write_mask(root / "SegmentationClass" / "000003.png", np.full((64, 64), 77, np.uint8), voc_palette())
    options = [option for option in TINY if not option.startswith("data.")]
    assert train(*options, "data=voc2012", f"data.root={root}", "data.train=train", f"output={tmp_path / 'run'}") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert "000003.png: label value 77 is outside the 21 classes" in error
    assert not (tmp_path / "run" / "metrics.jsonl").exists(), "told before training starts"


@pytest.fixture
def voc_checkpoint(make_checkpoint: Make) -> Path:
    return make_checkpoint("voc.safetensors", VOC_CLASSES)


@pytest.fixture
def damaged_root(shapes_root: Path, tmp_path: Path) -> Path:
    """The set with one truncated image."""
    root = tmp_path / "damaged"
    (root / "JPEGImages").mkdir(parents=True)
    for name in ("SegmentationClass", "ImageSets"):
        (root / name).symlink_to(shapes_root / name)
    for image in (shapes_root / "JPEGImages").iterdir():
        content = image.read_bytes()
        half = len(content) // 2 if image.stem == "000009" else None
        (root / "JPEGImages" / image.name).write_bytes(content[:half])
    return root


def test_eval_scores_the_rest_and_is_marked(
    damaged_root: Path, voc_checkpoint: Path, tmp_path: Path, capsys: Capture
) -> None:
    out = tmp_path / "eval"
    assert evaluate(f"data.root={damaged_root}", f"checkpoint={voc_checkpoint}", f"output={out}") == 1
    shown = capsys.readouterr().out
    assert "000009.jpg: truncated or damaged" in shown
    assert shown.splitlines()[-1].endswith("(incomplete: 1 not scored)")
    scored = json.loads((out / "metrics.json").read_text())
    assert (scored["images"], scored["complete"], len(scored["problems"])) == (3, False, 1)
    page = (out / "report.html").read_text()
    assert "incomplete" in page.lower()
    assert "000009.jpg" in page


def test_eval_of_masks_lists_what_is_missing_or_wrong(shapes_root: Path, tmp_path: Path, capsys: Capture) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    write_mask(masks / "000008.png", np.zeros((64, 64), np.uint8), voc_palette())
    write_mask(masks / "000009.png", np.zeros((32, 64), np.uint8), voc_palette())
    write_mask(masks / "000010.png", np.full((64, 64), 255, np.uint8), voc_palette())
    assert evaluate(f"data.root={shapes_root}", f"predictions={masks}", f"output={tmp_path / 'out'}") == 1
    shown = capsys.readouterr().out
    assert "000009.png: the mask is 64 x 32, its image 64 x 64" in shown
    assert "000010.png: value 255 is outside the 21 classes" in shown
    assert "000011.png: no such file" in shown
    assert "(incomplete: 3 not scored)" in shown


def test_masks_of_the_wrong_folder_are_one_line(shapes_root: Path, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "predicted" / "masks").mkdir(parents=True)
    for folder, message in (
        ("predicted", "the masks are in"),
        ("predicted/masks", "none of 4 images could be scored"),
    ):
        out = tmp_path / "out"
        assert evaluate(f"data.root={shapes_root}", f"predictions={tmp_path / folder}", f"output={out}") == 2
        assert message in capsys.readouterr().err.splitlines()[-1]
        assert not out.exists()


def test_absent_classes_are_left_out_and_named(shapes_root: Path, tmp_path: Path, capsys: Capture) -> None:
    """All masks background: only the shapes' seven indices are in the union of truth and prediction."""
    dataset = voc_layout(shapes_root, "val", VOC_CLASSES, "val")
    masks = tmp_path / "masks"
    masks.mkdir()
    right = total = 0
    present = {0}
    for index in range(len(dataset)):
        label = dataset[index].label
        assert label is not None
        write_mask(masks / f"{dataset.ids[index]}.png", np.zeros_like(label), voc_palette())
        right += int((label == 0).sum())
        total += int((label != 255).sum())
        present |= set(np.unique(label).tolist()) - {255}
    assert evaluate(f"data.root={shapes_root}", f"predictions={masks}", f"output={tmp_path / 'out'}") == 0
    scored = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert scored["miou"] == pytest.approx(right / total / len(present))
    assert scored["absent_classes"] == [name for index, name in enumerate(VOC_CLASSES) if index not in present]
    assert "train" in scored["absent_classes"]
    assert scored["per_class_iou"]["train"] is None
    assert "absent, left out of the mean" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["checkpoint=nowhere.safetensors"], "nowhere.safetensors: no such checkpoint"),
        (["checkpoint=xception65_voc_coco_trainaug", "offline=true"], "offline=true"),
        (["checkpoint=xception65_ade20k"], "xception65_ade20k knows 151 classes, voc2012 val has 21"),
        (["predictions=nowhere"], "nowhere: no such folder of masks"),
        (["data.root=nowhere"], "VOC 2012 is not in nowhere"),
        (["data.val=other"], "no such list; there are: train, trainval, val"),
        (["eval.classes=[unicorn]"], "eval.classes: unicorn is none of background"),
        (["nosuchkey=1"], "nosuchkey is no key of this config"),
    ],
)
def test_eval_mistakes(
    shapes_root: Path, voc_checkpoint: Path, tmp_path: Path, capsys: Capture, overrides: list[str], message: str
) -> None:
    defaults = [f"data.root={shapes_root}", f"checkpoint={voc_checkpoint}", f"output={tmp_path / 'out'}"]
    assert evaluate(*defaults, *overrides) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_eval_with_another_number_of_classes(shapes_root: Path, make_checkpoint: Make, capsys: Capture) -> None:
    assert evaluate(f"data.root={shapes_root}", f"checkpoint={make_checkpoint()}") == 2
    assert "knows 7 classes, voc2012 val has 21" in capsys.readouterr().err


def test_predict_saves_everything(make_checkpoint: Make, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    write_image(tmp_path / "img.png", image)
    out = tmp_path / "out"
    everything = "save=[mask,overlay,probabilities,json]"
    assert run_predict(tmp_path / "img.png", f"checkpoint={make_checkpoint()}", everything, f"output={out}") == 0
    with Image.open(out / "masks" / "img.png") as mask:
        assert mask.mode == "P"
        labels = np.array(mask)
    with Image.open(out / "overlays" / "img.jpg") as shown:
        assert shown.width == 70
        assert shown.height > 50
    with np.load(out / "probabilities" / "img.npz") as saved:
        probabilities, names = saved["probabilities"], saved["classes"]
    assert (probabilities.shape, probabilities.dtype) == ((7, 50, 70), np.float16)
    assert tuple(names) == SHAPES_CLASSES
    top = probabilities.max(0)
    assert (np.take_along_axis(probabilities, labels[None], 0)[0] == top).all()
    described = json.loads((out / "json" / "img.json").read_text())
    assert (described["width"], described["height"]) == (70, 50)
    assert sum(entry["pixels"] for entry in described["classes"]) == 50 * 70
    assert sum(entry["share"] for entry in described["classes"]) == pytest.approx(1)
    for entry in described["classes"]:
        where = labels == entry["index"]
        assert entry["name"] == SHAPES_CLASSES[entry["index"]]
        assert np.array_equal(coco_mask.decode(entry["segmentation"]).astype(bool), where)
        rows, columns = np.nonzero(where)
        box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        assert entry["box"] == pytest.approx(box)


def test_predict_takes_files_folders_globs_and_odd_names(
    make_checkpoint: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    (photos / "deep er").mkdir(parents=True)
    names = ["a.png", "b=c.png", "deep er/a.JPG", "deep er/d e.png", "[x].png", "~f.png"]
    for name in names:
        write_image(photos / name, np.zeros((20, 30, 3), np.uint8))
    (photos / "notes.txt").write_text("no image")
    checkpoint = f"checkpoint={make_checkpoint()}"
    monkeypatch.chdir(photos)
    assert run_predict(".", checkpoint, f"output={tmp_path / 'all'}") == 0
    masks = sorted(path.name for path in (tmp_path / "all" / "masks").iterdir())
    assert masks == ["[x].png", "a-2.png", "a.png", "b=c.png", "d e.png", "~f.png"], (
        "two of one stem do not overwrite each other"
    )
    assert run_predict("b=c.png", "deep er/*.png", "[x].png", checkpoint, f"output={tmp_path / 'some'}") == 0
    masks = sorted(path.name for path in (tmp_path / "some" / "masks").iterdir())
    assert masks == ["[x].png", "b=c.png", "d e.png"]


def test_predict_does_the_good_and_lists_the_bad(make_checkpoint: Make, tmp_path: Path, capsys: Capture) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    write_image(photos / "good.png", np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8))
    (photos / "half.png").write_bytes((photos / "good.png").read_bytes()[:600])
    (photos / "text.jpg").write_text("hello")
    write_image(photos / "vast.png", np.zeros((40, 30, 3), np.uint8))
    arguments = [photos, f"checkpoint={make_checkpoint()}", f"output={tmp_path / 'out'}", "max_pixels=1000"]
    assert run_predict(*arguments) == 1
    shown = capsys.readouterr().out
    assert "1 of 4 images" in shown
    for failed in ("half.png: ", "text.jpg: not an image", "vast.png: 30 x 40 pixels are more than the bound of 1000"):
        assert failed in shown
    assert [path.name for path in (tmp_path / "out" / "masks").iterdir()] == ["good.png"]


def test_predict_goes_on_after_awkward_files(make_checkpoint: Make, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name in ("a" * 249, "z"):
        write_image(photos / f"{name}.png", np.zeros((20, 30, 3), np.uint8))
    write_image(photos / "wide.png", np.zeros((2, 66000, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(photos / "exif.jpg", exif=exif)
    content = (photos / "exif.jpg").read_bytes()
    at = content.index(b"Exif") + 12
    (photos / "exif.jpg").write_bytes(content[:at] + b"\xff" * 20 + content[at + 20 :])
    assert run_predict(photos, f"checkpoint={make_checkpoint()}", f"output={tmp_path / 'out'}") == 0
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 4
    assert (tmp_path / "out" / "overlays" / "wide.png").is_file()


def test_predict_stops_at_a_full_disk(
    make_checkpoint: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device", "mask.png")

    monkeypatch.setattr("segapp.commands.predict.write_mask", full)
    write_image(tmp_path / "img.png", np.zeros((20, 30, 3), np.uint8))
    assert run_predict(tmp_path / "img.png", f"checkpoint={make_checkpoint()}", f"output={tmp_path / 'out'}") == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: the disk is full (mask.png); make room")


def test_the_canvas_of_training_is_the_default(make_checkpoint: Make, tmp_path: Path, capsys: Capture) -> None:
    """A mask looked at is the mask that was scored: eval and predict show images as training's validation did."""
    write_image(tmp_path / "img.png", np.zeros((20, 30, 3), np.uint8))
    (tmp_path / "labels").mkdir()
    write_mask(tmp_path / "labels" / "img.png", np.zeros((20, 30), np.uint8), voc_palette())
    options = [f"checkpoint={make_checkpoint()}", f"output={tmp_path / 'out'}", f"labels={tmp_path / 'labels'}"]
    assert run_tool("predict", [str(tmp_path / "img.png"), *options, "device=cpu"]) == 0
    assert "whole image padded to 65 x 65" in capsys.readouterr().out


@pytest.mark.slow
def test_benchmark_times_loading(shapes_root: Path, capsys: Capture) -> None:
    options = [f"data.root={shapes_root}", "data.train=train", "rounds=1", "samples=32", "transform.crop=65"]
    assert run_tool("benchmark", ["data", *options]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if re.match("(segapp|albumentations) ", line)]
    assert len(rows) == 2, "in-process and with workers"
    assert all(float(row.split()[-1]) == 1.0 for row in rows)


def test_peers_make_what_training_needs(shapes_root: Path) -> None:
    dataset = voc_layout(shapes_root, "train", VOC_CLASSES, "shapes")
    for name, peer in PEERS.items():
        images = peer(dataset, 97, (0.5, 1.0, 2.0))
        labels: set[float] = set()
        for position in range(24):
            image, label = images[position]
            assert (image.shape, image.dtype, label.shape) == ((3, 97, 97), torch.float32, (97, 97)), name
            assert image.min() >= -1
            assert image.max() <= 1
            labels |= set(label.flatten().tolist())
        assert {0, 255} < labels <= {*range(21), 255}, name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no image is named"),
        ([""], "an argument is empty"),
        (["~nobody.jpg"], "~nobody.jpg: no such file or folder"),
        (["nowhere.jpg"], "nowhere.jpg: no such file or folder"),
        (["empty"], "empty: no images in this folder"),
        (["img.png", "labels=nowhere"], "labels=nowhere: no such folder"),
        (["img.png", "checkpoint=text.txt"], "text.txt: no checkpoint, or a damaged one"),
        (["img.png", "checkpoint=latest"], "no checkpoint yet under"),
        (["img.png", "sav=[mask]"], "sav is no key of this config; did you mean save?"),
        (["img.png", "output=text.txt/out"], "cannot write to text.txt/out"),
    ],
)
def test_predict_mistakes(
    make_checkpoint: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / "img.png", np.zeros((20, 30, 3), np.uint8))
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    before = sorted(tmp_path.rglob("*"))
    checkpoint = make_checkpoint()
    assert run_predict(f"checkpoint={checkpoint}", "output=out", *arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert sorted(path for path in tmp_path.rglob("*") if path != checkpoint) == before, "nothing is left behind"


def test_predict_labels_that_do_not_fit_are_listed(make_checkpoint: Make, tmp_path: Path, capsys: Capture) -> None:
    labels = tmp_path / "labels"
    labels.mkdir()
    for name in ("a", "b", "c", "d"):
        write_image(tmp_path / f"{name}.png", np.zeros((20, 30, 3), np.uint8))
    write_mask(labels / "a.png", np.zeros((20, 30), np.uint8), voc_palette())
    write_mask(labels / "b.png", np.zeros((30, 20), np.uint8), voc_palette())
    write_mask(labels / "c.png", np.full((20, 30), 9, np.uint8), voc_palette())
    images = [tmp_path / f"{name}.png" for name in ("a", "b", "c", "d")]
    checkpoint, out = f"checkpoint={make_checkpoint()}", f"output={tmp_path / 'out'}"
    assert run_predict(*images, checkpoint, out, f"labels={labels}") == 1
    shown = capsys.readouterr().out
    assert "b.png: the mask is 20 x 30, its image 30 x 20" in shown
    assert "c.png: label value 9 is outside the 7 classes" in shown
    assert "d.png: no label of this image" in shown
    assert "(incomplete: 3 not scored)" in shown.splitlines()[-1]
    assert len(list((tmp_path / "out" / "masks").iterdir())) == 4, "the masks are there all the same"


@pytest.mark.slow
def test_scripts_run_from_anywhere(tmp_path: Path, make_checkpoint: Make) -> None:
    """Real processes, another working directory: no traceback, the right exit status."""
    write_image(tmp_path / "img.jpg", np.zeros((20, 30, 3), np.uint8))

    def script(name: str, *arguments: Any) -> subprocess.CompletedProcess[str]:
        command: list[Any] = [sys.executable, PROJECT / "tools" / f"{name}.py", *map(str, arguments)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = script("predict", "img.jpg", f"checkpoint={make_checkpoint()}", "output=out", *PREDICT)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "masks" / "img.png").is_file()
    wrong = script("eval", "data.root=/nowhere", "output=out2")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: VOC 2012 is not in /nowhere")
    assert len(wrong.stderr.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["img.jpg", "net.safetensors", "out"]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("during", ["segapp.base.quiet_start", "torch._C"])
def test_ctrl_c_amid_the_imports_leaves_no_traceback(during: str) -> None:
    command = [sys.executable, "-X", "importtime", str(PROJECT / "tools" / "eval.py"), "data=nothing"]
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # not ignored, as in the background of a shell
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=heard) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if line.rstrip().endswith(during))
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
    assert process.returncode == -signal.SIGINT
    assert "Traceback" not in told
    assert "segapp.commands.eval" not in told
