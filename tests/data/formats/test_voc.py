"""PASCAL VOC's layout: lists, trainaug's masks, and what is missing."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from segapp.base.errors import UserError
from segapp.base.paths import CONF
from segapp.data.checks.scan import scan_labels
from segapp.data.formats.voc import Voc2012Config


def voc(root: Path, **changes: str) -> Voc2012Config:
    values = yaml.safe_load((CONF / "data" / "voc2012.yaml").read_text())
    return Voc2012Config.model_validate(values | {"root": root, "train": "train"} | changes)


def test_voc_layout(shapes_root: Path) -> None:
    dataset = voc(shapes_root).dataset("train")
    assert len(dataset) == 8
    sample = dataset[3]
    with Image.open(shapes_root / "SegmentationClass" / f"{sample.id}.png") as mask:
        assert sample.label is not None
        assert np.array_equal(sample.label, np.array(mask))
    assert sample.image.shape == (64, 64, 3)
    assert len(dataset.classes) == 21
    assert dataset.background == 0


def test_trainaug_takes_its_own_masks(shapes_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "VOC2012"
    root.mkdir()
    (root / "JPEGImages").symlink_to(shapes_root / "JPEGImages")
    (root / "SegmentationClassAug").symlink_to(shapes_root / "SegmentationClass")
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "trainaug.txt").write_text("000000\n000001\n")
    masks = voc(root, train="trainaug").dataset("train").masks
    assert masks is not None
    assert [mask.parent.name for mask in masks] == ["SegmentationClassAug"] * 2


def test_a_list_of_ones_own_of_sbds_images_has_sbds_masks(shapes_root: Path, tmp_path: Path) -> None:
    """Where the official folder does not have all of them, and the other one does."""
    root = tmp_path / "VOC2012"
    root.mkdir()
    (root / "JPEGImages").symlink_to(shapes_root / "JPEGImages")
    (root / "SegmentationClassAug").symlink_to(shapes_root / "SegmentationClass")
    (root / "SegmentationClass").mkdir()
    (root / "SegmentationClass" / "000000.png").symlink_to(shapes_root / "SegmentationClass" / "000000.png")
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "mine.txt").write_text("000000\n000001\n")
    (lists / "whole.txt").write_text("000000\n")
    for split, folder in (("mine", "SegmentationClassAug"), ("whole", "SegmentationClass")):
        masks = voc(root, train=split).dataset("train").masks
        assert masks is not None
        assert {mask.parent.name for mask in masks} == {folder}


def test_a_test_set_has_no_labels(shapes_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "VOC2012"
    root.mkdir()
    (root / "JPEGImages").symlink_to(shapes_root / "JPEGImages")
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "test.txt").write_text("000000\n")
    dataset = voc(root, val="test").dataset("val")
    assert dataset[0].label is None
    with pytest.raises(UserError, match="no masks"):
        scan_labels(dataset)


def test_missing_data_is_told_with_the_way_to_get_it(shapes_root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"VOC 2012 is not in .*prepare_data\.py voc2012.*data\.root"):
        voc(tmp_path).dataset("train")
    with pytest.raises(UserError, match="nosuch.txt: no such list; there are: train, trainval, val"):
        voc(shapes_root, train="nosuch").dataset("train")
    with pytest.raises(UserError, match="trainaug"):
        voc(shapes_root, train="trainaug").dataset("train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the list is empty"),
        (
            "000000\nmissing\nalso\n",
            r"missing \(and 1 more\): no such image in .*JPEGImages, but .*bad\.txt, line 2, ",
        ),
        ("000000\nJPEGImages/000001.jpg SegmentationClass/000002.png", r"000001\.jpg: its mask .*bad\.txt, line 2, "),
        ("000000\n000000\n", "000000 is listed twice"),
    ],
)
def test_bad_lists(shapes_root: Path, tmp_path: Path, text: str, message: str) -> None:
    root = tmp_path / "set"
    root.mkdir()
    for name in ("JPEGImages", "SegmentationClass"):
        (root / name).symlink_to(shapes_root / name)
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "bad.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        voc(root, train="bad").dataset("train")


@pytest.mark.parametrize(
    "lines",
    [
        ["000003.jpg", "JPEGImages/000001.jpg"],
        ["./JPEGImages/000003.jpg", "{root}/JPEGImages/000001.jpg"],
        ["JPEGImages/000003.jpg SegmentationClass/000003.png", "000001"],
        ["/JPEGImages/000003.jpg /SegmentationClassAug/000003.png", "000001"],
    ],
)
def test_vocs_lists_may_name_files(shapes_root: Path, tmp_path: Path, lines: list[str]) -> None:
    """The ids stay, and masks of trainaug are taken where the list names them."""
    root = tmp_path / "set"
    root.mkdir()
    (root / "JPEGImages").symlink_to(shapes_root / "JPEGImages")
    masks = "SegmentationClassAug" if "Aug" in lines[0] else "SegmentationClass"
    (root / masks).symlink_to(shapes_root / "SegmentationClass")
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "mine.txt").write_text("\n".join(lines).format(root=root))
    dataset = voc(root, train="mine").dataset("train")
    assert dataset.ids[:] == ["000003", "000001"]
    assert dataset.images[:] == [root / "JPEGImages" / "000003.jpg", root / "JPEGImages" / "000001.jpg"]
    assert dataset.masks is not None
    assert dataset.masks[:] == [root / masks / "000003.png", root / masks / "000001.png"]
