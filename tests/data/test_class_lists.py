"""Class lists are matched by name, and lists that differ refused with both shown."""

from pathlib import Path

import numpy as np
import pytest

from segapp.base.errors import UserError
from segapp.data.checks.audit import audit
from segapp.data.class_lists import Renumbered, matched
from segapp.data.dataset import ClassificationDataset, SegmentationDataset
from segapp.data.formats.label_readers import ByValue
from segapp.data.packed_strings import PackedStrings
from segapp.evaluation.checks import matched_to_weights
from segapp.weights.sources.common import imagenet_classes
from tests.data.formats.coco.samples import box, content, make, mine, region
from tests.folders import folder, make_folder

NAMES = ("background", "cat", "dog")


def reversed_coco(root: Path) -> tuple[SegmentationDataset, SegmentationDataset]:
    """The same two regions, of which val's JSON lists the categories in reverse."""
    for split, names in (("t", ("cat", "dog")), ("v", ("dog", "cat"))):
        cat = region(names.index("cat") + 1, [box(0, 0, 4, 3)])
        dog = region(names.index("dog") + 1, [box(4, 3, 8, 6)])
        make(root / split, content(cat, dog, names=names))
    train, val = (mine(root / split, title="mine") for split in ("t", "v"))
    return train.dataset("train"), val.dataset("val")


def test_another_order_is_matched_by_name(tmp_path: Path) -> None:
    train, val = reversed_coco(tmp_path)
    assert (train.classes, val.classes) == (NAMES, ("background", "dog", "cat"))
    same = matched(val, train.classes, train.name)
    assert same.classes == NAMES
    assert same.background == 0
    assert train[0].label is not None
    assert np.array_equal(train[0].label, same[0].label)  # type: ignore[arg-type]
    assert matched(train, NAMES, "x") is train


def test_background_follows_its_name(tmp_path: Path) -> None:
    make_folder(tmp_path, 4)
    dataset = folder(tmp_path).dataset("train")
    assert matched(dataset, ("dog", "cat", "background"), "x").background == 2


def test_what_is_no_class_stays_none() -> None:
    """Values outside a list must not become classes of the other one."""
    values = np.array([[0, 1, 2, 3, 7, 254, 255]], np.uint8)
    label = Renumbered(lambda path: values, (2, 0, 1))(Path("x"))
    assert label[0, :3].tolist() == [2, 0, 1]
    assert (label[0, 3:6] > 2).all()
    assert (label[0, 3:6] < 255).all()
    assert label[0, 6] == 255


def test_a_renumbered_reader_is_told_from_others_by_its_repr() -> None:
    reader = ByValue(((0,), (1,)), (255,), None)
    assert repr(Renumbered(reader, (1, 0))) != repr(reader)
    assert repr(Renumbered(reader, (1, 0))) != repr(Renumbered(reader, (0, 1)))


@pytest.mark.parametrize(
    ("classes", "told"),
    [
        (("background", "cat", "cow"), "only mine val .* has dog, only mine train has cow"),
        (("background", "cat"), "only mine val .* has dog;"),
        (("background", "cat", "dog", "cow"), "only mine train has cow;"),
    ],
)
def test_a_missing_or_an_extra_name_is_refused_with_both_lists(
    classes: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    _, val = reversed_coco(tmp_path)
    with pytest.raises(UserError, match=told) as refused:
        matched(val, classes, "mine train")
    assert "[background, dog, cat], mine train: [" + ", ".join(classes) + "]" in str(refused.value)
    assert "give both the same class names" in str(refused.value)


def test_check_tells_of_other_lists_and_of_other_orders(tmp_path: Path) -> None:
    train, val = reversed_coco(tmp_path)
    result = audit(train, val)
    assert [finding.kind for finding in result.findings if finding.severity == "note"] == ["class_order"]
    assert result.train.class_pixels.tolist() == result.val.class_pixels.tolist()
    val.classes = ("background", "dog", "cow")
    (finding,) = [each for each in audit(train, val).findings if each.kind == "class_lists"]
    assert finding.severity == "error"
    assert len(finding.files) == 2


def test_a_val_of_fewer_classes_is_not_counted_into_wrong_cells(tmp_path: Path) -> None:
    train, _ = reversed_coco(tmp_path)
    make(tmp_path / "w", content(region(1), names=("dog",)))
    fewer = mine(tmp_path / "w").dataset("val")
    with pytest.raises(UserError, match="only .* has cat"):
        matched(fewer, train.classes, train.name)
    result = audit(train, fewer)
    assert result.val.class_pixels.tolist() == [44, 0, 4], "of background, cat and dog"
    assert not result.fit


def test_weights_are_matched_by_name_and_by_index_where_nobody_named_them(tmp_path: Path) -> None:
    _, val = reversed_coco(tmp_path)
    path = tmp_path / "best.safetensors"
    assert matched_to_weights(val, path, NAMES).classes == NAMES
    assert matched_to_weights(val, path, ("class 0", "class 1", "class 2")) is val
    with pytest.raises(UserError, match="only best.safetensors has cow"):
        matched_to_weights(val, path, ("background", "cat", "cow"))
    with pytest.raises(UserError, match="knows 2 classes, .* has 3"):
        matched_to_weights(val, path, ("background", "cat"))


def test_folders_named_by_wordnet_have_imagenets_order() -> None:
    """n01440764 is the tench, class 0, and n15075141 toilet tissue, class 999 (ILSVRC2012_devkit_t12, meta.mat)."""
    words = imagenet_classes()
    assert (words[0], words[-1]) == ("tench", "toilet tissue")
    folders = ("n01440764", *(f"n{number:08}" for number in range(2_000_000, 2_000_998)), "n15075141")
    labels = np.array([0, 999, 5])
    data = ClassificationDataset("x", folders, PackedStrings("abc"), [Path(each) for each in "abc"], labels)
    seen = matched_to_weights(data, Path("w"), words)
    assert seen.classes == words
    assert np.array_equal(seen.labels, labels)
    with pytest.raises(UserError, match="thing 0"):
        matched_to_weights(data, Path("w"), tuple(f"thing {number}" for number in range(1000)))
