"""One's own images and masks: names, splits, and what values and colours mean."""

import os
import pickle
import re
import zlib
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from segapp.base.classes import ADE20K_CLASSES, CITYSCAPES_CLASSES, voc_palette
from segapp.base.errors import UserError
from segapp.base.images import write_mask
from segapp.base.paths import CONF
from segapp.cli import read_config
from segapp.data.checks.scan import scan_labels
from segapp.data.checks.splits import check_apart
from segapp.data.dataset import Indexed
from segapp.data.formats.classes_file import ByColour, ByValue, read_classes
from segapp.data.formats.folder import FolderConfig
from segapp.training.config import TrainConfig
from tests.folders import folder, make_folder


def test_folder_splits_every_image_once_and_keeps_the_split(tmp_path: Path) -> None:
    make_folder(tmp_path / "mine", 60)
    train, val = (folder(tmp_path / "mine").dataset(role) for role in ("train", "val"))
    assert sorted([*train.ids, *val.ids]) == sorted(f"photo {index}" for index in range(60))
    assert 3 <= len(val) <= 24
    assert train.classes == ("background", "cat", "dog")
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


def label(tmp_path: Path, classes: str, mask: Image.Image, name: str = "mask.png") -> list[list[int]]:
    (tmp_path / "classes.yaml").write_text(classes)
    mask.save(tmp_path / name)
    read = read_classes(tmp_path / "classes.yaml").read_label(tmp_path / name)
    assert read.dtype == np.uint8
    return read.tolist()  # type: ignore[no-any-return]


def grey(*rows: list[int]) -> Image.Image:
    return Image.fromarray(np.array(rows, np.uint8))


RED, GREEN, BLUE, BLACK, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0), (255, 255, 255)


def colours(*rows: list[tuple[int, int, int]]) -> Image.Image:
    return Image.fromarray(np.array(rows, np.uint8))


@pytest.mark.parametrize(
    ("classes", "values", "labels"),
    [
        ("[sky, road]", [0, 1, 255], [0, 1, 255]),
        ("classes: [sky, road]", [0, 1, 255], [0, 1, 255]),
        ("{classes: [sky, road], ignore: 9}", [0, 1, 9], [0, 1, 255]),
        ("{classes: [sky, road], ignore: [9, 255]}", [255, 1, 9], [255, 1, 255]),
        ("{classes: [sky, road], others: ignore}", [0, 1, 2, 77, 255], [0, 1, 255, 255, 255]),
        ("values: {sky: 0, road: 255}", [0, 255, 0], [0, 1, 0]),
        ("values: {sky: 0, road: 1}", [0, 1, 255], [0, 1, 255]),
        ("values: {road: [7, 9], sky: 23}", [7, 23, 9, 255], [0, 1, 0, 255]),
        ("{values: {road: 7, sky: 23}, ignore: [0, 3]}", [3, 23, 7, 0], [255, 1, 0, 255]),
        ("{values: {sky: [], road: 7}, others: sky}", [7, 8, 0], [1, 0, 0]),
        ("{values: {sky: [], road: 7}, others: sky}", [7, 8, 255], [1, 0, 255]),
    ],
)
def test_values_by_hand(tmp_path: Path, classes: str, values: list[int], labels: list[int]) -> None:
    assert label(tmp_path, classes, grey(values, values[::-1])) == [labels, labels[::-1]]


def test_one_bit_is_0_and_1(tmp_path: Path) -> None:
    mask = grey([0, 255], [255, 255]).convert("1")
    assert label(tmp_path, "values: {sky: 0, road: 1}", mask) == [[0, 1], [1, 1]]


COLOURS = """
colours:
  sky: [0, 0, 255]
  road: [[255, 0, 0], [0, 255, 0]]
ignore: [255, 255, 255]
"""


def test_colours_by_hand(tmp_path: Path) -> None:
    mask = colours([BLUE, RED, GREEN], [WHITE, BLUE, BLUE])
    expected = [[0, 1, 1], [255, 0, 0]]
    assert label(tmp_path, COLOURS, mask) == expected
    assert label(tmp_path, COLOURS, mask.convert("RGBA")) == expected
    assert label(tmp_path, COLOURS, mask.quantize(4)) == expected
    assert label(tmp_path, COLOURS, mask.quantize(4), "mask.bmp") == expected
    two = "{colours: {sky: [0, 0, 255], road: [255, 0, 0]}, ignore: [[0, 255, 0], [255, 255, 255]]}"
    assert label(tmp_path, two, mask) == [[0, 1, 255], [255, 0, 0]]
    rest = "{colours: {sky: [0, 0, 255], road: []}, others: road}"
    assert label(tmp_path, rest, mask) == [[0, 1, 1], [1, 0, 0]]
    assert label(tmp_path, "{colours: {sky: [0, 0, 255], road: []}, others: ignore}", mask)[0] == [0, 255, 255]


def test_colours_are_those_of_a_loop_over_pixels(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    palette = [(int(r), int(g), int(b)) for r, g, b in rng.integers(0, 256, (40, 3))]
    indices = rng.integers(0, 40, (50, 70))
    classes = {f"class {index // 2}": [list(palette[index]), list(palette[index + 1])] for index in range(0, 40, 2)}
    mask = colours(*[[palette[index] for index in row] for row in indices])
    assert label(tmp_path, yaml.safe_dump({"colours": classes}, sort_keys=False), mask) == (indices // 2).tolist()


@pytest.mark.parametrize(
    ("classes", "mask", "message"),
    [
        (
            "[sky, road]",
            colours([RED]),
            r"mask\.png: the mask is a RGB picture; .*its colours listed in classes\.yaml",
        ),
        ("values: {sky: 0, road: 1}", colours([RED]), "RGB picture"),
        ("{classes: [sky, road], ignore: 9}", grey([0, 255]), r"mask\.png: value 255 is neither .*binary mask\?"),
        ("values: {sky: 0, road: 255}", grey([0, 1]), "value 1 is neither .*0 and 1, a binary mask"),
        ("values: {sky: 1, road: 2}", grey([1, 0, 2]), "value 0 is .*not labelled"),
        ("values: {sky: 0, road: 1}", grey([1, 0, 2]), "value 2 is .*off by one"),
        ("values: {sky: 0, road: 1}", grey([1, 0, 76]), "value 76 is .*colours go under colours:"),
        ("values: {sky: 0, road: 1}", grey([*range(20)]), "with 18 such values"),
        (COLOURS, colours([RED, BLACK]), r"mask\.png: colour \[0, 0, 0\] is neither .*grey values go under values:"),
        (COLOURS, colours([RED, (1, 2, 3)]), r"colour \[1, 2, 3\] is neither .*others: ignore"),
        (COLOURS, grey([0, 1]), r"colour \[0, 0, 0\] is neither .*grey values go under values:"),
        (COLOURS, colours([(red, 0, 0) for red in range(256)]), "with 255 such colours: edges smoothed"),
        ("colours: {sky: [0, 0, 0], road: [255, 0, 0]}", colours([BLACK, BLUE]), "red and blue changed places"),
        (COLOURS, Image.new("I;16", (2, 2)), "I;16 picture"),
    ],
)
def test_what_is_not_listed_is_told_with_its_likely_cause(
    tmp_path: Path, classes: str, mask: Image.Image, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        label(tmp_path, classes, mask)


def test_a_plain_lists_mask_is_told_with_its_likely_cause(tmp_path: Path) -> None:
    make_folder(tmp_path, 2)
    for value, cause in ((3, "off by one"), (76, "colours go under colours:")):
        write_mask(tmp_path / "masks" / "photo 1.png", np.full((8, 10), value, np.uint8), voc_palette())
        with pytest.raises(UserError, match=f"value {value} is outside the 3 classes .*{cause}"):
            for role in ("train", "val"):
                scan_labels(folder(tmp_path).dataset(role))


def test_jpeg_masks_are_told(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8))
    with pytest.raises(UserError, match="JPEG changes colours: save masks as PNG"):
        label(tmp_path, COLOURS, noise, "mask.jpg")
    with pytest.raises(UserError, match="JPEG changes values: save masks as PNG"):
        label(tmp_path, "values: {a: 0, b: 1}", noise.convert("L"), "mask.jpg")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 0\nb: 1\n", r"classes\.yaml: a YAML list of class names is needed, or one of classes:, values:"),
        ("classes: [a, b]\nvalues: {a: 0, b: 1}\n", "one of classes:, values: and colours:"),
        ("", "a YAML list of class names is needed"),
        ("values: [a, b]", "values is to be a mapping of class names to values"),
        ("classes: {a: 0, b: 1}", "classes is to be a list"),
        ("{classes: [a, b], ignored: 3}", "ignored is no key here; there are classes, ignore, others"),
        ("{colours: {a: [0, 0, 0], b: [1, 1, 1]}, colors: 3}", "colors is no key here; there are colours, ignore"),
        ("values: {a: 0, a: 1}", "a stands twice, on line 1"),
        ("values: {a: 0, b: 0}", "0 stands for a and for b; list it once"),
        ("values: {a: 0, b: [1, 1]}", "1 stands for b and for b"),
        ("{classes: [a, b], ignore: 1}", "1 stands for b and for ignored pixels"),
        ("colours: {a: [0, 0, 9], b: [[1, 1, 1], [0, 0, 9]]}", r"\[0, 0, 9\] stands for a and for b"),
        ("values: {a: 0, b: 256}", r"values\.b=256: .*less than or equal to 255"),
        ("values: {a: 0, b: yes}", r"values\.b=True: .*valid integer"),
        ("values: {a: 0, b: 1.0}", r"values\.b=1\.0: .*valid integer"),
        ("values: {no: 0, yes: 1}", "quote those"),
        ("colours:\n  a: #000000\n  b: [1, 1, 1]\n", r"colours\.a has no value; # begins a comment"),
        ("colours: {a: [0, 0], b: [1, 1, 1]}", r"colours\.a"),
        ("colours: {a: 5, b: [1, 1, 1]}", r"colours\.a=5"),
        ("{values: {a: 0, b: 1}, others: c}", "others: c is no class; say ignore, or the name of one"),
        ("{values: {ignore: 0, b: 1}, others: ignore}", "others: ignore could mean the class of that name"),
        (yaml.safe_dump({"values": {f"c{value}": value for value in range(255)}}), "255 classes; a plain list holds"),
    ],
)
def test_bad_class_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "classes.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_classes(tmp_path / "classes.yaml")
    assert str(caught.value).startswith(f"{tmp_path / 'classes.yaml'}: ")


def test_a_reader_is_small_and_known_by_its_repr(tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text("[a, b]")
    assert read_classes(tmp_path / "classes.yaml").read_label == Indexed()
    colours([RED, BLUE]).save(tmp_path / "mask.png")
    reader = ByColour(((RED,), (GREEN, BLUE)), (), None)
    assert reader(tmp_path / "mask.png").tolist() == [[0, 1]]  # its table is made, and stays here
    assert len(pickle.dumps(reader)) < 1000
    assert pickle.loads(pickle.dumps(reader)) == reader
    readers = [reader, ByColour(((RED,), (GREEN,)), (), None), ByColour(((RED,), (GREEN,)), (), 255)]
    readers_by_value = [ByValue(((0,), (7, 8)), (255,), None), ByValue(((0,), (7,)), (255,), None), Indexed()]
    assert len({repr(each) for each in [*readers, *readers_by_value]}) == 6


def test_every_example_of_the_page_reads(tmp_path: Path) -> None:
    page = (CONF.parent / "data" / "README.md").read_text(encoding="utf-8")
    table = page.partition("### `classes.yaml`")[2].partition("###")[0]
    examples = re.findall(r"^\| .* \| `(.*[\]}])` \|$", table, re.MULTILINE)
    assert len(examples) == 9
    for example in examples:
        (tmp_path / "classes.yaml").write_text(example)
        assert len(read_classes(tmp_path / "classes.yaml").names) in (2, 3)


def put(root: Path, *names: str) -> None:
    """Images where the name begins with i, masks of zeros elsewhere."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB" if name.startswith("i") or "/i" in name else "L", (4, 4)).save(path)
    if not (root / "classes.yaml").exists():
        (root / "classes.yaml").write_text("[a, b]")


def ids(config: FolderConfig) -> tuple[list[str], list[str]]:
    return config.dataset("train").ids[:], config.dataset("val").ids[:]


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


LINES = {
    "id": ("x/a", "c"),
    "inside the folder": ("x/a_i.jpg", "c_i.jpg"),
    "inside the root": ("images/x/a_i.jpg", "./images/c_i.jpg"),
    "after a slash": ("/images/x/a_i.jpg", "/images//c_i.jpg"),
    "dots": ("./x/a_i.jpg", "./x/../c"),
    "absolute": ("{root}/images/x/a_i.jpg", "{root}/images/c_i.jpg"),
    "absolute, through a link": ("{given}/images/x/a_i.jpg", "{root}/images/c_i.jpg"),
    "without suffix": ("images/x/a_i", "x/../c_i"),
    "pairs": ("images/x/a_i.jpg masks/x/a.png", "images/c_i.jpg\tmasks/c.png"),
    "pairs after a slash": ("/images/x/a_i.jpg /masks/x/a.png", "/images/c_i.jpg   /masks/c.png"),
    "pairs inside their folders": ("x/a_i.jpg x/a.png", "c_i.jpg c.png"),
    "absolute pairs": ("{root}/images/x/a_i.jpg {root}/masks/x/a.png", "{given}/images/c_i.jpg masks/c.png"),
    "of any kind": ("  x/a  ", "/images/c_i.jpg masks/c.png"),
}


@pytest.mark.parametrize("lines", LINES.values(), ids=LINES)
@pytest.mark.parametrize("through", ["root", "link"])
def test_lists_as_people_have_them(tmp_path: Path, lines: tuple[str, str], through: str) -> None:
    root, link = tmp_path / "root", tmp_path / "link"
    put(
        root, "images/x/a_i.jpg", "images/x/b_i.jpg", "images/c_i.jpg", "masks/x/a.png", "masks/x/b.png", "masks/c.png"
    )
    link.symlink_to(root)
    (root / "val.txt").write_text("\r\n".join(lines).format(root=root, given=tmp_path / through))
    config = folder(tmp_path / through, image_ending="_i", val="val.txt")
    assert ids(config) == (["x/b"], ["x/a", "c"])
    assert config.dataset("val").images[1] == tmp_path / through / "images/c_i.jpg"


def test_names_with_spaces_in_pairs(tmp_path: Path) -> None:
    put(tmp_path, "images/a b.jpg", "images/a.jpg", "masks/a b.png", "masks/a.png")
    (tmp_path / "val.txt").write_text("a b.jpg a b.png\n")
    assert ids(folder(tmp_path, val="val.txt")) == (["a"], ["a b"])
    (tmp_path / "val.txt").write_text("a b\n")
    assert ids(folder(tmp_path, val="val.txt")) == (["a"], ["a b"])


def test_lists_in_folders_of_folders(tmp_path: Path) -> None:
    put(tmp_path, "u/images/1.jpg", "u/masks/1.png", "v/images/1.jpg", "v/masks/1.png")
    (tmp_path / "val.txt").write_text("v/images/1.jpg v/masks/1.png\n")
    assert ids(folder(tmp_path, images="*/images", masks="*/masks", val="val.txt")) == (["u/1"], ["v/1"])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            "c\nx/d\nx/e\n",
            r"^x/d \(and 1 more\): no such image in .*images, but .*val\.txt, line 2, lists it; .*check",
        ),
        ("c\n\n../c.jpg\n", r"^\.\./c\.jpg: no such image in .*images, but .*val\.txt, line 3, lists it$"),
        ("/elsewhere/images/c.jpg", r"^/elsewhere/images/c\.jpg: no such image in"),
        ("c.jpg c.png 1", r"^c\.jpg c\.png 1: no such image in"),
        ("c c", r"^c c: no such image in"),
        ("imagesx/c.jpg", r"^imagesx/c\.jpg: no such image in"),
        ("masks/c.png", r"^masks/c\.png: no such image in"),
        (
            "c\nx/a.jpg masks/c.png",
            r"x/a\.jpg: its mask .* \(masks/x/a\.png\), but .*val\.txt, line 2, names masks/c\.png",
        ),
        ("x/a.jpg x/nothing.png", r"x/a\.jpg: its mask .* \(masks/x/a\.png\), but .* names x/nothing\.png"),
        ("b.jpg masks/a.png", r"b\.jpg: its mask .* \(none in .*masks\), but .* names masks/a\.png"),
        ("c\nx/a\n./c.jpg\n", r"val\.txt, line 3: \./c\.jpg is listed twice, on line 1 before"),
        (b"\xff\xfe\x00c", r"val\.txt: the list of images is no text file"),
        (" \n\n", r"val\.txt: the list is empty; one image a line"),
    ],
)
def test_lines_that_name_nothing_are_told_with_their_number(tmp_path: Path, lines: str | bytes, message: str) -> None:
    put(tmp_path, "images/x/a.jpg", "images/b.jpg", "images/c.jpg", "masks/x/a.png", "masks/c.png")
    (tmp_path / "val.txt").write_bytes(lines if isinstance(lines, bytes) else lines.encode())
    with pytest.raises(UserError, match=message):
        folder(tmp_path, val="val.txt").dataset("val")


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
