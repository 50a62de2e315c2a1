"""Small JSON files in COCO's format, and their images."""

import json
from pathlib import Path
from typing import Any

from PIL import Image

from segapp.base.compose import read_config
from segapp.data.dataset import SegmentationDataset
from segapp.data.formats.coco import CocoConfig
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
