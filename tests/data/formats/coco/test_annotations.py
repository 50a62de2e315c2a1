"""What is wrong with a JSON file is told with its place."""

import json
from pathlib import Path
from typing import Any

import pytest

from segapp.base.errors import UserError
from segapp.data.formats.coco.annotations import Region
from tests.data.formats.coco.samples import HEIGHT, WIDTH, content, make, mine, region

RLE: dict[str, Any] = {"size": [HEIGHT, WIDTH]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda v: v["annotations"][0].update(category_id=9), "annotation 100 has category_id 9, which is none of"),
        (lambda v: v["annotations"][0].update(category_id=[1]), "annotation 100 has category_id"),
        (
            lambda v: v["annotations"][0].update(image_id=9),
            "annotation 100 has image_id 9, which is none of the images",
        ),
        (lambda v: v["annotations"].append("x"), "annotation number 1 has category_id None"),
        (lambda v: v["images"][0].update(height=7), r"a\.png: 8 x 6 pixels .*, but image 7 of \S+\.json is 8 x 7"),
        (
            lambda v: v["images"][0].update(height=10**9, width=10**9),
            "image 7: 1000000000 x 1000000000 pixels are more",
        ),
        (lambda v: v["images"][0].update(height=0), 'entry 0 of "images" has height 0'),
        (lambda v: v["images"][0].pop("file_name"), 'entry 0 of "images" has file_name None'),
        (lambda v: v["images"][0].update(file_name="../a.png"), r"image 7: .*is no path inside the image folder"),
        (lambda v: v["images"][0].update(file_name="/a.png"), r"image 7: .*is no path inside the image folder"),
        (lambda v: v["images"][0].update(file_name="a\0.png"), "image 7: .*is no path inside the image folder"),
        (lambda v: v["images"][0].update(file_name="\ud800.png"), "image 7: .*is no path inside the image folder"),
        (lambda v: v["categories"][0].update(name="\x1b[2J"), "characters that cannot be shown"),
        (lambda v: v["images"][0].update(file_name="."), r"image 7: .*is no path inside the image folder"),
        (lambda v: v["images"].append(v["images"][0]), "image 7 is there twice"),
        (lambda v: v["images"].append(v["images"][0] | {"id": 8, "file_name": "a.jpg"}), "two images are named a;"),
        (lambda v: v["images"].append(v["images"][0] | {"id": 8, "file_name": "./a.png"}), "two images are named a;"),
        (lambda v: v["images"].append(v["images"][0] | {"id": 8, "file_name": "z.png"}), r"z\.png: no such file, but"),
        (lambda v: v["categories"].append({"id": 3, "name": "cat"}), "two categories are named cat"),
        (lambda v: v["categories"].append({"id": 2, "name": "cup"}), "category 2 is there twice"),
        (lambda v: v.pop("categories"), 'holds no list "categories"'),
        (lambda v: v["annotations"][0].pop("segmentation"), "no annotation has a segmentation; boxes"),
        (lambda v: v["annotations"][0].update(segmentation=[]), "no annotation has a segmentation; boxes"),
        (lambda v: v["annotations"][0].update(segmentation=[0, 0, 2, 0, 2, 2]), "annotation 100: .*neither"),
        (lambda v: v["annotations"][0].update(segmentation=[[0, 0, 2, 0, 2, "x"]]), "annotation 100: .*neither"),
        (lambda v: v["annotations"][0].update(segmentation=[[0, 0, 2, 0, 2, 2, 1]]), "annotation 100: .*neither"),
        (lambda v: v["annotations"][0].update(segmentation="x"), "annotation 100: .*neither"),
        (lambda v: v["annotations"][0].update(segmentation=[[0, 0, 2, 0, 1e9, 2]]), "annotation 100: .*far outside"),
        (lambda v: v["annotations"][0].update(segmentation=[[0, 0, 2, 0, float("nan"), 2]]), "100: .*far outside"),
        (lambda v: v["annotations"][0].update(segmentation={"size": [8, 6], "counts": [48]}), r"100: .*size \[8, 6\]"),
        (
            lambda v: v["annotations"][0].update(segmentation=RLE | {"counts": [1, 2]}),
            "100: its run-length code is dam",
        ),
        (lambda v: v["annotations"][0].update(segmentation=RLE | {"counts": [50, -2]}), "100: its run-length code is"),
        (
            lambda v: v["annotations"][0].update(segmentation=RLE | {"counts": "zzz"}),
            "100: its run-length code is dam",
        ),
        (lambda v: v["annotations"][0].update(segmentation=RLE | {"counts": ""}), "100: its run-length code is dam"),
        (lambda v: v["annotations"][0].update(segmentation=RLE | {"counts": "é1"}), "100: its run-length code is"),
        (lambda v: v["annotations"][0].update(segmentation=RLE | {"counts": "1"}), "100: its run-length code is dam"),
    ],
)
def test_what_does_not_fit_is_named_with_its_file(tmp_path: Path, damage: Any, message: str) -> None:
    values = content(region(1))
    make(tmp_path, values)
    damage(values)
    (tmp_path / "regions.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=message) as error:
        mine(tmp_path).dataset("train")
    assert "regions.json" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("data", "message"), [(b"{", "no JSON file"), (b"\xff", "UTF-8"), (b"[]", '"images"')])
def test_files_of_another_kind(tmp_path: Path, data: bytes, message: str) -> None:
    make(tmp_path, content()).joinpath("regions.json").write_bytes(data)
    with pytest.raises(UserError, match=rf"regions\.json: .*{message}"):
        mine(tmp_path).dataset("train")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"tier": "cta"}, r"regions\.json: there is no category cta, which data\.classes\.tier .*did you mean cat\?"),
        ({"tier": "zebra"}, r"there is no category zebra.*there are: cat, dog"),
    ],
)
def test_classes_of_no_category(tmp_path: Path, classes: Any, message: str) -> None:
    root = make(tmp_path, content(region(1)))
    with pytest.raises(UserError, match=message):
        mine(root, classes=classes).dataset("train")


def test_regions_are_small(tmp_path: Path) -> None:
    """A tuple: a file of COCO's size has nearly a million."""
    assert not hasattr(Region(1, 1, False, []), "__dict__")
