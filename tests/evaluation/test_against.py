"""Two sets of masks on the same images, as a person compares them."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segapp.base.classes import voc_palette
from segapp.base.masks import write_mask
from segapp.cli import run_tool

Capture = pytest.CaptureFixture[str]


def save(root: Path, folder: Path, shift: int) -> Path:
    """The truth moved aside, with its void as background."""
    folder.mkdir()
    for id in (root / "ImageSets" / "Segmentation" / "val.txt").read_text().split():
        truth = np.array(Image.open(root / "SegmentationClass" / f"{id}.png"))
        moved = np.roll(truth, shift, 1)
        moved[moved == 255] = 0
        write_mask(folder / f"{id}.png", moved, voc_palette())
    return folder


def run(root: Path, output: Path, *overrides: str) -> int:
    options = ["data=voc2012", "device=cpu", "workers=0", "eval.examples=0", f"data.root={root}", f"output={output}"]
    return run_tool("eval", [*options, *overrides])


def test_better_masks_gain_and_worse_ones_lose(shapes_root: Path, tmp_path: Path, capsys: Capture) -> None:
    near, far = save(shapes_root, tmp_path / "near", 1), save(shapes_root, tmp_path / "far", 9)
    mious = {}
    for one, other in ((near, far), (far, near)):
        out = tmp_path / f"{one.name} less {other.name}"
        assert run(shapes_root, out, f"predictions={one}", f"against={other}") == 0
        told = json.loads((out / "against.json").read_text())
        mious[one] = json.loads((out / "metrics.json").read_text())["miou"], told
        assert f"mIoU less that of {other}: {told['gain']['value']:+.4f}" in capsys.readouterr().out
    assert mious[near][1]["gain"]["value"] == pytest.approx(mious[near][0] - mious[far][0])
    assert mious[near][1]["gain"]["low"] > 0
    assert mious[near][1]["better"] == 1
    assert mious[far][1]["gain"]["high"] < 0
    assert mious[far][1]["better"] == 0


def test_masks_that_have_changed_are_not_reported_from_what_was_counted(
    shapes_root: Path, tmp_path: Path, capsys: Capture
) -> None:
    masks = save(shapes_root, tmp_path / "masks", 1)
    given = [f"predictions={masks}", "resume=auto"]
    assert run(shapes_root, tmp_path / "out", *given) == 0
    assert run(shapes_root, tmp_path / "out", *given) == 0
    assert "going on after 4 of 4 images" in capsys.readouterr().err
    for mask in masks.iterdir():
        mask.unlink()
    masks.rmdir()
    save(shapes_root, masks, 9)
    assert run(shapes_root, tmp_path / "out", *given) == 2
    assert "name another output folder" in capsys.readouterr().err


def test_other_images_are_refused(shapes_root: Path, tmp_path: Path, capsys: Capture) -> None:
    near, far = save(shapes_root, tmp_path / "near", 1), save(shapes_root, tmp_path / "far", 9)
    lost = sorted(far.iterdir())[0]
    lost.unlink()
    assert run(shapes_root, tmp_path / "out", f"predictions={near}", f"against={far}") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "not the same images could be scored" in error
    assert lost.name in error
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_plain_figures_are_no_comparison(shapes_root: Path, tmp_path: Path, capsys: Capture) -> None:
    near = save(shapes_root, tmp_path / "near", 1)
    options = [f"predictions={near}", f"against={near}", "eval.detailed=false"]
    assert run(shapes_root, tmp_path / "out", *options) == 2
    assert "eval.detailed=true" in capsys.readouterr().err
