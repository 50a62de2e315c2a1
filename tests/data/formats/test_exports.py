"""What annotation programs write is read as it is: each format laid down by hand after its program's documentation."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw

from segapp.base.errors import UserError
from segapp.base.masks import write_mask
from segapp.base.paths import CONF
from segapp.data.checks.audit import audit
from segapp.data.dataset import SegmentationDataset
from segapp.data.formats.classes_file import read_classes
from segapp.data.formats.folder import FolderConfig

HEIGHT, WIDTH = 30, 40
CAT, DOG = (250, 50, 83), (51, 221, 255)


def preset_of(name: str, root: Path, **changes: Any) -> FolderConfig:
    """conf/data/NAME.yaml over conf/data/folder.yaml."""
    values: dict[str, Any] = {}
    for each in ("folder", name):
        values |= yaml.safe_load((CONF / "data" / f"{each}.yaml").read_text())
    values.pop("defaults")
    return FolderConfig.model_validate(values | {"root": root} | changes)


def image(path: Path, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng([seed, len(path.stem), *path.stem.encode()]).integers(0, 256, (HEIGHT, WIDTH, 3))
    Image.fromarray(noise.astype(np.uint8)).save(path)


def label_of(dataset: SegmentationDataset, index: int = 0) -> np.ndarray:
    label = dataset[index].label
    assert label is not None
    return label


def test_cvats_export(tmp_path: Path) -> None:
    colours = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    colours[:10], colours[10:20], colours[20] = CAT, DOG, (224, 224, 192)
    for index in range(6):
        image(tmp_path / "JPEGImages" / f"frame_{index:06d}.png")
        for folder in ("SegmentationClass", "SegmentationObject"):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.fromarray(colours).save(tmp_path / folder / f"frame_{index:06d}.png")
    (tmp_path / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:250,50,83::\ndog:51,221,255:tail,ear:run\n"
    )
    lists = tmp_path / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("".join(f"frame_{index:06d}\n" for index in range(4)))
    train, val = (preset_of("cvat", tmp_path).dataset(role) for role in ("train", "val"))
    assert train.classes == ("background", "cat", "dog")
    assert train.background == 0
    assert len(train) + len(val) == 6
    expected = np.repeat([1, 2, 255, 0], [10, 10, 1, 9])
    assert np.array_equal(label_of(train), np.repeat(expected[:, None], WIDTH, 1))
    listed = preset_of("cvat", tmp_path, train="ImageSets/Segmentation/train.txt")
    assert [len(listed.dataset(role)) for role in ("train", "val")] == [4, 2]


def roboflow(root: Path, orders: dict[str, list[str]]) -> None:
    """A cat in the upper half of each image, a dog in the lower, by each split's own list."""
    for split, names in orders.items():
        for index in range(2):
            image(root / split / f"{split}{index}_jpg.rf.0a1b.jpg")
            mask = np.full((HEIGHT, WIDTH), names.index("cat"), np.uint8)
            mask[HEIGHT // 2 :] = names.index("dog")
            Image.fromarray(mask).save(root / split / f"{split}{index}_jpg.rf.0a1b_mask.png")
        rows = "".join(f"{index}, {name}\n" for index, name in enumerate(names))
        (root / split / "_classes.csv").write_text(f"Pixel Value, Class\n{rows}")


def test_roboflows_export(tmp_path: Path) -> None:
    roboflow(tmp_path, {each: ["background", "cat", "dog"] for each in ("train", "valid", "test")})
    config = preset_of("roboflow", tmp_path)
    train, val = config.dataset("train"), config.dataset("val")
    assert train.classes == val.classes == ("background", "cat", "dog")
    assert list(val.ids) == ["valid/valid0_jpg.rf.0a1b", "valid/valid1_jpg.rf.0a1b"]
    assert np.array_equal(label_of(val)[:, 0], np.repeat([1, 2], HEIGHT // 2))
    assert len(preset_of("roboflow", tmp_path, val="test").dataset("val")) == 2
    with pytest.raises(UserError, match=r"data\.classes=.*: set data\.train, the folder that its \* stands for"):
        preset_of("roboflow", tmp_path, train=None).dataset("train")


def test_roboflows_splits_with_classes_in_other_orders_are_matched_by_name(tmp_path: Path) -> None:
    roboflow(tmp_path, {"train": ["background", "cat", "dog"], "valid": ["background", "dog", "cat"]})
    config = preset_of("roboflow", tmp_path)
    result = audit(config.dataset("train"), config.dataset("val"))
    assert [finding.kind for finding in result.findings if finding.severity != "note"] == ["missing_in_train"]
    assert result.val.dataset.classes == ("background", "cat", "dog")
    assert np.array_equal(label_of(result.val.dataset)[:, 0], np.repeat([1, 2], HEIGHT // 2))


def labelme(*shapes: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "version": "5.4.1", "flags": {}, "shapes": list(shapes), "imagePath": "x.png", "imageData": None,
        "imageHeight": HEIGHT, "imageWidth": WIDTH,
    } | more  # fmt: skip


def shape(label: str, points: Any, kind: str = "polygon", **more: Any) -> dict[str, Any]:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}} | more


SQUARE: list[list[float]] = [[5, 5], [14, 5], [14, 14], [5, 14]]


def one(root: Path, document: Any, **changes: Any) -> FolderConfig:
    """A set whose first image has this file; a second one shows a cat and a dog."""
    both = labelme(shape("cat", SQUARE), shape("dog", [[20, 5], [30, 5], [30, 14]]))
    for stem, content in (("a", document), ("b", both)):
        image(root / f"{stem}.png")
        (root / f"{stem}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    (root / "train.txt").write_text("a\n")
    return preset_of("labelme", root, train="train.txt", **changes)


def drawn(kind: str, points: list[list[float]]) -> np.ndarray:
    """As labelme's own converter draws them (labelme/utils/shape.py)."""
    picture = Image.new("L", (WIDTH, HEIGHT))
    drawing = ImageDraw.Draw(picture)
    flat = [tuple(each) for each in points]
    if kind == "polygon":
        drawing.polygon(flat, outline=1, fill=1)
    elif kind == "rectangle":
        drawing.rectangle(flat, outline=1, fill=1)
    elif kind == "circle":
        (x, y), (at_x, at_y) = flat
        radius = ((x - at_x) ** 2 + (y - at_y) ** 2) ** 0.5
        drawing.ellipse((x - radius, y - radius, x + radius, y + radius), outline=1, fill=1)
    elif kind == "point":
        ((x, y),) = flat
        drawing.ellipse((x - 5, y - 5, x + 5, y + 5), outline=1, fill=1)
    else:
        drawing.line(flat, fill=1, width=10)
    return np.asarray(picture)


@pytest.mark.parametrize(
    ("kind", "points"),
    [
        ("polygon", SQUARE),
        ("polygon", [[3.5, 2.2], [30.1, 7.9], [12.4, 28.8]]),
        ("rectangle", [[5, 5], [14, 12]]),
        ("circle", [[20, 15], [26, 15]]),
        ("line", [[2, 2], [35, 20]]),
        ("linestrip", [[2, 2], [20, 20], [35, 4]]),
        ("point", [[20, 15]]),
    ],
)
def test_labelmes_shapes(kind: str, points: list[list[float]], tmp_path: Path) -> None:
    train = one(tmp_path, labelme(shape("dog", points, kind))).dataset("train")
    assert train.classes == ("background", "cat", "dog")
    assert np.array_equal(label_of(train), 2 * drawn(kind, points))
    assert label_of(train).any()


def test_labelmes_later_shapes_lie_on_top_and_some_are_ignored(tmp_path: Path) -> None:
    inner = [[8, 8], [11, 8], [11, 11], [8, 11]]
    stencil = io.BytesIO()
    Image.fromarray(np.array([[1, 0, 1], [1, 1, 1]], bool)).save(stencil, "png")
    mask = shape("dog", [[30, 20], [32, 21]], "mask", mask=base64.b64encode(stencil.getvalue()).decode())
    rectangle = shape("dog", [[25, 5], [20, 2]], "rectangle")  # drawn from its last corner
    hole = shape("_background_", [[5, 5], [6, 5], [6, 6]])
    shapes = [shape("cat", SQUARE), shape("__ignore__", inner), mask, rectangle, hole]
    label = label_of(one(tmp_path, labelme(*shapes)).dataset("train"))
    assert label[12, 12] == 1
    assert (label[8:12, 8:12] == 255).all()
    assert label[20:22, 30:33].tolist() == [[2, 0, 2], [2, 2, 2]]
    assert (label[2:6, 20:26] == 2).all()
    assert label[5, 6] == 0


def test_labelmes_own_list_of_labels(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\ndog\ncat\nbird\n")
    train = one(tmp_path, labelme(shape("dog", SQUARE)), classes="labels.txt").dataset("train")
    assert train.classes == ("background", "dog", "cat", "bird")
    assert label_of(train)[7, 7] == 1
    train = one(tmp_path, labelme(shape("mouse", SQUARE)), classes="labels.txt").dataset("train")
    with pytest.raises(UserError, match=r"a\.json: shape 1 is of class mouse, which is none of background, dog, cat"):
        label_of(train)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "no JSON file"),
        ("[]", 'holds no list "shapes"'),
        ({"shapes": 3}, 'holds no list "shapes"'),
        (labelme({"points": SQUARE}), "shape 1 has no label"),
        (labelme(shape("cat", SQUARE[:2])), r"shape 1 \(cat\): a polygon needs 3 points, and has 2"),
        (
            labelme(shape("cat", [[0.1, 0.1], [0.9, 0.1], [0.5, 0.8]])),
            "coordinates are 0 to 1, not pixels;",
        ),
        (labelme(shape("cat", [[-9, -9], [-5, -9], [-5, -5]])), "covers no pixel of its image of 40 x 30"),
        (labelme(shape("cat", [[5, 5], [1e9, 5], [5, 9]])), "lies far outside"),
        (labelme(shape("cat", [[5, 5], [float("nan"), 5], [5, 9]])), "lies far outside"),
        (labelme(shape("cat", [5, 6, 7])), r"points are no list of \[x, y\]"),
        (labelme(shape("cat", SQUARE, "star")), "a star is no shape that is drawn"),
        (labelme(shape("cat", SQUARE, "mask", mask="###")), "its mask is no PNG in base64"),
        (labelme(shape("cat", SQUARE), imageHeight=None), "its image is 40 x None pixels"),
        (labelme(shape("cat", SQUARE), imageHeight=10**9), "more than the bound"),
        (labelme(shape("cat", SQUARE), imageWidth=50), "the mask is 50 x 30, its image 40 x 30"),
    ],
)
def test_what_is_wrong_with_a_labelme_file_is_told(document: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as refused:
        label_of(one(tmp_path, document).dataset("train"))
    assert "a.json" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("labelmap.txt", "cat:1,2,3::\ndog 4,5,6\n", "cannot read 'dog 4,5,6'; label:red,green,blue:parts:actions"),
        ("labelmap.txt", "cat:1,2,3::\ncat:4,5,6::\n", "cat stands twice"),
        ("labelmap.txt", "cat:1,2,3::\ndog:1,2,3::\n", r"\[1, 2, 3\] stands for cat and for dog"),
        ("labelmap.txt", "cat:1,2,300::\ndog:4,5,6::\n", "colours.cat=300"),
        (
            "_classes.csv",
            "Pixel Value, Class\n0, sky\nx, road\n",
            "cannot read 'x, road'; a pixel's value",
        ),
        ("_classes.csv", "Pixel Value, Class\n0, sky\n1, sky\n", "sky stands twice"),
        ("_classes.csv", "Pixel Value, Class\n", "2 to 255 class names are needed, not 0"),
        ("labels.txt", "__ignore__\n_background_\n", "2 to 255 class names are needed, not 1"),
        ("labels.txt", "cat\ncat\ndog\n", "cat stands twice"),
    ],
)
def test_what_is_wrong_with_such_a_list_is_told(name: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        read_classes(tmp_path / name)


def test_values_without_order_are_values(tmp_path: Path) -> None:
    """Roboflow's list may leave values out."""
    (tmp_path / "_classes.csv").write_text("Pixel Value, Class\n0, background\n3, cat\n", encoding="utf-8-sig")
    classes = read_classes(tmp_path / "_classes.csv")
    write_mask(tmp_path / "x.png", np.array([[0, 3, 255]], np.uint8), np.zeros((256, 3), np.uint8))
    assert classes.read_label(tmp_path / "x.png").tolist() == [[0, 1, 255]]
    assert classes.background == 0
