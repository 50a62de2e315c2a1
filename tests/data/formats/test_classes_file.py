"""classes.yaml: what values and colours mean, and what is refused."""

import pickle
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from segapp.base.classes import voc_palette
from segapp.base.errors import UserError
from segapp.base.masks import write_mask
from segapp.base.paths import CONF
from segapp.data.checks.scan import scan_labels
from segapp.data.dataset import Indexed
from segapp.data.formats.classes_file import read_classes
from segapp.data.formats.label_readers import ByColour, ByValue
from tests.data.samples import grey
from tests.folders import folder, make_folder


def label(tmp_path: Path, classes: str, mask: Image.Image, name: str = "mask.png") -> list[list[int]]:
    (tmp_path / "classes.yaml").write_text(classes)
    mask.save(tmp_path / name)
    read = read_classes(tmp_path / "classes.yaml").read_label(tmp_path / name)
    assert read.dtype == np.uint8
    return read.tolist()  # type: ignore[no-any-return]


LAUGHS = "{a: &a [x, x, x, x, x, x, x, x]" + "".join(
    f", {name}: &{name} [{', '.join([f'*{before}'] * 8)}]" for before, name in pairwise("abcdefghijk")
)
"""A few hundred bytes, which written out are 8 ** 11 letters."""
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
        ("{classes: [a, b], ignored: 3}", "ignored is no key here; there are background, classes, ignore, others"),
        (
            "{colours: {a: [0, 0, 0], b: [1, 1, 1]}, colors: 3}",
            "colors is no key here; there are background, colours, ignore",
        ),
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
        ("{classes: [a, b], background: c}", "background: c is no class; say null, or the name of one$"),
        ("{classes: [a, b], background: 0}", "background=0: .*valid string"),
        ("!!int ''", "not YAML"),
        ("!!bool x", "not YAML"),
        ("!!timestamp x", "not YAML"),
        ("!!map [a]", "not YAML"),
        ("[" * 3000, "not YAML"),
        (f"{{classes: [a, b], ignore: 0x{'f' * 5000}}}", r"ignore\.0=.{1,80}: Input should be "),
        (f"{{classes: [a, b], ignore: [[0x{'f' * 5000}]]}}", r"ignore\.0=.{1,80}: Input should be "),
        (f"{LAUGHS}, classes: [a, b], ignore: *k}}", r"ignore.0=\[\[.*\.\.\.\]: "),
        ('{classes: [a, b], "\\e[31m\\n": 1}', r"classes.yaml: \\x1b\[31m  ?is no key here"),
        (yaml.safe_dump({"values": {f"c{value}": value for value in range(255)}}), "255 classes; a plain list holds"),
    ],
)
def test_bad_class_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "classes.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as caught:
        read_classes(tmp_path / "classes.yaml")
    assert str(caught.value).startswith(f"{tmp_path / 'classes.yaml'}: ")


@pytest.mark.parametrize(
    ("classes", "background"),
    [
        ("[background, cat]", 0),
        ("[cat, Background]", 1),
        ("[sky, road]", None),
        ("{classes: [sky, road], background: road}", 1),
        ("{classes: [background, road], background: road}", 1),
        ("{classes: [background, road], background: null}", None),
        ("{values: {sky: 23, rest: []}, others: rest, background: rest}", 1),
        ("{values: {sky: 23, rest: []}, others: rest}", None),
        ("{colours: {background: [0, 0, 0], road: [255, 0, 0]}}", 0),
        ("{colours: {background: [0, 0, 0], road: [255, 0, 0]}, background: null}", None),
    ],
)
def test_which_class_pictures_leave_uncoloured(tmp_path: Path, classes: str, background: int | None) -> None:
    (tmp_path / "classes.yaml").write_text(classes)
    assert read_classes(tmp_path / "classes.yaml").background == background


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
    assert [repr(each) for each in (readers[2], readers_by_value[0], Indexed())] == [
        "ByColour(classes=(((255, 0, 0),), ((0, 255, 0),)), ignore=(), others=255)",
        "ByValue(classes=((0,), (7, 8)), ignore=(255,), others=None)",
        "Indexed()",
    ], "as ever: label scans are cached by it"


def test_every_example_of_the_page_reads(tmp_path: Path) -> None:
    page = (CONF.parent / "data" / "README.md").read_text(encoding="utf-8")
    table = page.partition("### `classes.yaml`")[2].partition("###")[0]
    examples = re.findall(r"^\| .* \| `(.*[\]}])` \|$", table, re.MULTILINE)
    assert len(examples) == 9
    for example in examples:
        (tmp_path / "classes.yaml").write_text(example)
        assert len(read_classes(tmp_path / "classes.yaml").names) in (2, 3)
