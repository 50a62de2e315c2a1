"""The evaluation tool: what it leaves, what it says, how it ends."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segapp.base.classes import VOC_CLASSES, voc_palette
from segapp.base.masks import write_mask
from segapp.data.formats.voc import voc_layout
from tests.commands.tools import evaluate

Make = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


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


def two_class_folder(root: Path, order: str, bits: type[np.unsignedinteger[Any]] = np.uint8) -> Path:
    """Ten images of noise, masks of cats above dogs, indexed by `order`."""
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    (root / "classes.yaml").write_text(f"[{order}]")
    names = order.split(", ")
    rng = np.random.default_rng(0)
    for index in range(10):
        mask = np.full((40, 50), names.index("cat"), np.uint8)
        mask[20:] = names.index("dog")
        mask[:5] = names.index("background")
        write_mask(root / "masks" / f"{index}.png", mask, voc_palette())
        Image.fromarray(rng.integers(0, 256, (40, 50)).astype(bits)).save(root / "images" / f"{index}.png")
    return root


def test_classes_are_matched_to_the_checkpoints_by_name(
    make_checkpoint: Make, tmp_path: Path, capsys: Capture
) -> None:
    """One network, one truth, and two numberings of it: one score."""
    checkpoint = make_checkpoint("net.safetensors", ("background", "cat", "dog"))
    scores = []
    for order in ("background, cat, dog", "dog, background, cat"):
        root = two_class_folder(tmp_path / order.replace(", ", "-"), order)
        out = tmp_path / f"out-{order[:3]}"
        options = ["data=folder", f"data.root={root}", f"checkpoint={checkpoint}", f"output={out}", "data.title=x"]
        assert evaluate(*options) == 0
        scored = json.loads((out / "metrics.json").read_text())
        scores.append((scored["miou"], scored["pixel_accuracy"]))
    assert scores[0] == scores[1]
    root = two_class_folder(tmp_path / "other", "background, cat, dog")
    (root / "classes.yaml").write_text("[background, cat, cow]")
    assert evaluate("data=folder", f"data.root={root}", f"checkpoint={checkpoint}", f"output={tmp_path / 'no'}") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "[background, cat, cow], net.safetensors: [background, cat, dog]" in error
    assert not (tmp_path / "no").exists()


def test_eval_tells_of_black_images_of_16_bits(make_checkpoint: Make, tmp_path: Path, capsys: Capture) -> None:
    checkpoint = make_checkpoint("net.safetensors", ("background", "cat", "dog"))
    root = two_class_folder(tmp_path / "deep", "background, cat, dog", np.uint16)
    options = ["data=folder", f"data.root={root}", f"checkpoint={checkpoint}"]
    assert evaluate(*options, f"output={tmp_path / 'dark'}") == 0
    assert "nearly black, for 16 bits; white_level says" in capsys.readouterr().err
    assert evaluate(*options, "white_level=255", f"output={tmp_path / 'said'}") == 0
    assert "nearly black" not in capsys.readouterr().err
    assert "white level 255" in json.loads((tmp_path / "said" / "metrics.json").read_text())["protocol"]
