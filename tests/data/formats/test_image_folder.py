"""Folders of classes: whatever tree people have them in."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segapp.base.compose import compose_config, validate
from segapp.base.config import Config
from segapp.base.errors import UserError
from segapp.data.class_lists import renumbered
from segapp.data.formats.image_folder import ImageFolderConfig
from segapp.data.hash_split import drawn_for_validation
from tests.images import CLASSES, draw, split


class _Config(Config):
    data: ImageFolderConfig


def folder(root: Path, **changes: Any) -> ImageFolderConfig:
    values = compose_config("data/image_folder", [])["data"] | {"root": root}
    return validate({"data": values | changes}, _Config).data


def test_folders_for_training_and_validation(tmp_path: Path) -> None:
    config = folder(split(tmp_path / "mine"))
    for role in ("train", "val"):
        dataset = config.dataset(role)
        assert dataset.classes == CLASSES
        assert dataset.name.startswith(f"mine {role} #")
        assert len(dataset) == 12
        assert [dataset.classes[label] for label in dataset.labels] == [id.split("/")[1] for id in dataset.ids]
        assert all(id.startswith(f"{role}/") for id in dataset.ids)
        channel = dataset[0].image.mean((0, 1)).argmax()
        assert dataset.classes[dataset.labels[0]] == CLASSES[2 - channel]


@pytest.mark.parametrize(("train", "val"), [("training", "valid"), ("Train", "Test"), ("train", "validation")])
def test_usual_names_are_known(train: str, val: str, tmp_path: Path) -> None:
    draw(tmp_path / train)
    draw(tmp_path / val, number=2)
    assert (len(folder(tmp_path).dataset("train")), len(folder(tmp_path).dataset("val"))) == (12, 6)


def test_validation_comes_before_test(tmp_path: Path) -> None:
    for role, number in (("train", 4), ("test", 1), ("val", 2)):
        draw(tmp_path / role, number=number)
    assert len(folder(tmp_path).dataset("val")) == 6
    assert len(folder(tmp_path, val="test").dataset("val")) == 3


def test_one_tree_is_split_by_names(tmp_path: Path) -> None:
    root = draw(tmp_path / "mine", number=20)
    config = folder(root, val_fraction=0.3)
    train, val = config.dataset("train"), config.dataset("val")
    names = sorted(f"{name}/{at}.jpg" for name in CLASSES for at in range(20))
    assert set(val.ids) == set(drawn_for_validation(names, 0.3, 0))
    assert sorted([*train.ids, *val.ids]) == names
    assert train.classes == val.classes == CLASSES
    shutil.copytree(root, tmp_path / "other" / "train")
    inside = folder(tmp_path / "other", val_fraction=0.3)
    assert len(inside.dataset("train")) + len(inside.dataset("val")) == 60


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    """A folder of pictures is a class; one of class folders is a split."""
    draw(tmp_path, ("bus", "train", "test"), number=6)
    config = folder(tmp_path)
    assert config.dataset("train").classes == ("bus", "test", "train")
    assert len(config.dataset("train")) + len(config.dataset("val")) == 18


def test_images_lie_at_any_depth_and_in_any_format(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    draw(tmp_path / "train")
    (tmp_path / "train" / "red" / "more").mkdir()
    picture = tmp_path / "train" / "red" / "0.jpg"
    shutil.copy(picture, tmp_path / "train" / "red" / "more" / "0.JPEG")
    shutil.copy(picture, tmp_path / "train" / "red" / "0.png")  # the same stem: another image
    shutil.copy(picture, tmp_path / "train" / "loose.jpg")
    (tmp_path / "train" / "red" / ".hidden.jpg").touch()
    (tmp_path / "train" / "red" / "raw.cr2").touch()
    draw(tmp_path / "val")
    dataset = folder(tmp_path).dataset("train")
    assert np.bincount(dataset.labels).tolist() == [4, 4, 6]
    assert "1 picture in no class folder, left out" in caplog.text
    assert "1 file .cr2 not read" in caplog.text


def test_a_class_that_only_training_has_keeps_its_place(tmp_path: Path) -> None:
    draw(tmp_path / "train")
    draw(tmp_path / "val", ("green", "red"), number=1)
    train, val = folder(tmp_path).dataset("train"), folder(tmp_path).dataset("val")
    assert renumbered(val, train.classes).labels.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("make", "changes", "message"),
    [
        (lambda root: root, {}, r"no such folder; DIR/train/CLASS/"),
        (lambda root: draw(root, ("one",)), {}, r"pictures in 1 class folder; DIR/train"),
        (lambda root: draw(root / "val"), {}, r"val/ validates, and no folder trains; set data\.train"),
        (split, {"train": "photos"}, r"data\.train=photos: no pictures in "),
        (lambda root: draw(root, ("a", "b"), number=0), {}, r"pictures in 0 class folders"),
    ],
)
def test_mistakes(make: Any, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    root = tmp_path / "mine"
    make(root)
    with pytest.raises(UserError, match=message):
        folder(root, **changes).dataset("train")
