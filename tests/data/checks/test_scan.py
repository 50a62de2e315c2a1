"""The label scan: its counts, its errors and its cache."""

import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segapp.base.classes import voc_palette
from segapp.base.errors import UserError
from segapp.base.masks import read_mask, write_mask
from segapp.data.checks.scan import count_labels, scan_labels
from segapp.data.dataset import SegmentationDataset
from tests.data.checks.samples import CLASSES, Array, Pair, a_mask
from tests.folders import folder, make_folder


def test_scan_counts_like_numpy_and_reads_only_what_changed(
    shapes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path / "mine", 6)
    dataset = folder(tmp_path / "mine", val_fraction=1e-9).dataset("train")
    assert dataset.masks is not None
    counts = scan_labels(dataset)
    for mask, row in zip(dataset.masks, counts, strict=True):
        with Image.open(mask) as opened:
            values, pixels = np.unique(np.array(opened), return_counts=True)
        assert row.sum() == pixels.sum()
        assert row[values].tolist() == pixels.tolist()

    read: list[Path] = []

    def spy(path: Path) -> np.ndarray:
        read.append(path)
        return read_mask(path)

    monkeypatch.setattr("segapp.data.dataset.read_mask", spy)
    assert np.array_equal(scan_labels(dataset), counts)
    assert not read
    write_mask(dataset.masks[2], np.full((8, 10), 7, np.uint8), voc_palette())
    with pytest.raises(UserError, match=r"photo 2\.png: label value 7 is outside the 3 classes \(0 to 2, and 255"):
        scan_labels(dataset)
    assert read == [dataset.masks[2]]


def test_scan_names_a_mask_of_another_size_and_a_damaged_one(tmp_path: Path) -> None:
    make_folder(tmp_path, 3)
    dataset = folder(tmp_path, val_fraction=1e-9).dataset("train")
    write_mask(tmp_path / "masks" / "photo 0.png", np.zeros((10, 8), np.uint8), voc_palette())
    with pytest.raises(UserError, match=r"photo 0\.png: the mask is 8 x 10, its image 10 x 8"):
        scan_labels(dataset)
    with pytest.raises(UserError, match=r"photo 0\.png: the mask is 8 x 10"):
        dataset[list(dataset.ids).index("photo 0")]
    (tmp_path / "masks" / "photo 1.png").write_text("no picture")
    with pytest.raises(UserError, match=r"photo 0.*\(and 1 more\)"):
        scan_labels(dataset)


def test_a_broken_scan_cache_is_rebuilt(tmp_path: Path) -> None:
    make_folder(tmp_path / "mine", 3)
    dataset = folder(tmp_path / "mine", val_fraction=1e-9).dataset("train")
    counts = scan_labels(dataset)
    (cache,) = (tmp_path / "cache" / "labels").iterdir()
    whole = cache.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(30):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[rng.integers(0, len(whole), 20)] = rng.integers(0, 256, 20)
        cache.write_bytes(damaged[: rng.integers(1, len(whole))].tobytes())
        assert np.array_equal(scan_labels(dataset), counts)


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


def test_a_scan_is_cached_where_it_ever_was(pair: Pair) -> None:
    """So that no mask is counted again."""
    dataset = pair.dataset("train")
    assert dataset.masks is not None
    count_labels(dataset)
    key = b"\0".join([b"3", b"Indexed()", *(str(path).encode() for path in (*dataset.images, *dataset.masks))])
    (cache,) = (pair.root.parent / "cache" / "labels").iterdir()
    assert cache.name == f"{hashlib.sha256(key).hexdigest()[:20]}.npz"


def test_scan_of_the_same_masks_with_other_images_is_another(pair: Pair) -> None:
    dataset = pair.dataset("train")
    count_labels(dataset)
    elsewhere = pair.root / "elsewhere"
    elsewhere.mkdir()
    images = [Path(shutil.copy2(image, elsewhere)) for image in dataset.images]  # the same sizes and times
    count_labels(SegmentationDataset("test", CLASSES, dataset.ids, images, dataset.masks))
    assert dataset.masks is not None
    assert len(list((pair.root.parent / "cache" / "labels").iterdir())) == 2
