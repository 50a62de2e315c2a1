"""The training tool on what it refuses."""

from pathlib import Path

import numpy as np
import pytest

from segapp.base.classes import voc_palette
from segapp.base.masks import write_mask
from tests.commands.tools import train
from tests.training.test_training import TINY

Capture = pytest.CaptureFixture[str]


def test_train_refuses_a_used_folder_and_bad_labels(
    shapes_root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for mine in ("thesis.txt", "config.yaml"):
        used = tmp_path / f"used {mine}"
        used.mkdir()
        (used / mine).touch()
        assert train(*TINY, f"output={used}") == 2
        assert "holds files already" in capsys.readouterr().err
        assert [path.name for path in used.iterdir()] == [mine]

    root = tmp_path / "VOC2012"
    root.mkdir()
    for name in ("JPEGImages", "ImageSets"):
        (root / name).symlink_to(shapes_root / name)
    (root / "SegmentationClass").mkdir()
    for mask in (shapes_root / "SegmentationClass").iterdir():
        (root / "SegmentationClass" / mask.name).write_bytes(mask.read_bytes())
    write_mask(root / "SegmentationClass" / "000003.png", np.full((64, 64), 77, np.uint8), voc_palette())
    options = [option for option in TINY if not option.startswith("data.")]
    assert train(*options, "data=voc2012", f"data.root={root}", "data.train=train", f"output={tmp_path / 'run'}") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert "000003.png: label value 77 is outside the 21 classes" in error
    assert not (tmp_path / "run" / "metrics.jsonl").exists(), "told before training starts"
