"""One's own images and masks in folders: names and splits."""

import os
import pickle
import zlib
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segapp.base.classes import ADE20K_CLASSES, CITYSCAPES_CLASSES, voc_palette
from segapp.base.compose import read_config
from segapp.base.errors import UserError
from segapp.base.masks import write_mask
from segapp.data.checks.splits import check_apart
from segapp.data.formats.folder import FolderConfig
from segapp.training.config import TrainConfig
from tests.data.samples import grey, ids, put
from tests.folders import folder, make_folder


def test_folder_splits_every_image_once_and_keeps_the_split(tmp_path: Path) -> None:
    make_folder(tmp_path / "mine", 60)
    train, val = (folder(tmp_path / "mine").dataset(role) for role in ("train", "val"))
    assert sorted([*train.ids, *val.ids]) == sorted(f"photo {index}" for index in range(60))
    assert 3 <= len(val) <= 24
    assert train.classes == ("background", "cat", "dog")
    assert train.background == 0
    assert train[0].label is not None
    Image.new("RGB", (10, 8)).save(tmp_path / "mine" / "images" / "another.png")
    write_mask(tmp_path / "mine" / "masks" / "another.png", np.zeros((8, 10), np.uint8), voc_palette())
    assert set(val.ids) <= set(folder(tmp_path / "mine").dataset("val").ids)


@pytest.mark.parametrize("number", [2, 3, 8])
def test_a_few_images_are_split_too(tmp_path: Path, number: int) -> None:
    make_folder(tmp_path, number)
    train, val = folder(tmp_path).dataset("train"), folder(tmp_path).dataset("val")
    assert len(val) >= 1
    assert len(train) >= 1
    assert len(train) + len(val) == number


def test_folder_by_lists(tmp_path: Path) -> None:
    """What validates is never trained on, however few lists are named."""
    make_folder(tmp_path, 4)
    (tmp_path / "mine.txt").write_text("\ufeffphoto 2\nphoto 1\n", encoding="utf-8")
    listed, rest = ["photo 2", "photo 1"], ["photo 0", "photo 3"]
    assert folder(tmp_path, train="mine.txt").dataset("train").ids[:] == listed
    assert folder(tmp_path, train="mine.txt").dataset("val").ids[:] == rest
    assert folder(tmp_path, val="mine.txt").dataset("train").ids[:] == rest
    (tmp_path / "other.txt").write_text("photo 3\nphoto 1\n")
    both = folder(tmp_path, train="mine.txt", val="other.txt")
    with pytest.raises(UserError, match=r"1 images are in both .*photo 1\.png among them"):
        check_apart(both.dataset("train"), both.dataset("val"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "classes.yaml").unlink(), "class names cannot be read"),
        (lambda root: (root / "classes.yaml").write_text("a: ["), "not YAML"),
        (lambda root: (root / "classes.yaml").write_text("- no\n- yes\n"), "quote"),
        (lambda root: (root / "classes.yaml").write_text("- a\n- a\n"), "different"),
        (lambda root: (root / "classes.yaml").write_text("- 2021-13-45\n"), "not YAML"),
        (lambda root: (root / "classes.yaml").write_text('- a\n- "\\ud800"\n'), "cannot be shown"),
        (lambda root: (root / "masks" / "photo 1.png").unlink(), "photo 1.png: no mask of the same stem"),
        (lambda root: Image.new("L", (4, 4)).save(root / "images" / "photo 1.bmp"), "the same stem"),
    ],
)
def test_bad_folders(tmp_path: Path, damage: Any, message: str) -> None:
    make_folder(tmp_path)
    damage(tmp_path)
    with pytest.raises(UserError, match=message):
        for role in ("train", "val"):
            folder(tmp_path).dataset(role)


def test_nested_folders_and_sub_folders_as_splits(tmp_path: Path) -> None:
    put(tmp_path, "images/train/x/1.jpg", "images/train/2.png", "images/val/x/1.jpeg", "images/extra/3.jpg")
    put(tmp_path, "masks/train/x/1.png", "masks/train/2.tif", "masks/val/x/1.png", "masks/extra/3.png")
    config = folder(tmp_path, train="train", val="val")
    assert ids(config) == (["train/2", "train/x/1"], ["val/x/1"])
    dataset = config.dataset("train")
    assert dataset.name.startswith(f"{tmp_path.name} train #")
    assert dataset.images[:] == [tmp_path / "images/train/2.png", tmp_path / "images/train/x/1.jpg"]
    assert dataset.masks is not None
    assert dataset.masks[:] == [tmp_path / "masks/train/2.tif", tmp_path / "masks/train/x/1.png"]
    assert ids(folder(tmp_path, train=None, val="val"))[0] == ["extra/3", "train/2", "train/x/1"]
    with pytest.raises(UserError, match="train and val look like a split.*set data.train=train data.val=val"):
        ids(folder(tmp_path))
    with pytest.raises(UserError, match=r"data\.val=valid: .*valid is no list, and .*images has no folder valid"):
        ids(folder(tmp_path, train="train", val="valid"))
    (tmp_path / "val").write_text("train/2\n")
    with pytest.raises(UserError, match=r"data\.val=val: both a list, .*val, and a folder of images"):
        ids(config)


def test_a_folder_of_images_in_each_split(tmp_path: Path) -> None:
    put(
        tmp_path, "train/images/1.jpg", "train/masks/1.png", "val/images/1.jpg", "val/masks/1.png", "test/images/9.jpg"
    )
    config = folder(tmp_path, images="*/images", masks="*/masks", train="train", val="val")
    assert ids(config) == (["train/1"], ["val/1"])
    assert config.dataset("val").images[:] == [tmp_path / "val/images/1.jpg"]


def test_endings_that_differ(tmp_path: Path) -> None:
    put(tmp_path, "images/a_leftImg8bit.png", "images/b_leftImg8bit.png", "images/c_other.png")
    put(tmp_path, "masks/a_labelIds.png", "masks/b_labelIds.png", "masks/a_color.png", "masks/b_color.png")
    config = folder(tmp_path, image_ending="_leftImg8bit", mask_ending="_labelIds")
    assert sorted(chain(*ids(config))) == ["a", "b"]
    with pytest.raises(UserError, match=r"named like masks/a_color\.png; .*data\.mask_ending"):
        ids(folder(tmp_path))
    with pytest.raises(UserError, match="masks: no pictures with names that end in _labels in this folder or below"):
        ids(folder(tmp_path, image_ending="_leftImg8bit", mask_ending="_labels"))


def test_images_and_masks_in_one_folder(tmp_path: Path) -> None:
    put(tmp_path, "all/ia.jpg", "all/ia_mask.png", "all/x/ib.jpg", "all/x/ib_mask.png")
    config = folder(tmp_path, images="all", masks="all/", mask_ending="_mask")
    assert sorted(chain(*ids(config))) == ["ia", "x/ib"]
    with pytest.raises(UserError, match=r"holds images and masks; say with data\.mask_ending"):
        ids(folder(tmp_path, images="all", masks="all"))


def test_what_is_ambiguous_or_missing_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "images/a.jpg", "images/b.jpg", "images/c.jpg", "masks/a.png", "masks/x/b.png")
    with pytest.raises(UserError, match=r"images/[bc]\.jpg( \(and 1 more\))?: no mask of the same stem in .*masks$"):
        folder(tmp_path, val_fraction=1e-9).dataset("train")
    put(tmp_path, "images/a.PNG")
    with pytest.raises(UserError, match=r"images/a\.jpg \(and \d more\): images/a\.PNG has the same stem; each needs"):
        ids(folder(tmp_path))
    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="none: no pictures in this folder or below"):
        ids(folder(tmp_path, images="none"))
    with pytest.raises(UserError, match="nowhere: no such folder; set data.root"):
        ids(folder(tmp_path, images="nowhere"))


def test_hidden_files_and_links_in_circles_are_passed_by(tmp_path: Path) -> None:
    put(tmp_path, "images/a.jpg", "images/b.jpg", "masks/a.png", "masks/b.png", "elsewhere/c.jpg", "masks/link/c.png")
    (tmp_path / "images" / "._a.jpg").write_bytes(b"")
    (tmp_path / "images" / ".thumbnails").mkdir()
    (tmp_path / "images" / ".thumbnails" / "a.jpg").write_bytes(b"")
    (tmp_path / "images" / "again").symlink_to(tmp_path / "images")
    (tmp_path / "images" / "link").symlink_to(tmp_path / "elsewhere")
    assert sorted(chain(*ids(folder(tmp_path)))) == ["a", "b", "link/c"]


def test_the_split_is_by_a_hash_of_the_name_and_a_seed(tmp_path: Path) -> None:
    names = [f"{index:05}" for index in range(2000)]
    for inside in ("images", "masks"):
        (tmp_path / inside).mkdir()
        for name in names:
            (tmp_path / inside / f"{name}.png").touch()
    (tmp_path / "classes.yaml").write_text("[a, b]")
    chosen = [set(folder(tmp_path, seed=seed).dataset("val").ids) for seed in range(4)]
    assert chosen[0] == {name for name in names if zlib.crc32(name.encode()) < 0.2 * 2**32}
    for at, one in enumerate(chosen):
        assert 330 < len(one) < 470  # of 2000, a fifth is 400
        for other in chosen[:at]:
            assert 40 < len(one & other) < 130  # a fifth of a fifth is 80


def test_many_files_take_little_memory(tmp_path: Path) -> None:
    (tmp_path / "images" / "x").mkdir(parents=True)
    (tmp_path / "images" / "x" / "0.png").touch()
    (tmp_path / "masks").symlink_to(tmp_path / "images")
    for index in range(1, 1500):
        os.link(tmp_path / "images" / "x" / "0.png", tmp_path / "images" / "x" / f"{index}.png")
    (tmp_path / "classes.yaml").write_text("[a, b]")
    dataset = folder(tmp_path).dataset("train")
    assert len(pickle.dumps(dataset)) / len(dataset) < 100  # bytes an image


def data_config(*overrides: str) -> FolderConfig:
    config = read_config("train", overrides, TrainConfig).data
    assert isinstance(config, FolderConfig)
    return config


def test_cityscapes(tmp_path: Path) -> None:
    """Every labelId once, against the train ids of cityscapesscripts/helpers/labels.py."""
    train_ids = [*[255] * 7, 0, 1, 255, 255, 2, 3, 4, 255, 255, 255, 5, 255, *range(6, 16), 255, 255, 16, 17, 18]
    for split, city in (("train", "aachen"), ("val", "lindau"), ("test", "bonn")):
        images, masks = tmp_path / "leftImg8bit" / split / city, tmp_path / "gtFine" / split / city
        images.mkdir(parents=True)
        masks.mkdir(parents=True)
        Image.new("RGB", (34, 1)).save(images / f"{city}_000000_000019_leftImg8bit.png")
        grey([*range(34)]).save(masks / f"{city}_000000_000019_gtFine_labelIds.png")
        Image.new("RGBA", (34, 1)).save(masks / f"{city}_000000_000019_gtFine_color.png")
    config = data_config("data=cityscapes", f"data.root={tmp_path}")
    train, val = config.dataset("train"), config.dataset("val")
    assert [each.name.partition(" #")[0] for each in (train, val)] == ["cityscapes train", "cityscapes val"]
    assert (train.ids[:], val.ids[:]) == (["train/aachen/aachen_000000_000019"], ["val/lindau/lindau_000000_000019"])
    assert train.classes == CITYSCAPES_CLASSES
    assert train.background is None, "road is to be seen"
    assert train[0].label is not None
    assert train[0].label.tolist() == [train_ids]


def test_ade20k(tmp_path: Path) -> None:
    for split in ("training", "validation"):
        for inside, name in (("images", "ADE_00000001.jpg"), ("annotations", "ADE_00000001.png")):
            (tmp_path / inside / split).mkdir(parents=True)
            mask = grey([*range(151)])
            (mask if inside == "annotations" else mask.convert("RGB")).save(tmp_path / inside / split / name)
    config = data_config("data=ade20k", f"data.root={tmp_path}")
    train, val = config.dataset("train"), config.dataset("val")
    assert [each.name.partition(" #")[0] for each in (train, val)] == ["ade20k training", "ade20k validation"]
    assert val.classes == ADE20K_CLASSES
    assert val.background == ADE20K_CLASSES.index("other")
    assert val[0].label is not None
    assert val[0].label.tolist() == [[255, *range(1, 151)]]


def test_paths_are_taken_as_typed(tmp_path: Path) -> None:
    typed = [
        "images=my images (1)",
        "masks=masks, all",
        "classes=a=b.yaml",
        "train=train {1}.txt",
        "title=what's mine",
    ]
    config = data_config("data=folder", *(f"data.{each}" for each in typed))
    assert (config.images, config.masks, str(config.classes)) == ("my images (1)", "masks, all", "a=b.yaml")
    assert (config.train, config.title) == ("train {1}.txt", "what's mine")
