"""What check finds in labels stops training, too: each kind on the smallest input that has it."""

import io
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segapp.base.errors import UserError
from segapp.base.images import Decoding
from segapp.data.checks.audit import audit
from segapp.data.checks.label_findings import find_in_labels, refuse_labels
from segapp.data.checks.labels import scan_set
from segapp.data.dataset import SegmentationDataset
from segapp.data.formats.classes_file import read_classes
from tests.data.checks.samples import CLASSES, HEIGHT, WIDTH, Array, Pair, a_mask
from tests.data.formats.coco.samples import box, content, make, mine, region

RED, BLUE = (255, 0, 0), (0, 0, 255)


def kinds(train: SegmentationDataset, val: SegmentationDataset | None = None) -> dict[str, str]:
    """Severities by kind; what the audit finds in the same sets is the same."""
    sets = [scan_set(train, "train"), *([] if val is None else [scan_set(val, "val")])]
    found = {finding.kind: finding.severity for finding in find_in_labels(sets)}
    if val is not None:
        audited = {finding.kind: finding.severity for finding in audit(train, val).findings}
        assert found.items() <= audited.items()
    errors = [kind for kind, severity in found.items() if severity == "error"]
    if errors:
        with pytest.raises(UserError):
            refuse_labels(sets)
    else:
        refuse_labels(sets)
    return dict(found)


def pair_of(pair: Pair) -> tuple[SegmentationDataset, SegmentationDataset]:
    return pair.dataset("train"), pair.dataset("val")


def with_palette(pair: Pair, id: str, *colours: tuple[int, int, int], mask: Array | None = None) -> None:
    picture = Image.fromarray(a_mask() if mask is None else mask)
    picture.putpalette([value for colour in colours for value in colour])
    picture.save(pair.mask(id))


def test_sound_labels_have_no_finding(pair: Pair) -> None:
    assert kinds(*pair_of(pair)) == {}


def test_an_index_of_two_colours_is_an_error(pair: Pair) -> None:
    for index in range(6):
        with_palette(pair, f"t{index}", (0, 0, 0), *((BLUE, RED) if index == 3 else (RED, BLUE)))
    train = pair.dataset("train")
    assert kinds(train, pair.dataset("val")) == {"two_colours": "error"}
    with pytest.raises(UserError, match=r"t3_mask\.png: index 1 is \[0, 0, 255\], and \[255, 0, 0\] in .*colours: \{"):
        refuse_labels([scan_set(train, "train")])


def test_a_colour_of_two_indices_is_an_error(pair: Pair) -> None:
    """They look alike, and no index is in use in both."""
    one, two = a_mask(), a_mask()
    one[one == 2], two[two == 1] = 1, 2
    with_palette(pair, "t0", (0, 0, 0), RED, mask=one)
    with_palette(pair, "t1", (0, 0, 0), (9, 9, 9), RED, mask=two)
    found = list(find_in_labels([scan_set(pair.dataset("train"), "train")]))
    (finding,) = [each for each in found if each.kind == "two_colours"]
    assert finding.files == (f"{pair.mask('t1')}: [255, 0, 0] is index 2, and 1 in {pair.mask('t0')}",)


def test_palettes_that_agree_where_they_are_used_are_sound(pair: Pair) -> None:
    with_palette(pair, "t0", (0, 0, 0), RED, BLUE)
    with_palette(pair, "t1", (0, 0, 0), RED, BLUE, (7, 7, 7), (8, 8, 8))  # more, unused
    with_palette(pair, "t2", *((value, value, value) for value in range(256)))  # greys: a program's way to say none
    with_palette(pair, "t3", (0, 0, 0), (1, 2, 3), BLUE, mask=np.where(a_mask() == 1, 0, a_mask()).astype(np.uint8))
    assert kinds(*pair_of(pair)) == {}


def test_palettes_say_nothing_where_values_or_colours_are_named(pair: Pair, tmp_path: Path) -> None:
    with_palette(pair, "t0", (0, 0, 0), RED, BLUE)
    with_palette(pair, "t1", (0, 0, 0), BLUE, RED)
    (tmp_path / "classes.yaml").write_text("values: {background: 0, cat: 1, dog: 2}")
    train = pair.dataset("train")
    train.read_label = read_classes(tmp_path / "classes.yaml").read_label
    assert kinds(train) == {}


def jpeg(values: Array, quality: int = 75) -> Array:
    """After a JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "jpeg", quality=quality)
    return np.asarray(Image.open(buffer))


def test_a_lossy_mask_is_an_error_whatever_its_name_and_values(pair: Pair) -> None:
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(pair.mask("t1"), "jpeg")  # sound values, a PNG's name
    train = pair.dataset("train")
    assert kinds(train, pair.dataset("val")) == {"lossy": "error"}


def test_a_lossy_mask_of_values_far_apart_is_a_warning(pair: Pair, tmp_path: Path) -> None:
    flat = np.zeros((HEIGHT, WIDTH), np.uint8)
    flat[:16] = 255
    for index in range(6):
        Image.fromarray(flat).save(pair.mask(f"t{index}"), "jpeg", quality=100)
    (tmp_path / "classes.yaml").write_text("values: {background: 0, cat: 255}\nothers: ignore")
    train = pair.dataset("train")
    classes = read_classes(tmp_path / "classes.yaml")
    train.read_label, train.classes = classes.read_label, classes.names
    assert kinds(train) == {"lossy": "warning"}


@pytest.mark.parametrize("quality", [50, 75, 90, 95])
def test_ringing_is_seen_where_the_wrong_values_are_classes(quality: int, pair: Pair) -> None:
    """VOC's 21 classes: a JPEG of 0, 8 and 15 that somebody has saved as PNG."""
    drawn = np.zeros((HEIGHT, WIDTH), np.uint8)
    drawn[5:18, 6:20], drawn[12:27, 24:37] = 8, 15
    names = tuple(f"class {index}" for index in range(1, 22))
    for index in range(6):
        pair.write_mask(f"t{index}", jpeg(drawn, quality).clip(0, 20).astype(np.uint8))
    train = pair.dataset("train")
    train.classes = names
    found = kinds(train)
    assert found["mixed_edges"] == "warning"
    assert "two_colours" not in found


@pytest.mark.parametrize(
    ("peak", "white_level", "found"),
    [(255, 65535, True), (4095, 65535, True), (16383, 65535, True), (16384, 65535, False), (65535, 65535, False),
     (255, 255, False), (4095, 4095, False), (1000, 4095, True)],
)  # fmt: skip
def test_deep_images_that_are_nearly_black_are_told(peak: int, white_level: int, found: bool, pair: Pair) -> None:
    deep = np.linspace(0, peak, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.uint16)
    Image.fromarray(deep).save(pair.image("t2"), "png")
    train, val = pair_of(pair)
    for each in (train, val):
        each.decoding = Decoding(white_level=white_level)
    assert kinds(train, val) == ({"dim": "warning"} if found else {})


def test_the_white_level_that_would_do_is_named(pair: Pair) -> None:
    Image.fromarray(np.full((HEIGHT, WIDTH), 3000, np.uint16)).save(pair.image("t2"), "png")
    (finding,) = find_in_labels([scan_set(pair.dataset("train"), "train")])
    assert "its brightest is 3000 of 65535" in finding.files[0]
    assert "white_level=4095" in finding.advice


def test_one_class_alone_stops_training(pair: Pair) -> None:
    for index in range(6):
        pair.write_mask(f"t{index}", np.where(a_mask() == 0, 0, 255).astype(np.uint8))
    assert kinds(*pair_of(pair)) == {"one_class": "error", "missing_in_train": "warning"}
    with pytest.raises(UserError, match="the train set holds only background and ignored pixels; 255 means"):
        refuse_labels([scan_set(pair.dataset("train"), "train")])


def test_a_val_of_one_class_is_a_warning(pair: Pair, caplog: pytest.LogCaptureFixture) -> None:
    for index in range(3):
        pair.write_mask(f"v{index}", np.zeros((HEIGHT, WIDTH), np.uint8))
    with caplog.at_level(logging.WARNING):
        assert kinds(*pair_of(pair)) == {"one_class_in_val": "warning", "missing_in_val": "note"}
    assert "the val set holds only background; the mean IoU of one class says nothing" in caplog.text


def coco(root: Path, *regions: dict[str, Any]) -> SegmentationDataset:
    return mine(make(root, content(*regions))).dataset("train")


def test_a_coco_of_crowds_alone_is_told_what_to_do(tmp_path: Path) -> None:
    crowd = coco(tmp_path, region(1, iscrowd=1), region(2, [box(4, 4, 6, 6)], iscrowd=1))
    with pytest.raises(UserError, match="2 of 2 annotations became void: iscrowd is 1.*set iscrowd to 0"):
        refuse_labels([scan_set(crowd, "train")])


FLAT = {"size": [6, 8], "counts": [48]}


@pytest.mark.parametrize(
    ("lost", "kind", "severity"),
    [
        (region(1, iscrowd=1), "crowd", "warning"),
        (region(1, [[1, 1, 3, 3]]), "few_points", "warning"),
        (region(1, [[0.1, 0.1, 0.9, 0.1, 0.5, 0.8]]), "normalised", "warning"),
        (region(1, [box(9, 1, 12, 3)]), "outside", "warning"),
        (region(1, FLAT), "empty", "warning"),
        (region(1, []), "no_outline", "warning"),
        (region(1, [box(5, 4, 7, 5)]), "hidden", "warning"),
    ],
)
def test_annotations_that_vanish_are_told_by_class_and_reason(
    lost: dict[str, Any], kind: str, severity: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Beside a cat and a dog that are drawn; a dog hides what lies below."""
    sound = [region(1), region(2, [box(4, 3, 8, 6)]), region(2, [box(5, 4, 7, 5)])]
    with caplog.at_level(logging.WARNING):
        train = coco(tmp_path, lost, *sound)
    assert "1 of 4 annotations " in caplog.text
    assert "(cat 1)" in caplog.text
    found = {finding.kind: finding for finding in find_in_labels([scan_set(train, "train")])}
    finding = found[f"annotations_{kind}"]
    assert finding.severity == severity
    assert finding.files == ("cat: 1 of 2",)


def test_normalised_polygons_are_an_error_where_most_are(tmp_path: Path) -> None:
    small = [[0.1, 0.1, 0.9, 0.1, 0.5, 0.8]]
    train = coco(tmp_path, region(1, small), region(1, small), region(2, [box(4, 3, 8, 6)]))
    with pytest.raises(UserError, match="2 of 3 annotations of train .*coordinates are 0 to 1.*multiply x by"):
        refuse_labels([scan_set(train, "train")])


def test_annotations_that_no_class_takes_are_a_note(tmp_path: Path) -> None:
    root = make(tmp_path, content(region(1), region(2), region(2)))
    train = mine(root, classes={"cat": "cat"}).dataset("train")
    found = {finding.kind: finding for finding in find_in_labels([scan_set(train, "train")])}
    finding = found["annotations_left_out"]
    assert (finding.severity, finding.count, finding.files) == ("note", 2, ("dog: 2 of 2",))


def test_all_that_was_found_is_remembered(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the cache, as from the files."""
    with_palette(pair, "t0", (0, 0, 0), RED, BLUE)
    with_palette(pair, "t1", (0, 0, 0), BLUE, RED)
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(pair.mask("t2"), "jpeg")
    Image.fromarray(np.full((HEIGHT, WIDTH), 99, np.uint16)).save(pair.image("t3"), "png")
    train = pair.dataset("train")
    first = list(find_in_labels([scan_set(train, "train")]))
    assert {each.kind for each in first} >= {"two_colours", "lossy", "dim"}

    def never(path: Path) -> Array:
        raise AssertionError(path)

    monkeypatch.setattr("segapp.data.dataset.read_mask", never)
    assert list(find_in_labels([scan_set(train, "train")])) == first
    assert train.classes == CLASSES


def test_black_images_are_not_taken_for_copies_of_each_other(pair: Pair) -> None:
    """Images of 16 bits that 8 bits would make alike; and one that is a copy."""
    rng = np.random.default_rng(0)
    for id in ("t0", "t1", "t2", "v0"):
        Image.fromarray(rng.integers(0, 200, (HEIGHT, WIDTH)).astype(np.uint16)).save(pair.image(id), "png")
    assert {finding.kind for finding in pair.audit().findings} == {"dim"}
    with Image.open(pair.image("t0")) as image:
        image.save(pair.image("v0"), "tiff")
    assert {finding.kind for finding in pair.audit().findings} == {"dim", "copied"}


def test_the_colour_of_what_is_ignored_says_nothing(pair: Pair) -> None:
    for id, void in (("t0", (255, 255, 255)), ("t1", (224, 224, 192))):
        with_palette(pair, id, (0, 0, 0), RED, BLUE, *[(9, 9, 9)] * 252, void)
    assert kinds(*pair_of(pair)) == {}
