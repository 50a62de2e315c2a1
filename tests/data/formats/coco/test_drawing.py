"""COCO's regions to masks: against arrays written out by hand, and against pycocotools' own code."""

from array import array
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as pycocotools_mask

from segapp.base.errors import UserError
from segapp.data.formats.coco.annotations import Region
from segapp.data.formats.coco.drawing import decode_runs, draw
from tests.data.formats.coco.samples import HEIGHT, WIDTH, box, labels, region


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
    assert decode_runs(code) == runs.tolist()


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


def test_polygons_that_enclose_nothing(tmp_path: Path) -> None:
    """Two points, which pycocotools takes for a box, beside a real one; and no region at all."""
    assert labels(tmp_path / "1", region(1, [[0, 0, 5, 5], box(0, 0, 1, 1)]))[0] == [1, 0, 0, 0, 0, 0, 0, 0]
    assert not np.any(labels(tmp_path / "2", region(1, [[0, 0, 5, 5]])))
    assert not np.any(labels(tmp_path / "3"))


def test_an_outline_without_end_is_refused() -> None:
    """Back and forth 100,000 times is a megabyte of text, of which pycocotools makes gigabytes."""
    polygon = array("d", [0, 0, 500, 0, 500, 400, 0, 400] * 50_000)
    with pytest.raises(UserError, match="annotation 3: a polygon's outline is longer than 10000000 pixels"):
        draw(400, 500, [Region(3, 1, False, [polygon])])
