"""VOC 2012 downloaded, and what a folder lacks of it filled in."""

import multiprocessing
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from torchvision.datasets import sbd as torchvision_sbd
from torchvision.datasets import voc as torchvision_voc

from segapp.base.errors import UserError
from segapp.base.paths import CONF
from segapp.cli import run_tool
from segapp.data.formats.voc import Voc2012Config
from segapp.data.getting import sbd, voc
from tests.data.getting.samples import TRAINAUG, VOC_TRAIN, VOC_VAL, check, get_both, killed, make_voc, remove

pytestmark = pytest.mark.network


def test_addresses_and_checksums_are_torchvisions() -> None:
    known = torchvision_voc.DATASET_YEAR_DICT["2012"]
    assert voc.VOC2012.md5 == known["md5"]
    assert voc.VOC2012.url.rpartition("/")[2] == known["filename"]
    assert (sbd.SBD.url, sbd.SBD.md5) == (torchvision_sbd.SBDataset.url, torchvision_sbd.SBDataset.md5)
    assert sbd.TRAINAUG_IMAGES == 10582


def test_training_gets_what_is_missing_if_told(requests: list[str], tmp_path: Path) -> None:
    values: dict[str, Any] = yaml.safe_load((CONF / "data" / "voc2012.yaml").read_text())
    values["root"] = tmp_path / "VOC2012"
    with pytest.raises(UserError, match=r"prepare_data\.py voc2012 gets it .*data\.download=true"):
        Voc2012Config.model_validate(values | {"download": False}).dataset("train")
    assert not requests
    config = Voc2012Config.model_validate(values | {"download": True})
    assert config.dataset("train").ids[:] == TRAINAUG
    assert config.dataset("val").ids[:] == VOC_VAL
    assert len(requests) == 2


def test_the_network_is_not_used_behind_offline(requests: list[str], tmp_path: Path) -> None:
    overrides = [f"data.root={tmp_path / 'VOC2012'}", "data.download=true", "offline=true"]
    for tool in ("train", "eval"):
        assert run_tool(tool, overrides) == 2
    assert not requests


def test_the_tool(requests: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "my VOC (2012)"
    assert run_tool("prepare_data", ["voc2012", f"root={root}"]) == 0
    assert f"prepare_data.py sbd root='{root}'" in capsys.readouterr().out
    assert (root / "JPEGImages" / "a.jpg").is_file()


def test_a_folder_of_something_else_stays(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else than VOC 2012"):
        voc.get_voc(tmp_path)
    with pytest.raises(UserError, match=r"trainaug needs it: python tools/prepare_data\.py voc2012 first"):
        sbd.get_trainaug(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        (("JPEGImages/b.jpg", "JPEGImages/c.jpg"), r"lacks JPEGImages/b\.jpg \(and 1 more\)"),
        (("JPEGImages/b.jpg", "JPEGImages/g.jpg"), r"lacks JPEGImages/b\.jpg: "),  # g is of no official list
        (("SegmentationClass/d.png",), r"lacks SegmentationClass/d\.png: "),
        (("SegmentationClass",), r"lacks SegmentationClass/a\.png \(and 3 more\)"),
        (("ImageSets",), r"lacks ImageSets/Segmentation/train\.txt \(and 2 more\)"),
        (
            ("ImageSets/Segmentation/val.txt", "JPEGImages/d.jpg"),
            r"lacks ImageSets/Segmentation/val\.txt \(and 1 more\)",
        ),
    ],
)
@pytest.mark.parametrize("by", ["command", "training"])
def test_what_is_missing_is_filled_in_and_the_rest_left(
    gone: tuple[str, ...], told: str, by: str, requests: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    root = tmp_path / "VOCdevkit" / "VOC2012"
    make_voc(root)
    shutil.rmtree(root / "Annotations")
    whole = {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    changed = root / "JPEGImages" / "a.jpg"
    changed.write_bytes(b"mine")
    remove(root, *gone)
    if by == "command":
        voc.get_voc(root)
    else:
        values: dict[str, Any] = yaml.safe_load((CONF / "data" / "voc2012.yaml").read_text())
        values |= {"root": root, "train": "train", "download": True}
        assert Voc2012Config.model_validate(values).dataset("train").ids[:] == VOC_TRAIN
    assert re.search(told, caplog.text)
    assert changed.read_bytes() == b"mine", "nothing that is there is overwritten"
    changed.write_bytes(whole[changed.relative_to(root)])
    assert {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()} == whole
    assert len(requests) == 1
    voc.get_voc(root)
    assert len(requests) == 1


def test_filling_in_goes_on_where_it_was_killed(requests: list[str], tmp_path: Path) -> None:
    root = tmp_path / "VOCdevkit" / "VOC2012"
    make_voc(root)
    shutil.rmtree(root / "Annotations")
    remove(root, "SegmentationClass", "ImageSets/Segmentation/trainval.txt")
    process = multiprocessing.get_context("fork").Process(target=killed, args=(root, Path, "replace", 4))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert (root / "ImageSets" / "Segmentation" / "trainval.txt").is_file(), "something was filled in"
    assert voc.lacking_of_voc(root)
    get_both(root)
    check(root)


def test_lists_that_are_not_the_official_ones_are_told(requests: list[str], tmp_path: Path) -> None:
    """Such as those of a sample of VOC."""
    make_voc(tmp_path)
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text("c\n")
    with pytest.raises(
        UserError, match=r"val\.txt lists 1 images, VOC 2012's own 2: move it away to have the official"
    ):
        voc.get_voc(tmp_path)
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text("c\nx\n")
    with pytest.raises(
        UserError, match=r"lacks JPEGImages/x\.jpg \(and 1 more\), which its lists name and .* not hold"
    ):
        voc.get_voc(tmp_path)
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text(
        "JPEGImages/c.jpg SegmentationClass/c.png\nJPEGImages/d.jpg SegmentationClass/d.png\n"
    )
    voc.get_voc(tmp_path)
