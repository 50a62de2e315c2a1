"""Small data sets in their archives' true layouts, and what is to be made of them."""

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

from segapp.base.classes import voc_palette
from segapp.base.images import write_image
from segapp.base.masks import write_mask
from segapp.data.getting import sbd, voc

VOC_TRAIN, VOC_VAL = ["a", "b"], ["c", "d"]
SBD_TRAIN, SBD_VAL = ["b", "c", "e"], ["f", "g"]  # c is one of VOC's val
TRAINAUG = ["a", "b", "e", "f", "g"]
SIZE = (6, 9)


def label(id: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Another one for each image."""
    mask = np.zeros(SIZE, np.uint8)
    mask[1:4, 2:6] = ord(id) - ord("a") + 1
    return mask


def make_voc(root: Path) -> None:
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation", "Annotations"):
        (root / folder).mkdir(parents=True)
    for id in sorted({*VOC_TRAIN, *VOC_VAL, *SBD_TRAIN, *SBD_VAL}):
        write_image(root / "JPEGImages" / f"{id}.jpg", np.zeros((*SIZE, 3), np.uint8))
        (root / "Annotations" / f"{id}.xml").write_text("<annotation/>")
    for id in VOC_TRAIN + VOC_VAL:
        official = label(id)
        official[0] = 255
        write_mask(root / "SegmentationClass" / f"{id}.png", official, voc_palette())
    for name, ids in (("train", VOC_TRAIN), ("val", VOC_VAL), ("trainval", VOC_TRAIN + VOC_VAL)):
        (root / "ImageSets" / "Segmentation" / f"{name}.txt").write_text("".join(f"{id}\n" for id in ids))


def make_sbd(dataset: Path) -> None:
    """As in benchmark.tgz: cls/ID.mat holds a struct GTcls with Boundaries, Segmentation and CategoriesPresent."""
    (dataset / "cls").mkdir(parents=True)
    (dataset / "img").mkdir()
    for id in SBD_TRAIN + SBD_VAL:
        struct = {"Boundaries": np.zeros((20, 1)), "Segmentation": label(id), "CategoriesPresent": np.array([[1]])}
        savemat(dataset / "cls" / f"{id}.mat", {"GTcls": struct})
        (dataset / "img" / f"{id}.jpg").write_bytes(b"not wanted")
    (dataset / "train.txt").write_text("\n".join(SBD_TRAIN))
    (dataset / "val.txt").write_text("\n".join(SBD_VAL))


def get_both(root: Path) -> None:
    voc.get_voc(root)
    sbd.get_trainaug(root, images=len(TRAINAUG))


def check(root: Path) -> None:
    """All is there, and right."""
    lists = root / "ImageSets" / "Segmentation"
    assert (lists / "trainaug.txt").read_text().split() == TRAINAUG
    assert {path.stem for path in (root / "SegmentationClassAug").iterdir()} == set(TRAINAUG)
    for id in TRAINAUG:
        expected = label(id)
        if id in VOC_TRAIN:
            expected[0] = 255  # the official one
        with Image.open(root / "SegmentationClassAug" / f"{id}.png") as mask:
            assert mask.mode == "P"
            assert np.array_equal(np.array(mask), expected), id
            palette = mask.getpalette()
            assert palette is not None
            assert palette[:63] == voc_palette().ravel()[:63].tolist()
    assert not (root / "Annotations").exists(), "only what is needed is unpacked"
    left = {path.name for path in root.parent.iterdir()} - {root.name}
    assert not [name for name in left if "unpacking" in name or "part" in name]


def exit_at(module: Any, name: str, call: int) -> None:
    """The process is gone at the CALLth call of module.NAME: nothing is cleaned up."""
    real, calls = getattr(module, name), [0]

    def dying(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            os._exit(9)
        return real(*arguments, **options)

    setattr(module, name, dying)


def killed(root: Path, module: Any, name: str, call: int) -> None:
    exit_at(module, name, call)
    get_both(root)


def remove(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
