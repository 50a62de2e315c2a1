"""tools/prepare_data.py check: its page, its verdict, and all that it tells of what is missing."""

import json
import shutil
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from segapp.base.compose import read_config
from segapp.base.errors import UserError
from segapp.cli import run_tool
from segapp.data.dataset import Role
from segapp.training.config import TrainConfig
from tests.folders import folder, make_folder
from tests.pages import Page

Capture = pytest.CaptureFixture[str]


def check(*overrides: str) -> int:
    return run_tool("prepare_data", ["check", *overrides])


def test_the_tool_leaves_a_page_and_a_verdict(shapes_root: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    assert check("data=voc2012", "data.train=train", f"data.root={shapes_root}", f"output={out}", "samples=5") == 0
    said = capsys.readouterr().out.splitlines()
    found = json.loads((out / "audit.json").read_text())
    assert said[-1] == found["verdict"]
    assert said[-1].startswith("fit to train on: 8 + 4 images, 21 classes; 1 warning, 1 note")
    assert found["fit"]
    pixels = sum(found["sets"]["train"]["class_pixels"].values())
    ignored = 0
    for id in (shapes_root / "ImageSets" / "Segmentation" / "train.txt").read_text().split():
        with Image.open(shapes_root / "SegmentationClass" / f"{id}.png") as mask:
            ignored += int((np.array(mask) == 255).sum())
    assert pixels == 8 * 64 * 64 - ignored
    page = Page(out / "audit.html")
    assert "Fit to train on" in page.text
    assert len(page.tables["classes"]) == 22
    assert sum(tag == "img" for tag, _ in page.tags) == 10
    assert not any({"href", "action"} & attributes.keys() for _, attributes in page.tags)


def test_the_tool_ends_with_1_if_there_are_errors(shapes_root: Path, tmp_path: Path, capsys: Capture) -> None:
    root, out = tmp_path / "<i>set", tmp_path / "out"
    shutil.copytree(shapes_root, root)
    (root / "JPEGImages" / "000001.jpg").write_text("no picture")
    assert check("data=voc2012", "data.train=train", f"data.root={root}", f"output={out}") == 1
    said = capsys.readouterr().out.splitlines()
    broken = f"{root}/JPEGImages/000001.jpg: not an image, or of an unknown format"
    assert said[-1] == f"not fit: 1 error, first 1 image that cannot be read: {broken}"
    page = Page(out / "audit.html")
    assert "Not fit" in page.text
    assert broken in page.text, "escaped"
    assert json.loads((out / "audit.json").read_text())["findings"][0]["files"] == [broken]


def findings_of(out: Path) -> dict[str, dict[str, Any]]:
    return {each["kind"]: each for each in json.loads((out / "audit.json").read_text())["findings"]}


def test_all_that_is_missing_from_vocs_lists_is_told(shapes_root: Path, tmp_path: Path, capsys: Capture) -> None:
    """Images and masks, of both lists; what is there is looked at all the same."""
    root, out = tmp_path / "set", tmp_path / "out"
    shutil.copytree(shapes_root, root)
    for gone in ("000001", "000002", "000009"):
        (root / "JPEGImages" / f"{gone}.jpg").unlink()
    for gone in ("000002", "000003", "000010", "000011"):
        (root / "SegmentationClass" / f"{gone}.png").unlink()
    (root / "JPEGImages" / "000004.jpg").write_text("no picture")
    with (root / "ImageSets" / "Segmentation" / "val.txt").open("a") as file:
        file.write("nowhere\n")
    assert check("data=voc2012", "data.train=train", f"data.root={root}", f"output={out}") == 1
    found = findings_of(out)
    images, masks = found["absent_image"], found["image_without_mask"]
    assert [line.partition(":")[0] for line in images["files"]] == ["000001", "000002", "000009", "nowhere"]
    assert "train.txt, line 2, lists it" in images["files"][0]
    assert [Path(line.partition(":")[0]).name for line in masks["files"]] == ["000003.jpg", "000010.jpg", "000011.jpg"]
    assert found["unreadable_images"]["count"] == 1
    said, page = capsys.readouterr().out, Page(out / "audit.html").text
    for line in [*images["files"], *masks["files"]]:
        assert line in said
        assert line in page
    assert said.splitlines()[-1].startswith("not fit: 3 errors, first 4 images listed but not there: 000001: ")
    sets = json.loads((out / "audit.json").read_text())["sets"]
    assert (sets["train"]["images"], sets["val"]["images"]) == (5, 1)
    for role, number in (("train", 3), ("val", 4)):
        with pytest.raises(UserError, match=rf"\(and {number - 1} more\): no such image .*check lists them all"):
            read_config("train", ["data=voc2012", "data.train=train", f"data.root={root}"], TrainConfig).data.dataset(
                cast(Role, role)
            )


def test_all_that_is_missing_from_folders_is_told(tmp_path: Path, capsys: Capture) -> None:
    root, out = tmp_path / "mine", tmp_path / "out"
    make_folder(root, 6)  # .jpg, .png, .JPG, .jpg, ...
    (root / "masks" / "photo 3.png").unlink()
    Image.new("RGB", (10, 8)).save(root / "images" / "photo 0.png")
    Image.new("L", (10, 8)).save(root / "masks" / "of none.png")
    (root / "train.txt").write_text("photo 0.jpg\nphoto 2\nphoto 9\nphoto 3.jpg\nphoto 1.png photo 2.png\n")
    (root / "val.txt").write_text("photo 2.JPG\nphoto 4\nphoto 5\nphoto 9.jpg\n")
    options = ["data=folder", f"data.root={root}", "data.train=train.txt", "data.val=val.txt"]
    assert check(*options, f"output={out}") == 1
    found = {kind: [line.replace(str(root), "") for line in each["files"]] for kind, each in findings_of(out).items()}
    assert [line.partition(": ")[0] for line in found["absent_image"]] == ["photo 9", "photo 9.jpg"]
    mismatched, without = found["image_without_mask"]
    assert mismatched.startswith("/images/photo 1.png: its mask goes by its name (masks/photo 1.png), but /train.txt")
    assert mismatched.endswith(", line 5, names photo 2.png")
    assert without == "/images/photo 3.jpg: no mask of the same stem in /masks"
    assert found["twin"] == ["/images/photo 0.png: images/photo 0.jpg has the same stem; each needs its own"]
    assert found["mask_without_image"] == ["/masks/of none.png: no image of the same stem in /images"]
    assert [line.partition(": ")[0] for line in found["in_both"]] == ["/images/photo 2.JPG"]
    assert "warning  1 mask without image\n" in capsys.readouterr().out
    assert run_tool("train", [*options, "device=cpu", "offline=true"]) == 2
    assert "photo 0.png (and 4 more): images/photo 0.jpg has the same stem" in capsys.readouterr().err


def test_a_mask_that_nothing_uses_hinders_no_training(tmp_path: Path) -> None:
    make_folder(tmp_path / "mine", 6)
    Image.new("L", (10, 8)).save(tmp_path / "mine" / "masks" / "of none.png")
    assert len(folder(tmp_path / "mine").dataset("train")) + len(folder(tmp_path / "mine").dataset("val")) == 6
    assert check("data=folder", f"data.root={tmp_path / 'mine'}", f"output={tmp_path / 'out'}") == 0
    assert findings_of(tmp_path / "out")["mask_without_image"]["severity"] == "warning"


def test_folders_in_which_nothing_fits(tmp_path: Path, capsys: Capture) -> None:
    """All images without masks: no image is left to look at, and the page is there."""
    make_folder(tmp_path / "mine", 6)
    for mask in (tmp_path / "mine" / "masks").iterdir():
        mask.rename(mask.with_stem(f"{mask.stem}_gt"))
    assert check("data=folder", f"data.root={tmp_path / 'mine'}", f"output={tmp_path / 'out'}") == 1
    found = findings_of(tmp_path / "out")
    assert (found["image_without_mask"]["count"], found["mask_without_image"]["count"]) == (6, 6)
    assert "named like masks/photo 0_gt.png; data.image_ending" in found["image_without_mask"]["files"][0]
    assert capsys.readouterr().out.count("named like") == 6 + 1
    assert "Not fit" in Page(tmp_path / "out" / "audit.html").text


def test_very_many_files_are_told_up_to_a_bound(tmp_path: Path, capsys: Capture) -> None:
    make_folder(tmp_path / "mine", 6)
    (tmp_path / "mine" / "val.txt").write_text("photo 1\n" + "".join(f"gone {index}\n" for index in range(1200)))
    out = tmp_path / "out"
    assert check("data=folder", "data.val=val.txt", f"data.root={tmp_path / 'mine'}", f"output={out}") == 1
    assert len(findings_of(out)["absent_image"]["files"]) == 1200
    said, page = capsys.readouterr().out, Page(out / "audit.html").text
    for text in (said, page):
        assert "gone 999: " in text
        assert "gone 1000: " not in text
    assert "and 200 more, all in audit.json" in said
    assert "and 1190 more, all in audit.json" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say what to do: python tools/prepare_data.py voc2012|sbd|coco_voc|imagenet|check"),
        (["chek"], "chek is no command: python tools/prepare_data.py voc2012|sbd|coco_voc|imagenet|check"),
        (["check", "data=voc2012", "data.root=/nowhere"], "VOC 2012 is not in /nowhere"),
        (["check", "sampels=3"], "sampels is no key of this config; did you mean samples"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, capsys: Capture) -> None:
    assert run_tool("prepare_data", arguments) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
