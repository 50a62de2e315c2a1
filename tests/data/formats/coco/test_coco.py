"""COCO as a data set: its classes, its images, and which of them are kept."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pydantic import ValidationError

from segapp.base.classes import VOC_CLASSES, voc_palette
from segapp.base.errors import UserError
from segapp.data.pairs import Unpaired
from tests.data.formats.coco.samples import (
    COCO_NAMES,
    HEIGHT,
    WIDTH,
    box,
    coco,
    content,
    make,
    make_coco,
    masks,
    mine,
    region,
)
from tests.data.samples import ids, put
from tests.folders import folder


def test_categories_merge_into_classes_in_the_order_chosen(tmp_path: Path) -> None:
    root = make(tmp_path, content(*(region(k, [box(k, 0, k + 1, 1)]) for k in (1, 2, 3)), names=("cat", "dog", "cup")))
    dataset = mine(root, classes={"thing": "cup", "animal": ["dog", "cat"]}).dataset("train")
    assert dataset.classes == ("background", "thing", "animal")
    assert dataset.background == 0
    label = dataset[0].label
    assert label is not None
    assert label[0].tolist() == [0, 2, 2, 1, 0, 0, 0, 0]


def test_a_category_named_background_is_background(tmp_path: Path) -> None:
    root = make(tmp_path, content(region(1), region(2), names=("background", "cat")))
    dataset = mine(root).dataset("train")
    assert dataset.classes == ("background", "cat")
    assert dataset[0].label is not None
    assert dataset[0].label.max() == 1


def test_an_image_is_kept_at_the_pixels_demanded_and_not_below(tmp_path: Path) -> None:
    """6 pixels of a class are seen: of 8, two are hidden by one of the other category's, and crowds do not count."""
    crowd = region(1, [box(0, 4, 8, 6)], iscrowd=1)
    regions = region(1, [box(0, 0, 6, 1)]), region(1, [box(0, 0, 2, 1)]), crowd, region(2, [box(0, 2, 8, 3)], image=8)
    root = make(tmp_path, content(*regions, images=3))
    kept = {pixels: list(mine(root, min_pixels=pixels).dataset("train").ids) for pixels in (0, 1, 6, 7, 8)}
    assert kept == {0: ["a", "b", "c"], 1: ["a", "b"], 6: ["a", "b"], 7: ["b"], 8: ["b"]}
    with pytest.raises(UserError, match=r"regions\.json: no image has 9 pixels.*data\.min_pixels"):
        mine(root, min_pixels=9).dataset("train")


def test_coco_as_vocs_classes(tmp_path: Path) -> None:
    """All twenty, at 25 x 40 = 1,000 pixels; names that differ, by hand."""
    dataset = coco("coco_voc", make_coco(tmp_path)).dataset("val")
    assert (dataset.name.partition(" #")[0], dataset.classes) == ("coco val", VOC_CLASSES)
    found = {}
    for sample in (dataset[index] for index in range(len(dataset))):
        assert sample.label is not None
        found[COCO_NAMES[int(sample.id)]] = VOC_CLASSES[sample.label[0, 0]]
    differ = {
        "airplane": "aeroplane",
        "dining table": "diningtable",
        "motorcycle": "motorbike",
        "potted plant": "pottedplant",
        "couch": "sofa",
        "tv": "tvmonitor",
    }
    assert found == {name: name for name in VOC_CLASSES[1:] if name not in differ.values()} | differ
    assert masks(dataset)[0].read_bytes().find(voc_palette().tobytes()[:9]) > 0


def test_a_pixel_row_less_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no image has 1000 pixels"):
        coco("coco_voc", make_coco(tmp_path, 39)).dataset("train")


def test_coco_with_its_own_classes(tmp_path: Path) -> None:
    dataset = coco("coco", make_coco(tmp_path)).dataset("train")
    assert (dataset.name.partition(" #")[0], dataset.classes) == ("coco train", ("background", *COCO_NAMES))
    assert dataset.images[79].relative_to(tmp_path) == Path("train2017/000000000079.jpg")
    assert dataset[79].label is not None
    assert dataset[79].label.max() == 80


def test_images_in_folders(tmp_path: Path) -> None:
    values = content(region(1))
    (tmp_path / "images" / "deep").mkdir(parents=True)
    values["images"][0]["file_name"] = "./deep/photo.1.png"
    dataset = mine(make(tmp_path, values)).dataset("train")
    assert list(dataset.ids) == ["deep/photo.1"]
    assert dataset[0].label is not None
    (tmp_path / "images" / "deep" / "photo.1.png").unlink()
    with pytest.raises(UserError, match=r"deep/photo\.1\.png: no such file, but .*regions\.json lists it"):
        mine(tmp_path).dataset("train")


@pytest.mark.parametrize("drawn", [True, False])
def test_all_absent_images_are_told_and_the_rest_is_there(tmp_path: Path, drawn: bool) -> None:
    """Whether the masks are drawn already or not; with the images come their masks."""
    root = make(tmp_path, content(region(1), region(2, image=9), images=4))
    if drawn:
        mine(root).dataset("train")
    for name in ("a.png", "c.png"):
        (root / "images" / name).unlink()
    with pytest.raises(UserError, match=r"a\.png \(and 1 more\): no such file, but .*regions\.json lists it; .*check"):
        mine(root).dataset("train")
    unpaired: list[Unpaired] = []
    assert mine(root).dataset("train", unpaired.extend).ids[:] == ["b", "d"]
    assert {Path(each.file).name for each in unpaired} == {"a.png", "c.png"}
    assert {each.kind for each in unpaired} == {"absent_image"}
    Image.new("RGB", (WIDTH, HEIGHT)).save(root / "images" / "a.png")
    Image.new("RGB", (WIDTH, HEIGHT + 1)).save(root / "images" / "c.png")
    dataset = mine(root).dataset("train")
    first = dataset[0].label
    assert first is not None
    assert first.max() == 1
    with pytest.raises(UserError, match=r"the mask is 8 x 6, its image 8 x 7"):
        dataset[2]


def test_missing_data_is_told_with_the_way_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"instances_train2017\.json: no such file; tools/prepare_data\.py coco_voc .*data\.root"
    ):
        coco("coco_voc", tmp_path).dataset("train")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"a": ["cat", "dog"], "b": "cat"}, "category cat is named twice"),
        ({"background": "cat"}, "leave it out"),
        ({}, "1 to 254"),
        ({str(k): str(k) for k in range(255)}, "1 to 254"),
    ],
)
def test_classes_that_cannot_be(tmp_path: Path, classes: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        mine(tmp_path, classes=classes)


def test_one_json_for_everything_is_split_as_folders_are(tmp_path: Path) -> None:
    """By the hash of the name: against a folder of the same names."""
    root = make(tmp_path / "coco", content(*(region(image=7 + index) for index in range(20)), images=20))
    config = mine(root, val=None, val_fraction=0.3, seed=5)
    train, val = config.dataset("train"), config.dataset("val")
    put(tmp_path / "folder", *(f"{kind}/{chr(97 + at)}.png" for at in range(20) for kind in ("images", "masks")))
    expected = ids(folder(tmp_path / "folder", val_fraction=0.3, seed=5))
    assert [sorted(train.ids), sorted(val.ids)] == [sorted(each) for each in expected]
    assert len(train) + len(val) == 20
    assert len(val) > 1
    assert train.name.partition(" #")[0] == "coco train"
    assert val.name.partition(" #")[0] == "coco val"
    assert len(list((root / "segapp_masks").glob("regions-*"))) == 1, "drawn once"
    with pytest.raises(UserError, match=r"regions\.json: too few images to leave one for val"):
        mine(make(tmp_path / "one", content(region())), val=None).dataset("val")


def test_nobody_is_sent_to_download_coco_for_a_json_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.val\.annotations names the JSON, and data\.val=null takes") as refused:
        mine(tmp_path).dataset("val")
    assert "coco_voc" not in str(refused.value)


def test_windows_paths_and_other_forms_of_unicode_in_a_json(tmp_path: Path) -> None:
    values = content(region(), region(image=8), images=2)
    root = make(tmp_path, values)
    (root / "images" / "x").mkdir()
    (root / "images" / "a.png").rename(root / "images" / "x" / "a.png")
    (root / "images" / "b.png").rename(root / "images" / unicodedata.normalize("NFD", "é.png"))
    values["images"][0]["file_name"] = "x\\a.png"
    values["images"][1]["file_name"] = unicodedata.normalize("NFC", "é.png")
    (root / "regions.json").write_text(json.dumps(values))
    dataset = mine(root).dataset("train")
    assert len(dataset) == 2
    assert all(image.exists() for image in dataset.images)
    assert dataset[1].label is not None
    values["images"][0]["file_name"] = "..\\a.png"
    (root / "regions.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match="is no path inside the image folder"):
        mine(root).dataset("train")


def test_a_json_in_utf_16_is_named(tmp_path: Path) -> None:
    root = make(tmp_path, content(region()))
    (root / "regions.json").write_text(json.dumps(content(region())), encoding="utf-16")
    with pytest.raises(UserError, match=r"regions\.json: .*no text file in UTF-8, but UTF-16; save it as UTF-8"):
        mine(root).dataset("train")
