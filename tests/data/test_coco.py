"""COCO's JSON to masks: against arrays written out by hand, and against pycocotools' own code."""

import errno
import json
import logging
import shutil
import time
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as pycocotools_mask
from pydantic import ValidationError

from segapp.base.classes import VOC_CLASSES, voc_palette
from segapp.base.errors import UserError
from segapp.base.images import write_mask
from segapp.cli import read_config
from segapp.data.dataset import SegmentationDataset
from segapp.data.formats.coco import CocoConfig, Region, _decoded, hash_of
from segapp.data.formats.pairs import Unpaired
from segapp.training.config import TrainConfig

HEIGHT, WIDTH = 6, 8

COCO_NAMES = [
    "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat", "traffic light",
    "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant",
    "bear", "zebra", "giraffe", "backpack", "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard",
    "sports ball", "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle",
    "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange", "broccoli",
    "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch", "potted plant", "bed", "dining table", "toilet",
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven", "toaster", "sink",
    "refrigerator", "book", "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush",
]  # fmt: skip
"""Of instances_val2017.json, in its order."""


def box(left: int, top: int, right: int, bottom: int) -> list[float]:
    """The polygon of the pixels from (left, top) to, not including, (right, bottom)."""
    return [left, top, right, top, right, bottom, left, bottom]


def region(category: int = 1, polygons: Any = None, *, image: int = 7, **more: Any) -> dict[str, Any]:
    segmentation = [box(1, 1, 3, 3)] if polygons is None else polygons
    return {"image_id": image, "category_id": category, "iscrowd": 0, "segmentation": segmentation} | more


def content(*regions: dict[str, Any], images: int = 1, names: tuple[str, ...] = ("cat", "dog")) -> dict[str, Any]:
    """Images 7, 8, ... named a.png, b.png, ...; categories 1, 2, ..."""
    return {
        "info": {"year": 2017},
        "images": [
            {"id": 7 + index, "file_name": f"{chr(97 + index)}.png", "height": HEIGHT, "width": WIDTH}
            for index in range(images)
        ],
        "annotations": [{"id": 100 + place} | each for place, each in enumerate(regions)],
        "categories": [{"id": index, "name": name} for index, name in enumerate(names, 1)],
    }


def make(root: Path, values: dict[str, Any]) -> Path:
    """The JSON and its images, for both splits."""
    (root / "images").mkdir(parents=True, exist_ok=True)
    for image in values["images"]:
        Image.new("RGB", (WIDTH, HEIGHT)).save(root / "images" / image["file_name"])
    (root / "regions.json").write_text(json.dumps(values))
    return root


def mine(root: Path, **changes: Any) -> CocoConfig:
    split = {"images": "images", "annotations": "regions.json"}
    values = {"name": "coco", "title": None, "train": split, "val": split, "classes": None, "min_pixels": 0}
    values |= {"download": False, "cache": "none", "sampler": "uniform"}
    return CocoConfig.model_validate(values | {"root": root} | changes)


def labels(root: Path, *regions: dict[str, Any], **changes: Any) -> list[list[int]]:
    """The mask of one image."""
    label = mine(make(root, content(*regions)), **changes).dataset("train")[0].label
    assert label is not None
    return [[int(value) for value in row] for row in label]


def masks(dataset: SegmentationDataset) -> list[Path]:
    assert dataset.masks is not None
    return list(dataset.masks)


def test_polygons(tmp_path: Path) -> None:
    """Two outlines of one instance, and another instance; by hand."""
    assert labels(tmp_path, region(1, [box(1, 1, 4, 3), box(6, 0, 8, 2)]), region(2, [box(0, 4, 8, 6)])) == [
        [0, 0, 0, 0, 0, 0, 1, 1],
        [0, 1, 1, 1, 0, 0, 1, 1],
        [0, 1, 1, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [2, 2, 2, 2, 2, 2, 2, 2],
        [2, 2, 2, 2, 2, 2, 2, 2],
    ]


def test_run_lengths_go_down_the_columns(tmp_path: Path) -> None:
    """Uncompressed, by hand: column 0 is 6 x 0, column 1 is 2 x 0 and 4 x 1, column 2 begins with 1."""
    code = {"size": [HEIGHT, WIDTH], "counts": [8, 5, 35]}
    assert labels(tmp_path, region(2, code)) == [
        [0, 0, 2, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 2, 0, 0, 0, 0, 0, 0],
        [0, 2, 0, 0, 0, 0, 0, 0],
        [0, 2, 0, 0, 0, 0, 0, 0],
        [0, 2, 0, 0, 0, 0, 0, 0],
    ]


@pytest.mark.parametrize("seed", range(5))
def test_compressed_run_lengths_as_pycocotools_writes_them(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = (rng.random((HEIGHT, WIDTH)) < rng.uniform(0.1, 0.9)).astype(np.uint8)
    code = pycocotools_mask.encode(np.asfortranarray(mask))["counts"].decode()
    assert labels(tmp_path, region(1, {"size": [HEIGHT, WIDTH], "counts": code})) == mask.tolist()


def test_long_runs_are_decoded() -> None:
    """Several characters a run, with differences of either sign."""
    rng = np.random.default_rng(0)
    runs = rng.integers(1, 200_000, 50)
    mask = np.repeat(np.arange(50) % 2, runs).astype(np.uint8)
    code = pycocotools_mask.encode(np.asfortranarray(mask[:, None]))["counts"].decode()
    assert _decoded(code) == runs.tolist()


def test_the_smaller_instance_lies_on_top_whatever_the_order(tmp_path: Path) -> None:
    large, small = region(1, [box(0, 0, 8, 4)]), region(2, [box(2, 1, 6, 6)])  # 32 and 20 pixels
    expected = [
        [1, 1, 1, 1, 1, 1, 1, 1],
        [1, 1, 2, 2, 2, 2, 1, 1],
        [1, 1, 2, 2, 2, 2, 1, 1],
        [1, 1, 2, 2, 2, 2, 1, 1],
        [0, 0, 2, 2, 2, 2, 0, 0],
        [0, 0, 2, 2, 2, 2, 0, 0],
    ]
    assert labels(tmp_path / "1", large, small) == expected
    assert labels(tmp_path / "2", small, large) == expected


def test_of_equals_the_later_one_lies_on_top(tmp_path: Path) -> None:
    first, second = region(1, [box(0, 0, 4, 2)], id=5), region(2, [box(2, 0, 6, 2)], id=5)
    assert labels(tmp_path / "1", first, second)[0] == [1, 1, 2, 2, 2, 2, 0, 0]
    assert labels(tmp_path / "2", second, first)[0] == [1, 1, 1, 1, 2, 2, 0, 0]


def test_crowds_are_ignored_and_hide_no_instance(tmp_path: Path) -> None:
    """Though the crowd, rows 0 to 2 of columns 2 and 3, is the smaller of the two."""
    crowd = {"size": [HEIGHT, WIDTH], "counts": [12, 3, 3, 3, 27]}
    assert labels(tmp_path, region(1, [box(0, 1, 8, 3)]), region(2, crowd, iscrowd=1)) == [
        [0, 0, 255, 255, 0, 0, 0, 0],
        [1, 1, 1, 1, 1, 1, 1, 1],
        [1, 1, 1, 1, 1, 1, 1, 1],
        [0] * 8,
        [0] * 8,
        [0] * 8,
    ]


def test_other_categories_and_their_crowds_are_background_and_hide_nothing(tmp_path: Path) -> None:
    regions = region(1, [box(0, 0, 6, 1)]), region(2, [box(1, 0, 2, 1)]), region(2, [box(0, 2, 8, 6)], iscrowd=1)
    assert labels(tmp_path, *regions, classes={"cat": "cat"}) == [[1] * 6 + [0] * 2] + [[0] * 8] * 5


def test_categories_merge_into_classes_in_the_order_chosen(tmp_path: Path) -> None:
    root = make(tmp_path, content(*(region(k, [box(k, 0, k + 1, 1)]) for k in (1, 2, 3)), names=("cat", "dog", "cup")))
    dataset = mine(root, classes={"thing": "cup", "animal": ["dog", "cat"]}).dataset("train")
    assert dataset.classes == ("background", "thing", "animal")
    label = dataset[0].label
    assert label is not None
    assert label[0].tolist() == [0, 2, 2, 1, 0, 0, 0, 0]


def test_a_category_named_background_is_background(tmp_path: Path) -> None:
    root = make(tmp_path, content(region(1), region(2), names=("background", "cat")))
    dataset = mine(root).dataset("train")
    assert dataset.classes == ("background", "cat")
    assert dataset[0].label is not None
    assert dataset[0].label.max() == 1


def test_polygons_that_enclose_nothing(tmp_path: Path) -> None:
    """Two points, which pycocotools takes for a box, beside a real one; and no region at all."""
    assert labels(tmp_path / "1", region(1, [[0, 0, 5, 5], box(0, 0, 1, 1)]))[0] == [1, 0, 0, 0, 0, 0, 0, 0]
    assert not np.any(labels(tmp_path / "2", region(1, [[0, 0, 5, 5]])))
    assert not np.any(labels(tmp_path / "3"))


def test_an_image_is_kept_at_the_pixels_demanded_and_not_below(tmp_path: Path) -> None:
    """6 pixels of a class are seen: of 8, two are hidden by one of the other category's, and crowds do not count."""
    crowd = region(1, [box(0, 4, 8, 6)], iscrowd=1)
    regions = region(1, [box(0, 0, 6, 1)]), region(1, [box(0, 0, 2, 1)]), crowd, region(2, [box(0, 2, 8, 3)], image=8)
    root = make(tmp_path, content(*regions, images=3))
    kept = {pixels: list(mine(root, min_pixels=pixels).dataset("train").ids) for pixels in (0, 1, 6, 7, 8)}
    assert kept == {0: ["a", "b", "c"], 1: ["a", "b"], 6: ["a", "b"], 7: ["b"], 8: ["b"]}
    with pytest.raises(UserError, match=r"regions\.json: no image has 9 pixels.*data\.min_pixels"):
        mine(root, min_pixels=9).dataset("train")


def coco(choice: str, root: Path) -> CocoConfig:
    data = read_config("train", [f"data={choice}", f"data.root={root}"], TrainConfig).data
    assert isinstance(data, CocoConfig)
    return data


def make_coco(root: Path, side: int = 40) -> Path:
    """COCO's layout: in each split one image a category, of which `side` x 25 pixels are marked."""
    values = content(
        *(region(place + 1, [[0, 0, 25, 0, 25, side, 0, side]], image=place) for place in range(80)),
        names=tuple(COCO_NAMES),
    )
    values["images"] = [
        {"id": place, "file_name": f"{place:012d}.jpg", "height": 50, "width": 30} for place in range(80)
    ]
    (root / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        (root / split).mkdir()
        for image in values["images"]:
            Image.new("RGB", (30, 50)).save(root / split / image["file_name"])
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(values))
    return root


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


def test_masks_are_drawn_once_and_anew_when_something_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    root = make(tmp_path / "set", content(region(1)))
    dataset = mine(root).dataset("train")
    (first,) = masks(dataset)
    assert first.is_relative_to(root / "segapp_masks")
    assert dataset.name.startswith("set train #")
    read: list[Path] = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or read_bytes(path))  # type: ignore[func-returns-value]
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("hashed again"))
    assert masks(mine(root).dataset("val")) == [first]
    assert not read
    monkeypatch.undo()
    (root / "regions.json").write_text(json.dumps(content(region(2))))
    (second,) = masks(mine(root).dataset("train"))
    (third,) = masks(mine(root, classes={"dog": "dog"}).dataset("train"))
    assert len({first.parent, second.parent, third.parent}) == 3
    assert [np.array(Image.open(mask)).max() for mask in (first, second, third)] == [1, 2, 1]
    shutil.copytree(root, tmp_path / "moved")
    (moved,) = masks(mine(tmp_path / "moved").dataset("train"))
    assert moved == tmp_path / "moved" / second.relative_to(root)
    assert caplog.text.count("drawing its masks, once") == 3


def test_the_hash_is_remembered_by_size_and_time(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert hash_of(file) == known
    (memory,) = (tmp_path / "cache" / "hashes").iterdir()
    for damage in ("", "[]", "{}", "no JSON"):
        memory.write_text(damage)
        assert hash_of(file) == known
    file.write_text("abcd")
    assert hash_of(file) != known


def test_a_root_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache folder takes the masks; those that lie in the root already are taken from there."""
    root = make(tmp_path / "set", content(region(1)))
    (root / "segapp_masks").write_text("in the way, for whoever tests as root")
    (mask,) = masks(mine(root).dataset("train"))
    assert mask.is_relative_to(tmp_path / "cache" / "masks")
    assert masks(mine(root).dataset("val")) == [mask]
    (root / "segapp_masks").unlink()
    shutil.copytree(mask.parent, root / "segapp_masks" / mask.parent.name)
    assert masks(mine(root).dataset("train"))[0].is_relative_to(root)
    shutil.rmtree(root / "segapp_masks")
    (root / "segapp_masks").write_text("in the way")
    monkeypatch.setenv("SEGAPP_CACHE", str(root / "regions.json"))
    with pytest.raises(UserError, match=r"segapp_masks: masks cannot be written there.*SEGAPP_CACHE"):
        mine(root).dataset("train")


def many(root: Path, number: int = 100) -> Path:
    """More than one process draws."""
    values = content(*(region(1, [box(0, 0, 1 + k % 8, 1)], image=k) for k in range(number)))
    values["images"] = [{"id": k, "file_name": f"{k}.png", "height": HEIGHT, "width": WIDTH} for k in range(number)]
    return make(root, values)


def draw_elsewhere(root: Path) -> ForkProcess:
    process = get_context("fork").Process(target=lambda: mine(root).dataset("train"))
    process.start()
    return process


def check_many(root: Path) -> None:
    dataset = mine(root).dataset("train")
    drawn = [dataset[index].label for index in range(len(dataset))]
    assert [int((label == 1).sum()) for label in drawn if label is not None] == [1 + k % 8 for k in range(100)]
    assert not [path for path in (root / "segapp_masks").iterdir() if path.name[0] == "." and path.is_dir()]


def slowly(path: Path, label: np.ndarray, palette: np.ndarray) -> None:
    time.sleep(0.02)
    write_mask(path, label, palette)


@pytest.mark.slow
def test_killed_in_the_middle_then_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next one waits for no process that outlives the one killed."""
    root = many(tmp_path)
    monkeypatch.setattr("segapp.data.formats.coco.write_mask", slowly)
    process = draw_elsewhere(root)
    deadline = time.monotonic() + 60
    while len(list(root.glob("segapp_masks/.*/*.png"))) < 20:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.join()
    assert not list(root.glob("segapp_masks/[!.]*"))
    check_many(root)


def test_two_processes_draw_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = many(tmp_path)
    monkeypatch.setattr("segapp.data.formats.coco.write_mask", lambda path, *mask: path.touch(exist_ok=False))
    both = [draw_elsewhere(root) for _ in range(2)]
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    assert [len(list(folder.glob("*.png"))) for folder in root.glob("segapp_masks/*-*")] == [100]


def test_a_failure_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    root = many(tmp_path)
    values = json.loads((root / "regions.json").read_text())
    values["annotations"][70]["segmentation"] = [[0, 0, 1, 0, 1]]
    whole = (root / "regions.json").read_text()
    (root / "regions.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"regions\.json: annotation 170: "):
        mine(root).dataset("train")
    assert all(path.suffix == ".lock" for path in (root / "segapp_masks").iterdir())
    (root / "regions.json").write_text(whole)
    check_many(root)


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(tmp_path, content(region(1)))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("segapp.data.formats.coco.write_mask", full)
    with pytest.raises(UserError, match=r"segapp_masks: the masks cannot be written \(No space left on device\)"):
        mine(root).dataset("train")
    monkeypatch.undo()
    assert len(mine(root).dataset("train")) == 1


def test_a_damaged_index_is_told(tmp_path: Path) -> None:
    root = make(tmp_path, content(region(1)))
    (mask,) = masks(mine(root).dataset("train"))
    (mask.parent / "index.json").write_text("{}")
    with pytest.raises(UserError, match=r"index\.json: damaged; delete the folder"):
        mine(root).dataset("train")


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


def test_missing_data_is_told_with_the_way_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"instances_train2017\.json: no such file; tools/prepare_data\.py coco_voc .*data\.root"
    ):
        coco("coco_voc", tmp_path).dataset("train")


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


def test_regions_are_small(tmp_path: Path) -> None:
    """A tuple: a file of COCO's size has nearly a million."""
    assert not hasattr(Region(1, 1, False, []), "__dict__")
