"""Splits that share images are known, by their names and by their files."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from segapp.base.classes import CITYSCAPES_CLASSES, VOC_CLASSES
from segapp.base.compose import read_config
from segapp.base.errors import UserError
from segapp.cli import run_tool
from segapp.data.checks.splits import check_apart, overlapping
from segapp.data.formats.voc import voc_layout
from segapp.training.config import TrainConfig
from segapp.weights.zoo import ZOO
from tests.folders import folder, make_folder

Make = Callable[..., Path]


@pytest.mark.parametrize(
    ("split", "seen", "shared"),
    [
        ("pets val #3fa9c1", ["imagenet", "pets train #3fa9c1"], ["pets train #3fa9c1"]),
        ("pets val #3fa9c1", ["pets val #3fa9c2"], []),
        ("pets val #3fa9c1", ["pets val"], ["pets val"]),  # of a checkpoint from before there were fingerprints
        ("cityscapes train #3fa9c1", ["imagenet", "cityscapes train"], ["cityscapes train"]),
        ("cityscapes val #3fa9c1", ["imagenet", "cityscapes train"], []),
        ("ade20k training #3fa9c1", ["ade20k train"], ["ade20k train"]),
        ("coco val #3fa9c1", ["imagenet", "coco"], ["coco"]),
        ("voc2012 mine #3fa9c1", ["voc2012 trainaug", "voc2012 mine #3fa9c1"], ["voc2012 mine #3fa9c1"]),
        ("a #b val", ["a #b val"], ["a #b val"]),
    ],
)
def test_fingerprints_go_before_names(split: str, seen: list[str], shared: list[str]) -> None:
    assert overlapping(split, seen) == shared


def test_a_folders_splits_are_known_whatever_their_role(tmp_path: Path) -> None:
    make_folder(tmp_path / "pets", 12)
    train, val = (folder(tmp_path / "pets").dataset(role) for role in ("train", "val"))
    assert train.name.startswith("pets train #")
    assert val.name.startswith("pets val #")
    assert not overlapping(val.name, [train.name])
    (tmp_path / "pets" / "lists").mkdir()
    for name, ids in (("a", train.ids), ("b", val.ids)):
        (tmp_path / "pets" / "lists" / f"{name}.txt").write_text("\n".join(reversed(ids)))
    swapped = folder(tmp_path / "pets", train="lists/b.txt", val="lists/a.txt", title="cats").dataset("val")
    assert swapped.name.startswith("cats lists/a #")
    assert overlapping(swapped.name, [train.name])
    assert not overlapping(swapped.name, [val.name])
    make_folder(tmp_path / "elsewhere" / "pets", 12)  # numbered alike, and split alike
    for image in (tmp_path / "elsewhere" / "pets" / "images").iterdir():
        Image.new("RGB", (100, 80)).save(image)
    assert not overlapping(folder(tmp_path / "elsewhere" / "pets").dataset("train").name, [train.name])
    shutil.copytree(tmp_path / "pets", tmp_path / "copy")
    assert overlapping(folder(tmp_path / "copy").dataset("train").name, [train.name])


def test_vocs_own_lists_keep_their_names_and_others_have_fingerprints(shapes_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "VOC2012"
    shutil.copytree(shapes_root, root)
    lists = root / "ImageSets" / "Segmentation"
    for name, source in (("mine", "train"), ("yours", "train"), ("theirs", "val")):
        shutil.copy(lists / f"{source}.txt", lists / f"{name}.txt")

    def named(split: str) -> str:
        overrides = ["data=voc2012", f"data.root={root}", f"data.val={split}"]
        return read_config("train", overrides, TrainConfig).data.dataset("val").name

    assert [named(split) for split in ("train", "val", "trainval")] == [
        f"voc2012 {split}" for split in ("train", "val", "trainval")
    ]
    assert named("mine").startswith("voc2012 mine #")
    assert overlapping(named("yours"), [named("mine")])
    assert not overlapping(named("theirs"), [named("mine")])


def test_eval_warns_of_swapped_splits(
    tmp_path: Path, make_checkpoint: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    make_folder(tmp_path / "pets", 12)
    trained_on = folder(tmp_path / "pets").dataset("train")
    path = make_checkpoint(classes=("background", "cat", "dog"), trained_on=("imagenet", trained_on.name))
    (tmp_path / "pets" / "train.txt").write_text("\n".join(trained_on.ids))
    options = ["data=folder", f"data.root={tmp_path / 'pets'}", f"checkpoint={path}", "device=cpu", "workers=0"]
    assert run_tool("eval", options) == 0
    assert "say little" not in capsys.readouterr().err
    assert run_tool("eval", [*options, "data.val=train.txt"]) == 0
    assert f"these weights were trained on {trained_on.name}: their figures on {trained_on.name} say little" in (
        capsys.readouterr().err
    )


def test_published_weights_are_known_to_have_seen_the_splits_of_their_data(tmp_path: Path) -> None:
    image, mask = "leftImg8bit/{0}/x/x_1_leftImg8bit.png", "gtFine/{0}/x/x_1_gtFine_labelIds.png"
    for split in ("train", "val"):
        for path in (image, mask):
            (tmp_path / path.format(split)).parent.mkdir(parents=True)
            Image.new("RGB" if path is image else "L", (4, 4)).save(tmp_path / path.format(split))
    seen = ZOO["xception65_cityscapes"].trained_on
    for split, warns in (("train", True), ("val", False)):
        overrides = ["data=cityscapes", f"data.root={tmp_path}", f"data.val={split}"]
        dataset = read_config("train", overrides, TrainConfig).data.dataset("val")
        assert dataset.classes == CITYSCAPES_CLASSES
        assert bool(overlapping(dataset.name, seen)) == warns


def test_sets_that_share_an_image_are_refused(shapes_root: Path) -> None:
    train_set = voc_layout(shapes_root, "train", VOC_CLASSES, "voc2012 train")
    val = voc_layout(shapes_root, "val", VOC_CLASSES, "voc2012 val")
    both = voc_layout(shapes_root, "trainval", VOC_CLASSES, "voc2012 trainval")
    check_apart(train_set, val)
    with pytest.raises(UserError, match=r"4 images are in both voc2012 trainval and voc2012 val, .*000008\.jpg"):
        check_apart(both, val)
    roundabout = voc_layout(shapes_root / "JPEGImages" / "..", "val", VOC_CLASSES, "voc2012 val")
    with pytest.raises(UserError, match="4 images are in both"):
        check_apart(both, roundabout)
