"""The audit on data broken by hand: each damage gives its finding and no other, and clean masks give none."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from segapp.base.errors import UserError
from segapp.cli import read_config, run_tool
from segapp.data.checks.audit import (
    AuditedSet,
    Finding,
    Role,
    choose_pictures,
    find,
    has_mixed_edges,
    look_at,
    verdict,
)
from segapp.data.checks.scan import count_labels, scan_labels
from segapp.data.dataset import SegmentationDataset
from segapp.data.formats.classes_file import read_classes
from segapp.data.packed_strings import PackedStrings
from segapp.training.config import TrainConfig
from tests.folders import folder, make_folder
from tests.reports.test_pages import Page

Array = npt.NDArray[np.uint8]
Capture = pytest.CaptureFixture[str]

CLASSES = ("background", "cat", "dog")
HEIGHT, WIDTH = 30, 40


def a_mask() -> Array:
    """20 rows of 0 over 5 of 1 over 5 of 2, a void column at the left."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[20:25] = 1
    mask[25:] = 2
    mask[:, 0] = 255
    return mask


class Pair:
    """A train set of 6 images and a val set of 3, all different and all sound."""

    def __init__(self, root: Path) -> None:
        self.root = root
        rng = np.random.default_rng(0)
        for id in (*(f"t{index}" for index in range(6)), *(f"v{index}" for index in range(3))):
            self.write_image(id, rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
            self.write_mask(id, a_mask())

    def image(self, id: str) -> Path:
        return self.root / f"{id}.jpg"

    def mask(self, id: str) -> Path:
        return self.root / f"{id}_mask.png"

    def write_image(self, id: str, pixels: Array, **options: Any) -> None:
        Image.fromarray(pixels).save(self.image(id), "png", **options)  # whatever the suffix: pixels must stay

    def write_mask(self, id: str, values: Array) -> None:
        Image.fromarray(values).save(self.mask(id))

    def dataset(self, role: str, ids: list[str] | None = None) -> SegmentationDataset:
        ids = ids or [f"{role[0]}{index}" for index in range(6 if role == "train" else 3)]
        images, masks = [self.image(id) for id in ids], [self.mask(id) for id in ids]
        return SegmentationDataset(f"test {role}", CLASSES, PackedStrings(ids), images, masks)

    def audit(self, train: list[str] | None = None) -> tuple[AuditedSet, AuditedSet, list[Finding]]:
        sets = look_at(self.dataset("train", train), "train"), look_at(self.dataset("val"), "val")
        return (*sets, find(*sets))


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    (tmp_path / "data").mkdir()
    return Pair(tmp_path / "data")


def test_sound_data_gives_no_finding(pair: Pair) -> None:
    train, val, findings = pair.audit()
    assert findings == []
    assert verdict(train, val, findings) == "fit to train on: 6 + 3 images, 3 classes; nothing found"
    assert train.class_pixels.tolist() == [6 * 20 * 39, 6 * 5 * 39, 6 * 5 * 39]
    assert val.class_images.tolist() == [3, 3, 3]
    assert (train.sizes == (HEIGHT, WIDTH)).all()


def test_every_image_is_decoded_to_its_end(pair: Pair) -> None:
    with Image.open(pair.image("t2")) as image:
        image.save(pair.image("t2"), "jpeg")
    for path in (pair.image("t1"), pair.image("t2"), pair.mask("v2")):
        path.write_bytes(path.read_bytes()[:-60])
    pair.image("t3").write_text("no picture")
    pair.image("t4").unlink()
    train, val, findings = pair.audit()
    images, masks = findings
    assert (images.kind, masks.kind) == ("unreadable_images", "unreadable_masks")
    assert [line.partition(":")[0] for line in images.files] == [str(pair.image(f"t{at}")) for at in (1, 2, 3, 4)]
    assert masks.files[0].startswith(str(pair.mask("v2")))
    assert (images.count, masks.count) == (4, 1)
    line = verdict(train, val, findings)
    assert line == f"not fit: 2 errors, first 4 images that cannot be read: {images.files[0]}"


def masks_of(change: Callable[[Array], Array]) -> Callable[[Pair], None]:
    """Changes every mask."""

    def damage(pair: Pair) -> None:
        for id in (*(f"t{index}" for index in range(6)), *(f"v{index}" for index in range(3))):
            pair.write_mask(id, change(a_mask()))

    return damage


def where(mask: Array, **values: int) -> Array:
    """The mask with class 0, 1, 2 or void replaced: `where(mask, c1=7)`."""
    out = mask.copy()
    for name, value in values.items():
        out[mask == (255 if name == "void" else int(name[1:]))] = value
    return out


def one_mask(values: Array) -> Callable[[Pair], None]:
    return lambda pair: pair.write_mask("t2", values)


def turned(orientation: int, mask: Array | None = None) -> Callable[[Pair], None]:
    """Image t2 stored for its EXIF orientation, its mask as given."""

    def damage(pair: Pair) -> None:
        exif = Image.Exif()
        exif[0x0112] = orientation
        pixels = np.random.default_rng(5).integers(0, 256, (WIDTH, HEIGHT, 3), np.uint8)
        pair.write_image("t2", pixels if orientation >= 5 else pixels.swapaxes(0, 1).copy(), exif=exif)
        pair.write_mask("t2", a_mask() if mask is None else mask)

    return damage


def copied(source: str, target: str) -> Callable[[Pair], None]:
    """The same pixels in a file of other bytes."""

    def damage(pair: Pair) -> None:
        with Image.open(pair.image(source)) as image:
            image.save(pair.image(target), "bmp")
        assert pair.image(source).read_bytes() != pair.image(target).read_bytes()

    return damage


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "kinds", "told"),
    [
        (one_mask(np.zeros((HEIGHT, WIDTH, 3), np.uint8)), ["error not_indices"], "1 mask without class indices"),
        (one_mask(a_mask()[1:]), ["error sizes_differ"], "the mask is 40 x 29, its image 40 x 30"),
        (one_mask(where(a_mask(), c2=3)), ["error values_outside"], "the class of 3 is not listed"),
        (masks_of(lambda mask: where(mask, c0=1, c1=2, c2=3)), None, "values that count from 1 need 1 subtracted"),
        (masks_of(lambda mask: where(mask, c1=0, c2=200, void=0)), None, "0 and 200, a binary mask?"),
        (masks_of(lambda mask: where(mask, c1=100, c2=200)), None, "Multiples of 100, as if spread out"),
        (masks_of(lambda mask: where(mask, c1=38, c2=75)), None, "colours turned grey?"),
        (
            masks_of(lambda mask: where(mask, c1=255, c2=255, void=0)),
            ["error one_class", "warning missing_in_train", "note missing_in_val"],
            "255 means ignored, not the object. 0 and 255, a binary mask?",
        ),
        (
            masks_of(lambda mask: where(mask, c2=1)),
            ["warning missing_in_train", "note missing_in_val"],
            "1 class without a pixel in train: dog",
        ),
        (one_mask(np.full((HEIGHT, WIDTH), 255, np.uint8)), ["warning all_ignored"], "every pixel is 255"),
        (turned(6), ["warning turned"], "turned by 90 degrees"),
        (turned(3), ["warning turned"], "turned by 180 degrees"),
        (turned(8, np.rot90(a_mask()).copy()), ["error masks_not_turned"], "drawn on them as they are stored"),
        (turned(8, a_mask()[1:]), ["error sizes_differ"], "the mask is 40 x 29"),
        (copied("t1", "v1"), ["error copied"], "v1.jpg: the same as "),
        (copied("t1", "t4"), ["warning repeated"], "t4.jpg: the same as "),
    ],
)
def test_each_damage_is_found_and_nothing_else(
    pair: Pair, damage: Callable[[Pair], None], kinds: list[str] | None, told: str
) -> None:
    damage(pair)
    findings = pair.audit()[2]
    found = [f"{finding.severity} {finding.kind}" for finding in findings]
    assert found == kinds if kinds else "error values_outside" in found
    assert told in " ".join(part for each in findings for part in (each.title, each.advice, *each.files))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mask", "cause"),
    [
        (where(a_mask(), c2=3), "off by one?"),
        (where(a_mask(), c1=0, c2=76), "0 and 76, a binary mask?"),
        (where(a_mask(), c1=50, c2=100), "multiples of 50"),
        (where(a_mask(), c1=38, c2=75), "colours turned grey?"),
        (np.kron(np.arange(12, dtype=np.uint8).reshape(3, 4), np.ones((10, 10), np.uint8)), "with 9 such values"),
    ],
)
def test_training_and_the_audit_tell_one_cause(pair: Pair, mask: Array, cause: str) -> None:
    pair.write_mask("t2", mask)
    told = next(each.advice for each in pair.audit()[2] if each.kind == "values_outside")
    with pytest.raises(UserError, match=re.escape(cause)) as refused:
        scan_labels(pair.dataset("train"))
    assert str(refused.value).endswith(told[1:-1]), "but for the capital letter and the full stop"


def test_what_the_file_of_classes_does_not_list_is_no_unreadable_mask(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text("values: {background: 0, cat: 1}")
    reader = read_classes(tmp_path / "classes.yaml").read_label
    for each in (train := pair.dataset("train"), val := pair.dataset("val")):
        each.read_label, each.classes = reader, ("background", "cat")
    (finding,) = (each for each in find(look_at(train, "train"), look_at(val, "val")) if each.severity == "error")
    assert (finding.kind, finding.count) == ("unlisted", 9)
    assert "others: ignore" in finding.advice


def test_an_id_in_both_sets_is_told_once(pair: Pair) -> None:
    findings = pair.audit(["t0", "v1", "t2"])[2]
    assert [(finding.severity, finding.kind, finding.count) for finding in findings] == [("error", "in_both", 1)]


def test_sets_without_masks(pair: Pair) -> None:
    bare = pair.dataset("val")
    train = look_at(pair.dataset("train"), "train")
    val = look_at(SegmentationDataset("test val", CLASSES, bare.ids, bare.images, None), "val")
    assert [finding.title for finding in find(train, val)] == ["the val set has no masks"]
    assert (val.sizes == (HEIGHT, WIDTH)).all()


def disc(low: int, high: int, side: int = 120) -> Array:
    """A disc of one label on another, without anti-aliasing."""
    image = Image.new("L", (side, side), low)
    ImageDraw.Draw(image).ellipse((side * 0.2, side * 0.2, side * 0.75, side * 0.7), fill=high)
    return np.array(image)


def resized(mask: Array, scale: float, interpolation: int) -> Array:
    return np.asarray(cv2.resize(mask, None, fx=scale, fy=scale, interpolation=interpolation), np.uint8)


@pytest.mark.parametrize("labels", [(0, 15), (15, 0), (0, 5), (3, 200), (0, 255), (0, 4)])
@pytest.mark.parametrize("scale", [0.4, 0.77, 1.3, 2.0, 3.0])
def test_blurred_masks_are_known(labels: tuple[int, int], scale: float) -> None:
    mask = disc(*labels)
    assert has_mixed_edges(resized(mask, scale, cv2.INTER_LINEAR))
    assert not has_mixed_edges(mask)
    assert not has_mixed_edges(resized(mask, scale, cv2.INTER_NEAREST))


def test_blur_is_known_among_many_labels_and_in_part_of_a_mask() -> None:
    drawn = np.concatenate([np.concatenate([disc(0, a), disc(0, b)], 1) for a, b in ((7, 12), (3, 20))])
    assert not has_mixed_edges(drawn)
    assert has_mixed_edges(resized(drawn, 0.7, cv2.INTER_AREA))
    drawn[:120] = resized(resized(drawn[:120], 0.5, cv2.INTER_NEAREST), 2, cv2.INTER_LINEAR)
    assert has_mixed_edges(drawn)


def outlined(object_: int, void: int) -> Array:
    """VOC's manner: an object in a contour of void five pixels wide."""
    mask = disc(0, object_)
    contour = cv2.dilate(mask, np.ones((3, 3))) - cv2.erode(mask, np.ones((3, 3)))
    return np.where(cv2.dilate(np.asarray(contour), np.ones((3, 3))) > 0, void, mask).astype(np.uint8)


def specks() -> Array:
    """Twelve labels in single pixels and thin lines, all over: small objects, not blur."""
    mask = disc(0, 30)
    rng = np.random.default_rng(0)
    for value in range(1, 13):
        for y, x in rng.integers(0, 118, (4, 2)):
            mask[y, x : x + 3] = value
    return mask


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((40, 40), np.uint8),
        np.full((40, 40), 255, np.uint8),
        np.arange(256, dtype=np.uint8).repeat(3 * 20).reshape(-1, 20),  # each value three rows high
        np.kron(np.arange(21, dtype=np.uint8).reshape(3, 7), np.ones((8, 8), np.uint8)),
        outlined(15, 255),
        np.where(outlined(9, 255) == 255, 1, outlined(9, 255)).astype(np.uint8),  # one outline class, between two
        specks(),
        np.zeros((1, 1), np.uint8),
        np.array([[0, 3, 9]], np.uint8),
    ],
)
def test_clean_masks_are_not_taken_for_blurred(mask: Array) -> None:
    assert not has_mixed_edges(mask)


def test_blur_is_told_as_the_cause_of_values_outside(pair: Pair) -> None:
    blurred = resized(disc(0, 200, HEIGHT), WIDTH / HEIGHT, cv2.INTER_LINEAR)[:HEIGHT]
    pair.write_mask("t2", blurred)
    outside, mixed = pair.audit()[2]
    assert (outside.kind, mixed.kind, mixed.severity) == ("values_outside", "mixed_edges", "warning")
    assert "resized smoothly" in outside.advice


def test_pictures_are_of_findings_then_of_the_rarest_classes(pair: Pair) -> None:
    pair.write_mask("t3", where(a_mask(), c0=1, c2=1))
    for index in (0, 1, 2, 4):
        pair.write_mask(f"t{index}", np.zeros((HEIGHT, WIDTH), np.uint8))
    pair.write_mask("v1", np.full((HEIGHT, WIDTH), 255, np.uint8))
    train, val, findings = pair.audit()
    chosen = [(each.dataset.ids[index], why) for each, index, why in choose_pictures(train, val, findings, 5)]
    assert chosen[:3] == [
        ("v1", "1 mask of ignored pixels alone"),
        ("t5", "dog, in 1 image of train"),
        ("t3", "cat, in 2 images of train"),
    ]
    assert len(set(chosen)) == 5
    assert len(choose_pictures(train, val, findings, 99)) == 9


def test_scan_counts_the_sound_masks_beside_broken_ones_and_remembers_them(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.mask("t1").write_text("no picture")
    pair.image("t2").write_text("no picture")
    dataset = pair.dataset("train")
    scan = count_labels(dataset)
    assert {index: problem.of_image for index, problem in scan.problems.items()} == {1: False, 2: True}
    assert scan.counts[:, 1].tolist() == [195, 0, 0, 195, 195, 195]
    with pytest.raises(UserError, match=r"t1_mask\.png: .*\(and 1 more\)|t2\.jpg: .*\(and 1 more\)"):
        scan_labels(dataset)
    read: list[Path] = []

    def mended(path: Path) -> Array:
        read.append(path)
        return a_mask()

    monkeypatch.setattr("segapp.data.dataset.read_mask", mended)
    again = count_labels(dataset)
    assert sorted(read) == [pair.mask("t1"), pair.mask("t2")]
    assert again.counts[:, 1].tolist() == [195, 195, 0, 195, 195, 195]


def test_scan_of_the_same_masks_with_other_images_is_another(pair: Pair) -> None:
    dataset = pair.dataset("train")
    count_labels(dataset)
    elsewhere = pair.root / "elsewhere"
    elsewhere.mkdir()
    images = [Path(shutil.copy2(image, elsewhere)) for image in dataset.images]  # the same sizes and times
    count_labels(SegmentationDataset("test", CLASSES, dataset.ids, images, dataset.masks))
    assert dataset.masks is not None
    assert len(list((pair.root.parent / "cache" / "labels").iterdir())) == 2


def check(*overrides: str) -> int:
    return run_tool("prepare_data", ["check", *overrides])


def test_the_tool_leaves_a_page_and_a_verdict(shapes_root: Path, tmp_path: Path, capsys: Capture) -> None:
    out = tmp_path / "out"
    assert check("data=voc2012", "data.train=train", f"data.root={shapes_root}", f"output={out}", "samples=5") == 0
    said = capsys.readouterr().out.splitlines()
    found = json.loads((out / "audit.json").read_text())
    assert said[-1] == found["verdict"]
    assert said[-1].startswith("fit to train on: 8 + 4 images, 21 classes; 1 warning, 1 note")
    assert found["fit"]
    pixels = sum(found["sets"]["train"]["class_pixels"].values())
    ignored = 0
    for id in (shapes_root / "ImageSets" / "Segmentation" / "train.txt").read_text().split():
        with Image.open(shapes_root / "SegmentationClass" / f"{id}.png") as mask:
            ignored += int((np.array(mask) == 255).sum())
    assert pixels == 8 * 64 * 64 - ignored
    page = Page(out / "audit.html")
    assert "Fit to train on" in page.text
    assert len(page.tables["classes"]) == 22
    assert sum(tag == "img" for tag, _ in page.tags) == 10
    assert not any({"href", "action"} & attributes.keys() for _, attributes in page.tags)


def test_the_tool_ends_with_1_if_there_are_errors(shapes_root: Path, tmp_path: Path, capsys: Capture) -> None:
    root, out = tmp_path / "<i>set", tmp_path / "out"
    shutil.copytree(shapes_root, root)
    (root / "JPEGImages" / "000001.jpg").write_text("no picture")
    assert check("data=voc2012", "data.train=train", f"data.root={root}", f"output={out}") == 1
    said = capsys.readouterr().out.splitlines()
    broken = f"{root}/JPEGImages/000001.jpg: not an image, or of an unknown format"
    assert said[-1] == f"not fit: 1 error, first 1 image that cannot be read: {broken}"
    page = Page(out / "audit.html")
    assert "Not fit" in page.text
    assert broken in page.text, "escaped"
    assert json.loads((out / "audit.json").read_text())["findings"][0]["files"] == [broken]


def findings_of(out: Path) -> dict[str, dict[str, Any]]:
    return {each["kind"]: each for each in json.loads((out / "audit.json").read_text())["findings"]}


def test_all_that_is_missing_from_vocs_lists_is_told(shapes_root: Path, tmp_path: Path, capsys: Capture) -> None:
    """Images and masks, of both lists; what is there is looked at all the same."""
    root, out = tmp_path / "set", tmp_path / "out"
    shutil.copytree(shapes_root, root)
    for gone in ("000001", "000002", "000009"):
        (root / "JPEGImages" / f"{gone}.jpg").unlink()
    for gone in ("000002", "000003", "000010", "000011"):
        (root / "SegmentationClass" / f"{gone}.png").unlink()
    (root / "JPEGImages" / "000004.jpg").write_text("no picture")
    with (root / "ImageSets" / "Segmentation" / "val.txt").open("a") as file:
        file.write("nowhere\n")
    assert check("data=voc2012", "data.train=train", f"data.root={root}", f"output={out}") == 1
    found = findings_of(out)
    images, masks = found["absent_image"], found["image_without_mask"]
    assert [line.partition(":")[0] for line in images["files"]] == ["000001", "000002", "000009", "nowhere"]
    assert "train.txt, line 2, lists it" in images["files"][0]
    assert [Path(line.partition(":")[0]).name for line in masks["files"]] == ["000003.jpg", "000010.jpg", "000011.jpg"]
    assert found["unreadable_images"]["count"] == 1
    said, page = capsys.readouterr().out, Page(out / "audit.html").text
    for line in [*images["files"], *masks["files"]]:
        assert line in said
        assert line in page
    assert said.splitlines()[-1].startswith("not fit: 3 errors, first 4 images listed but not there: 000001: ")
    sets = json.loads((out / "audit.json").read_text())["sets"]
    assert (sets["train"]["images"], sets["val"]["images"]) == (5, 1)
    for role, number in (("train", 3), ("val", 4)):
        with pytest.raises(UserError, match=rf"\(and {number - 1} more\): no such image .*check lists them all"):
            read_config("train", ["data=voc2012", "data.train=train", f"data.root={root}"], TrainConfig).data.dataset(
                cast(Role, role)
            )


def test_all_that_is_missing_from_folders_is_told(tmp_path: Path, capsys: Capture) -> None:
    root, out = tmp_path / "mine", tmp_path / "out"
    make_folder(root, 6)  # .jpg, .png, .JPG, .jpg, ...
    (root / "masks" / "photo 3.png").unlink()
    Image.new("RGB", (10, 8)).save(root / "images" / "photo 0.png")
    Image.new("L", (10, 8)).save(root / "masks" / "of none.png")
    (root / "train.txt").write_text("photo 0.jpg\nphoto 2\nphoto 9\nphoto 3.jpg\nphoto 1.png photo 2.png\n")
    (root / "val.txt").write_text("photo 2.JPG\nphoto 4\nphoto 5\nphoto 9.jpg\n")
    options = ["data=folder", f"data.root={root}", "data.train=train.txt", "data.val=val.txt"]
    assert check(*options, f"output={out}") == 1
    found = {kind: [line.replace(str(root), "") for line in each["files"]] for kind, each in findings_of(out).items()}
    assert [line.partition(": ")[0] for line in found["absent_image"]] == ["photo 9", "photo 9.jpg"]
    mismatched, without = found["image_without_mask"]
    assert mismatched.startswith("/images/photo 1.png: its mask goes by its name (masks/photo 1.png), but /train.txt")
    assert mismatched.endswith(", line 5, names photo 2.png")
    assert without == "/images/photo 3.jpg: no mask of the same stem in /masks"
    assert found["twin"] == ["/images/photo 0.png: images/photo 0.jpg has the same stem; each needs its own"]
    assert found["mask_without_image"] == ["/masks/of none.png: no image of the same stem in /images"]
    assert [line.partition(": ")[0] for line in found["in_both"]] == ["/images/photo 2.JPG"]
    assert "warning  1 mask without image\n" in capsys.readouterr().out
    assert run_tool("train", [*options, "device=cpu", "offline=true"]) == 2
    assert "photo 0.png (and 4 more): images/photo 0.jpg has the same stem" in capsys.readouterr().err


def test_a_mask_that_nothing_uses_hinders_no_training(tmp_path: Path) -> None:
    make_folder(tmp_path / "mine", 6)
    Image.new("L", (10, 8)).save(tmp_path / "mine" / "masks" / "of none.png")
    assert len(folder(tmp_path / "mine").dataset("train")) + len(folder(tmp_path / "mine").dataset("val")) == 6
    assert check("data=folder", f"data.root={tmp_path / 'mine'}", f"output={tmp_path / 'out'}") == 0
    assert findings_of(tmp_path / "out")["mask_without_image"]["severity"] == "warning"


def test_folders_in_which_nothing_fits(tmp_path: Path, capsys: Capture) -> None:
    """All images without masks: no image is left to look at, and the page is there."""
    make_folder(tmp_path / "mine", 6)
    for mask in (tmp_path / "mine" / "masks").iterdir():
        mask.rename(mask.with_stem(f"{mask.stem}_gt"))
    assert check("data=folder", f"data.root={tmp_path / 'mine'}", f"output={tmp_path / 'out'}") == 1
    found = findings_of(tmp_path / "out")
    assert (found["image_without_mask"]["count"], found["mask_without_image"]["count"]) == (6, 6)
    assert "named like masks/photo 0_gt.png; data.image_ending" in found["image_without_mask"]["files"][0]
    assert capsys.readouterr().out.count("named like") == 6 + 1
    assert "Not fit" in Page(tmp_path / "out" / "audit.html").text


def test_very_many_files_are_told_up_to_a_bound(tmp_path: Path, capsys: Capture) -> None:
    make_folder(tmp_path / "mine", 6)
    (tmp_path / "mine" / "val.txt").write_text("photo 1\n" + "".join(f"gone {index}\n" for index in range(1200)))
    out = tmp_path / "out"
    assert check("data=folder", "data.val=val.txt", f"data.root={tmp_path / 'mine'}", f"output={out}") == 1
    assert len(findings_of(out)["absent_image"]["files"]) == 1200
    said, page = capsys.readouterr().out, Page(out / "audit.html").text
    for text in (said, page):
        assert "gone 999: " in text
        assert "gone 1000: " not in text
    assert "and 200 more, all in audit.json" in said
    assert "and 1190 more, all in audit.json" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say what to do: python tools/prepare_data.py voc2012|sbd|coco_voc|check"),
        (["chek"], "chek is no command: python tools/prepare_data.py voc2012|sbd|coco_voc|check"),
        (["check", "data=voc2012", "data.root=/nowhere"], "VOC 2012 is not in /nowhere"),
        (["check", "sampels=3"], "sampels is no key of this config; did you mean samples"),
    ],
)
def test_mistakes_are_one_line(arguments: list[str], message: str, capsys: Capture) -> None:
    assert run_tool("prepare_data", arguments) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
