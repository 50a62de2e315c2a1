"""The audit on data broken by hand: each damage gives its finding and no other, and clean masks give none."""

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from segapp.base.errors import UserError
from segapp.data.checks.audit import audit
from segapp.data.checks.scan import scan_labels
from segapp.data.dataset import SegmentationDataset
from segapp.data.formats.classes_file import read_classes
from tests.data.checks.samples import CLASSES, HEIGHT, WIDTH, Array, Pair, a_mask
from tests.data.test_edges import disc, resized


def test_sound_data_gives_no_finding(pair: Pair) -> None:
    result = pair.audit()
    assert result.findings == []
    assert result.verdict == "fit to train on: 6 + 3 images, 3 classes; nothing found"
    assert result.train.class_pixels.tolist() == [6 * 20 * 39, 6 * 5 * 39, 6 * 5 * 39]
    assert result.val.class_images.tolist() == [3, 3, 3]
    assert (result.train.sizes == (HEIGHT, WIDTH)).all()


def test_every_image_is_decoded_to_its_end(pair: Pair) -> None:
    with Image.open(pair.image("t2")) as image:
        image.save(pair.image("t2"), "jpeg")
    for path in (pair.image("t1"), pair.image("t2"), pair.mask("v2")):
        path.write_bytes(path.read_bytes()[:-60])
    pair.image("t3").write_text("no picture")
    pair.image("t4").unlink()
    result = pair.audit()
    images, masks = result.findings
    assert (images.kind, masks.kind) == ("unreadable_images", "unreadable_masks")
    assert [line.partition(":")[0] for line in images.files] == [str(pair.image(f"t{at}")) for at in (1, 2, 3, 4)]
    assert masks.files[0].startswith(str(pair.mask("v2")))
    assert (images.count, masks.count) == (4, 1)
    assert result.verdict == f"not fit: 2 errors, first 4 images that cannot be read: {images.files[0]}"


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
    findings = pair.audit().findings
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
    told = next(each.advice for each in pair.audit().findings if each.kind == "values_outside")
    with pytest.raises(UserError, match=re.escape(cause)) as refused:
        scan_labels(pair.dataset("train"))
    assert str(refused.value).endswith(told[1:-1]), "but for the capital letter and the full stop"


def test_what_the_file_of_classes_does_not_list_is_no_unreadable_mask(pair: Pair, tmp_path: Path) -> None:
    (tmp_path / "classes.yaml").write_text("values: {background: 0, cat: 1}")
    reader = read_classes(tmp_path / "classes.yaml").read_label
    for each in (train := pair.dataset("train"), val := pair.dataset("val")):
        each.read_label, each.classes = reader, ("background", "cat")
    (finding,) = (each for each in audit(train, val).findings if each.severity == "error")
    assert (finding.kind, finding.count) == ("unlisted", 9)
    assert "others: ignore" in finding.advice


def test_an_id_in_both_sets_is_told_once(pair: Pair) -> None:
    findings = pair.audit(["t0", "v1", "t2"]).findings
    assert [(finding.severity, finding.kind, finding.count) for finding in findings] == [("error", "in_both", 1)]


def test_sets_without_masks(pair: Pair) -> None:
    bare = pair.dataset("val")
    val = SegmentationDataset("test val", CLASSES, bare.ids, bare.images, None)
    result = audit(pair.dataset("train"), val)
    assert [finding.title for finding in result.findings] == ["the val set has no masks"]
    assert (result.val.sizes == (HEIGHT, WIDTH)).all()


def test_pictures_are_of_findings_then_of_the_rarest_classes(pair: Pair) -> None:
    pair.write_mask("t3", where(a_mask(), c0=1, c2=1))
    for index in (0, 1, 2, 4):
        pair.write_mask(f"t{index}", np.zeros((HEIGHT, WIDTH), np.uint8))
    pair.write_mask("v1", np.full((HEIGHT, WIDTH), 255, np.uint8))
    result = pair.audit()
    chosen = [(each.dataset.ids[index], why) for each, index, why in result.pictures(5)]
    assert chosen[:3] == [
        ("v1", "1 mask of ignored pixels alone"),
        ("t5", "dog, in 1 image of train"),
        ("t3", "cat, in 2 images of train"),
    ]
    assert len(set(chosen)) == 5
    assert len(result.pictures(99)) == 9


def test_blur_is_told_as_the_cause_of_values_outside(pair: Pair) -> None:
    blurred = resized(disc(0, 200, HEIGHT), WIDTH / HEIGHT, cv2.INTER_LINEAR)[:HEIGHT]
    pair.write_mask("t2", blurred)
    outside, mixed = pair.audit().findings
    assert (outside.kind, mixed.kind, mixed.severity) == ("values_outside", "mixed_edges", "warning")
    assert "resized smoothly" in outside.advice
