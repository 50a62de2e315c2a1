"""trainaug built from SBD's own files."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from segapp.base.classes import voc_palette
from segapp.base.errors import UserError
from segapp.base.masks import read_mask, write_mask
from segapp.data.getting import sbd, voc
from tests.data.getting.samples import SIZE, TRAINAUG, label, make_sbd, make_voc, remove

pytestmark = pytest.mark.network


def test_a_wrong_number_of_images_is_refused(requests: list[str], tmp_path: Path) -> None:
    root = tmp_path / "VOC2012"
    voc.get_voc(root)
    with pytest.raises(UserError, match="trainaug would have 5 images in place of 10582"):
        sbd.get_trainaug(root, images=10582)
    assert not (root / "SegmentationClassAug").exists()


def break_size(dataset: Path) -> None:
    savemat(dataset / "cls" / "e.mat", {"GTcls": {"Segmentation": np.zeros((2, 2), np.uint8)}})


def break_value(dataset: Path) -> None:
    savemat(dataset / "cls" / "e.mat", {"GTcls": {"Segmentation": np.full(SIZE, 21, np.uint8)}})


def break_struct(dataset: Path) -> None:
    savemat(dataset / "cls" / "e.mat", {"other": np.zeros(3)})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_size, r"e\.mat: the mask is 2 x 2, its image 9 x 6"),
        (break_value, r"e\.mat: label value 21 is outside the 21 classes"),
        (break_struct, r"e\.mat: no mask of SBD"),
        (lambda dataset: (dataset / "cls" / "e.mat").write_bytes(b"hello"), r"e\.mat: no mask of SBD"),
        (lambda dataset: (dataset / "cls" / "e.mat").unlink(), r"e\.mat: no such file"),
    ],
)
def test_a_damaged_mask_is_named_and_nothing_is_left(
    damage: Callable[[Path], Any], message: str, tmp_path: Path
) -> None:
    root, dataset = tmp_path / "VOC2012", tmp_path / "dataset"
    make_voc(root)
    make_sbd(dataset)
    damage(dataset)
    with pytest.raises(UserError, match=message):
        sbd.build_trainaug(root, dataset, len(TRAINAUG))
    assert not (root / "SegmentationClassAug").exists()
    assert not (root / "ImageSets" / "Segmentation" / "trainaug.txt").exists()
    assert not [path for path in root.iterdir() if path.name.startswith(".")]


def test_someone_elses_masks_stay(tmp_path: Path) -> None:
    root, dataset = tmp_path / "VOC2012", tmp_path / "dataset"
    make_voc(root)
    make_sbd(dataset)
    (root / "SegmentationClassAug").mkdir()
    write_mask(root / "SegmentationClassAug" / "a.png", label("a"), voc_palette())
    with pytest.raises(UserError, match=r"SegmentationClassAug is there, but not from here: b\.png is missing"):
        sbd.build_trainaug(root, dataset, len(TRAINAUG))
    assert read_mask(root / "SegmentationClassAug" / "a.png").max() == 1


def test_a_list_of_trainaug_without_its_masks_is_told(tmp_path: Path) -> None:
    make_voc(tmp_path)
    make_sbd(tmp_path / "sbd")
    sbd.build_trainaug(tmp_path, tmp_path / "sbd", len(TRAINAUG))
    sbd.get_trainaug(tmp_path)
    remove(tmp_path, "SegmentationClassAug/e.png", "SegmentationClassAug/f.png")
    with pytest.raises(
        UserError, match=r"Aug/e\.png \(and 1 more\): no such file, but .*trainaug\.txt lists it; move that"
    ):
        sbd.get_trainaug(tmp_path)
