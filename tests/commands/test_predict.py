"""The prediction tool: what it leaves, what it says, how it ends."""

import json
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from segapp.base.classes import voc_palette
from segapp.base.images import write_image
from segapp.base.masks import write_mask
from segapp.cli import run_tool
from segapp.commands.inputs import find_images
from segapp.data.formats.shapes import SHAPES_CLASSES
from tests.commands.tools import run_predict

Make = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


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


def test_the_systems_own_files_are_passed_over(tmp_path: Path) -> None:
    """macOS leaves ._NAME beside each file on foreign disks, and __MACOSX in archives: no pictures."""
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in" / "x.jpg", np.zeros((9, 9, 3), np.uint8))
    for name in ("._x.jpg", ".hidden/y.jpg", "__MACOSX/z.jpg", "below/._w.png"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(b"\0\5\x16\7")
    assert [*find_images([str(tmp_path / "in")])] == [tmp_path / "in" / "x.jpg"]


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

    monkeypatch.setattr("segapp.inference.saving.write_mask", full)
    write_image(tmp_path / "img.png", np.zeros((20, 30, 3), np.uint8))
    assert run_predict(tmp_path / "img.png", f"checkpoint={make_checkpoint()}", f"output={tmp_path / 'out'}") == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: the disk is full (mask.png); make room")


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


def test_the_canvas_of_training_is_the_default(make_checkpoint: Make, tmp_path: Path, capsys: Capture) -> None:
    """A mask looked at is the mask that was scored: eval and predict show images as training's validation did."""
    write_image(tmp_path / "img.png", np.zeros((20, 30, 3), np.uint8))
    (tmp_path / "labels").mkdir()
    write_mask(tmp_path / "labels" / "img.png", np.zeros((20, 30), np.uint8), voc_palette())
    options = [f"checkpoint={make_checkpoint()}", f"output={tmp_path / 'out'}", f"labels={tmp_path / 'labels'}"]
    assert run_tool("predict", [str(tmp_path / "img.png"), *options, "device=cpu"]) == 0
    assert "whole image padded to 65 x 65" in capsys.readouterr().out


def test_deep_images_unread_endings_and_max_pixels_are_told(
    make_checkpoint: Make, tmp_path: Path, capsys: Capture
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    grey = np.random.default_rng(0).integers(0, 256, (20, 30), np.uint8)
    Image.fromarray(grey).save(photos / "b.png")
    Image.fromarray(grey.astype(np.uint16)).save(photos / "a.png")
    for name in ("c.heic", "d.HEIC", "notes.txt"):
        (photos / name).write_text("x")
    checkpoint = f"checkpoint={make_checkpoint()}"
    assert run_predict(photos, checkpoint, f"output={tmp_path / 'dark'}") == 0
    told = capsys.readouterr().err
    assert f"1 image of 16 bits nearly black, first {photos / 'a.png'}; white_level says" in told
    assert "2 files not read: the ending is that of no picture (2 .heic)" in told
    assert run_predict(photos, checkpoint, "white_level=255", f"output={tmp_path / 'said'}") == 0
    assert "nearly black" not in capsys.readouterr().err
    masks = tmp_path / "said" / "masks"
    assert (masks / "a.png").read_bytes() == (masks / "b.png").read_bytes()
    run_predict(photos / "b.png", checkpoint, "max_pixels=100", f"output={tmp_path / 'vast'}")
    assert "30 x 20 pixels are more than the bound of 100; scale it down, or cut it, or raise max_pixels" in (
        capsys.readouterr().out
    )
    assert run_predict(photos, checkpoint, "white_level=100", f"output={tmp_path / 'none'}") == 2


def test_labels_in_the_other_form_of_unicode_are_found(make_checkpoint: Make, tmp_path: Path, capsys: Capture) -> None:
    image, label = (tmp_path / f"{unicodedata.normalize(form, 'é')}.png" for form in ("NFD", "NFC"))
    write_image(image, np.zeros((20, 30, 3), np.uint8))
    (tmp_path / "labels").mkdir()
    write_mask(tmp_path / "labels" / label.name, np.zeros((20, 30), np.uint8), voc_palette())
    arguments = [
        image,
        f"checkpoint={make_checkpoint()}",
        f"output={tmp_path / 'out'}",
        f"labels={tmp_path / 'labels'}",
    ]
    assert run_predict(*arguments) == 0
    assert "mIoU" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["model_best.pth.tar", "model.pth", "weights", "best.safetensors"])
def test_a_file_of_torch_save_is_named_for_what_it_is(name: str, tmp_path: Path, capsys: Capture) -> None:
    write_image(tmp_path / "img.png", np.zeros((20, 30, 3), np.uint8))
    torch.save({"state_dict": {"module.conv.weight": torch.zeros(3)}, "epoch": 3}, tmp_path / name)
    assert run_predict(tmp_path / "img.png", f"checkpoint={tmp_path / name}", f"output={tmp_path / 'out'}") == 2
    assert f"{name} is a file of torch.save, which may run code: tools/import_weights.py" in capsys.readouterr().err
    target = tmp_path / "converted.safetensors"
    assert run_tool("import_weights", [str(tmp_path / name), f"output={target}"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "archive" not in error
    assert "TensorFlow" not in error
    assert not target.exists()
