"""Archives that are got once, whole, and however often killed; disks without room."""

import errno
import multiprocessing
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from segapp.base import download
from segapp.base.errors import UserError
from segapp.data.getting import archive, coco, sbd, voc
from tests.data.getting.samples import TRAINAUG, check, get_both, killed

pytestmark = pytest.mark.network


def test_voc_and_trainaug_are_complete_and_got_once(requests: list[str], tmp_path: Path) -> None:
    root = tmp_path / "VOCdevkit" / "VOC2012"
    get_both(root)
    check(root)
    assert {path.suffix for path in (root.parent / "downloads").iterdir()} == {".lock"}, "no archive is left"
    assert len(requests) == 2
    get_both(root)
    assert len(requests) == 2


@pytest.mark.parametrize(
    ("module", "name", "call"),
    [
        (os, "fsync", 1),  # downloaded, not yet in place
        (archive, "extract", 1),
        (archive, "extract", 2),
        (shutil, "copyfile", 1),
        (sbd, "write_mask", 2),
        (sbd, "write_text", 1),  # the masks are in place, their list is not
        (Path, "unlink", 3),
    ],
)
def test_killed_at_any_moment_and_started_again(
    module: Any, name: str, call: int, requests: list[str], tmp_path: Path
) -> None:
    root = tmp_path / "VOCdevkit" / "VOC2012"
    process = multiprocessing.get_context("fork").Process(target=killed, args=(root, module, name, call))
    process.start()
    process.join()
    assert process.exitcode == 9
    assert not (root / "ImageSets" / "Segmentation" / "trainaug.txt").exists() or name == "unlink"
    get_both(root)
    check(root)


def test_killed_before_the_archive_is_removed(requests: list[str], tmp_path: Path) -> None:
    root = tmp_path / "VOCdevkit" / "VOC2012"
    kill = (root, download.Fetched, "discard", 1)
    process = multiprocessing.get_context("fork").Process(target=killed, args=kill)
    process.start()
    process.join()
    assert process.exitcode == 9
    assert (root.parent / "downloads" / "VOCtrainval_11-May-2012.tar").exists()
    get_both(root)
    check(root)
    assert {path.suffix for path in (root.parent / "downloads").iterdir()} == {".lock"}


def test_the_room_is_told_once(requests: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for fetch in (voc.get_voc, coco.get_coco):
        caplog.clear()
        fetch(tmp_path / fetch.__name__)
        assert caplog.text.count("this needs about") == 1


def test_a_disk_that_fills_up_while_downloading_names_the_root(
    requests: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The archives lie beside the data: another cache folder would not help."""

    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for place in ("_Checksums.add", "write_json"):  # while it comes, and before
        with monkeypatch.context() as patch:
            patch.setattr(f"segapp.base.download.{place}", full)
            with pytest.raises(
                UserError, match=r"the disk of .*downloads is full.*; make room, or .* root=DIR"
            ) as error:
                voc.get_voc(tmp_path / "VOC2012")
        assert "SEGAPP_CACHE" not in str(error.value)
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: usage._replace(free=1 if path.name == "downloads" else 9**9)
    )
    with pytest.raises(UserError, match=r"downloads has 0\.0 MB free, .* root=DIR") as error:
        voc.get_voc(tmp_path / "VOC2012")
    assert "SEGAPP_CACHE" not in str(error.value)


def test_no_room_is_said_before_anything_starts(
    requests: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1_500_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"has 0\.0 GB free, and about 0\.0 GB are needed"):
        voc.get_voc(tmp_path / "VOC2012")
    assert not requests


def test_a_full_disk_leaves_nothing_that_looks_complete(
    requests: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "VOCdevkit" / "VOC2012"
    voc.get_voc(root)

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sbd, "write_mask", full)
        with pytest.raises(UserError, match="the disk of .* is full; make room"):
            sbd.get_trainaug(root, images=len(TRAINAUG))
    assert not (root / "SegmentationClassAug").exists()
    sbd.get_trainaug(root, images=len(TRAINAUG))
    check(root)


def test_offline(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"offline=true.*put it at .*downloads/VOCtrainval_11-May-2012\.tar"):
        voc.get_voc(tmp_path / "VOC2012", offline=True)
