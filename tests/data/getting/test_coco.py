"""COCO downloaded."""

from pathlib import Path

import pytest

from segapp.data.getting import coco

pytestmark = pytest.mark.network


def test_coco(requests: list[str], tmp_path: Path) -> None:
    coco.get_coco(tmp_path / "coco")
    for name in ("train2017", "val2017", "annotations"):
        assert (tmp_path / "coco" / name / "1.txt").read_text() == name
    assert len(requests) == 3
    coco.get_coco(tmp_path / "coco")
    assert len(requests) == 3
