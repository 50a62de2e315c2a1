"""Downloads of data sets from a server on this machine, in the archives' true formats; trainaug from SBD's files."""

import dataclasses
import errno
import hashlib
import http.server
import multiprocessing
import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import sbd as torchvision_sbd
from torchvision.datasets import voc as torchvision_voc

from segapp.base import download
from segapp.base.classes import voc_palette
from segapp.base.errors import UserError
from segapp.base.images import read_mask, write_image, write_mask
from segapp.base.paths import CONF
from segapp.cli import run_tool
from segapp.data.formats.voc import Voc2012Config
from segapp.data.getting import get

pytestmark = pytest.mark.network

VOC_TRAIN, VOC_VAL = ["a", "b"], ["c", "d"]
SBD_TRAIN, SBD_VAL = ["b", "c", "e"], ["f", "g"]  # c is one of VOC's val
TRAINAUG = ["a", "b", "e", "f", "g"]
SIZE = (6, 9)


def label(id: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Another one for each image."""
    mask = np.zeros(SIZE, np.uint8)
    mask[1:4, 2:6] = ord(id) - ord("a") + 1
    return mask


def make_voc(root: Path) -> None:
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation", "Annotations"):
        (root / folder).mkdir(parents=True)
    for id in sorted({*VOC_TRAIN, *VOC_VAL, *SBD_TRAIN, *SBD_VAL}):
        write_image(root / "JPEGImages" / f"{id}.jpg", np.zeros((*SIZE, 3), np.uint8))
        (root / "Annotations" / f"{id}.xml").write_text("<annotation/>")
    for id in VOC_TRAIN + VOC_VAL:
        official = label(id)
        official[0] = 255
        write_mask(root / "SegmentationClass" / f"{id}.png", official, voc_palette())
    for name, ids in (("train", VOC_TRAIN), ("val", VOC_VAL), ("trainval", VOC_TRAIN + VOC_VAL)):
        (root / "ImageSets" / "Segmentation" / f"{name}.txt").write_text("".join(f"{id}\n" for id in ids))


def make_sbd(dataset: Path) -> None:
    """As in benchmark.tgz: cls/ID.mat holds a struct GTcls with Boundaries, Segmentation and CategoriesPresent."""
    (dataset / "cls").mkdir(parents=True)
    (dataset / "img").mkdir()
    for id in SBD_TRAIN + SBD_VAL:
        struct = {"Boundaries": np.zeros((20, 1)), "Segmentation": label(id), "CategoriesPresent": np.array([[1]])}
        savemat(dataset / "cls" / f"{id}.mat", {"GTcls": struct})
        (dataset / "img" / f"{id}.jpg").write_bytes(b"not wanted")
    (dataset / "train.txt").write_text("\n".join(SBD_TRAIN))
    (dataset / "val.txt").write_text("\n".join(SBD_VAL))


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small ones in the true layout. Read only."""
    folder = tmp_path_factory.mktemp("archives")
    make_voc(folder / "voc" / "VOCdevkit" / "VOC2012")
    shutil.make_archive(str(folder / "VOCtrainval_11-May-2012"), "tar", folder / "voc")
    make_sbd(folder / "sbd" / "benchmark_RELEASE" / "dataset")
    shutil.move(shutil.make_archive(str(folder / "benchmark"), "gztar", folder / "sbd"), folder / "benchmark.tgz")
    for name in ("train2017", "val2017", "annotations"):
        (folder / "coco" / name / name).mkdir(parents=True)
        (folder / "coco" / name / name / "1.txt").write_text(name)
    for name, file in (
        ("train2017", "zips/train2017"),
        ("val2017", "zips/val2017"),
        ("annotations", "annotations/annotations_trainval2017"),
    ):
        shutil.make_archive(str(folder / file), "zip", folder / "coco" / name)
    return folder


@pytest.fixture
def requests(archives: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What was asked of the server to which the data sets' addresses point."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *arguments: object) -> None:
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSES", ())
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(archives)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    base = f"http://127.0.0.1:{server.server_port}/"
    for name, file in (("VOC2012", "VOCtrainval_11-May-2012.tar"), ("SBD", "benchmark.tgz")):
        md5 = hashlib.md5((archives / file).read_bytes()).hexdigest()
        there = dataclasses.replace(getattr(get, name), url=base + file, md5=md5, megabytes=1, unpacked=1)
        monkeypatch.setattr(get, name, there)
    coco = [
        dataclasses.replace(
            each, url=each.url.replace("http://images.cocodataset.org/", base), megabytes=1, unpacked=1
        )
        for each in get.COCO
    ]
    monkeypatch.setattr(get, "COCO", tuple(coco))
    monkeypatch.setattr(get, "VOC_IMAGES", {"train": 2, "val": 2, "trainval": 4})
    monkeypatch.setattr("segapp.data.formats.voc.get_trainaug", partial(get.get_trainaug, images=len(TRAINAUG)))
    yield asked
    server.shutdown()
    server.server_close()
    thread.join()


def get_both(root: Path) -> None:
    get.get_voc(root)
    get.get_trainaug(root, images=len(TRAINAUG))


def check(root: Path) -> None:
    """All is there, and right."""
    lists = root / "ImageSets" / "Segmentation"
    assert (lists / "trainaug.txt").read_text().split() == TRAINAUG
    assert {path.stem for path in (root / "SegmentationClassAug").iterdir()} == set(TRAINAUG)
    for id in TRAINAUG:
        expected = label(id)
        if id in VOC_TRAIN:
            expected[0] = 255  # the official one
        with Image.open(root / "SegmentationClassAug" / f"{id}.png") as mask:
            assert mask.mode == "P"
            assert np.array_equal(np.array(mask), expected), id
            palette = mask.getpalette()
            assert palette is not None
            assert palette[:63] == voc_palette().ravel()[:63].tolist()
    assert not (root / "Annotations").exists(), "only what is needed is unpacked"
    left = {path.name for path in root.parent.iterdir()} - {root.name}
    assert not [name for name in left if "unpacking" in name or "part" in name]


def test_addresses_and_checksums_are_torchvisions() -> None:
    known = torchvision_voc.DATASET_YEAR_DICT["2012"]
    assert get.VOC2012.md5 == known["md5"]
    assert get.VOC2012.url.rpartition("/")[2] == known["filename"]
    assert (get.SBD.url, get.SBD.md5) == (torchvision_sbd.SBDataset.url, torchvision_sbd.SBDataset.md5)
    assert get.TRAINAUG_IMAGES == 10582


def test_voc_and_trainaug_are_complete_and_got_once(requests: list[str], tmp_path: Path) -> None:
    root = tmp_path / "VOCdevkit" / "VOC2012"
    get_both(root)
    check(root)
    assert {path.suffix for path in (root.parent / "downloads").iterdir()} == {".lock"}, "no archive is left"
    assert len(requests) == 2
    get_both(root)
    assert len(requests) == 2


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


def exit_at(module: Any, name: str, call: int) -> None:
    """The process is gone at the CALLth call of module.NAME: nothing is cleaned up."""
    real, calls = getattr(module, name), [0]

    def dying(*arguments: Any, **options: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            os._exit(9)
        return real(*arguments, **options)

    setattr(module, name, dying)


def killed(root: Path, module: Any, name: str, call: int) -> None:
    exit_at(module, name, call)
    get_both(root)


@pytest.mark.parametrize(
    ("module", "name", "call"),
    [
        (os, "fsync", 1),  # downloaded, not yet in place
        (get, "extract", 1),
        (get, "extract", 2),
        (shutil, "copyfile", 1),
        (get, "write_mask", 2),
        (get, "write_text", 1),  # the masks are in place, their list is not
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


def test_a_wrong_number_of_images_is_refused(requests: list[str], tmp_path: Path) -> None:
    root = tmp_path / "VOC2012"
    get.get_voc(root)
    with pytest.raises(UserError, match="trainaug would have 5 images in place of 10582"):
        get.get_trainaug(root, images=10582)
    assert not (root / "SegmentationClassAug").exists()


def break_size(dataset: Path) -> None:
    savemat(dataset / "cls" / "e.mat", {"GTcls": {"Segmentation": np.zeros((2, 2), np.uint8)}})


def break_value(dataset: Path) -> None:
    savemat(dataset / "cls" / "e.mat", {"GTcls": {"Segmentation": np.full(SIZE, 21, np.uint8)}})


def break_struct(dataset: Path) -> None:
    savemat(dataset / "cls" / "e.mat", {"other": np.zeros(3)})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (break_size, r"e\.mat: the mask is 2 x 2, its image 9 x 6"),
        (break_value, r"e\.mat: label value 21 is outside the 21 classes"),
        (break_struct, r"e\.mat: no mask of SBD"),
        (lambda dataset: (dataset / "cls" / "e.mat").write_bytes(b"hello"), r"e\.mat: no mask of SBD"),
        (lambda dataset: (dataset / "cls" / "e.mat").unlink(), r"e\.mat: no such file"),
    ],
)
def test_a_damaged_mask_is_named_and_nothing_is_left(
    damage: Callable[[Path], Any], message: str, tmp_path: Path
) -> None:
    root, dataset = tmp_path / "VOC2012", tmp_path / "dataset"
    make_voc(root)
    make_sbd(dataset)
    damage(dataset)
    with pytest.raises(UserError, match=message):
        get.build_trainaug(root, dataset, len(TRAINAUG))
    assert not (root / "SegmentationClassAug").exists()
    assert not (root / "ImageSets" / "Segmentation" / "trainaug.txt").exists()
    assert not [path for path in root.iterdir() if path.name.startswith(".")]


def test_someone_elses_masks_stay(tmp_path: Path) -> None:
    root, dataset = tmp_path / "VOC2012", tmp_path / "dataset"
    make_voc(root)
    make_sbd(dataset)
    (root / "SegmentationClassAug").mkdir()
    write_mask(root / "SegmentationClassAug" / "a.png", label("a"), voc_palette())
    with pytest.raises(UserError, match=r"SegmentationClassAug is there, but not from here: b\.png is missing"):
        get.build_trainaug(root, dataset, len(TRAINAUG))
    assert read_mask(root / "SegmentationClassAug" / "a.png").max() == 1


def test_a_folder_of_something_else_stays(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds something else than VOC 2012"):
        get.get_voc(tmp_path)
    with pytest.raises(UserError, match=r"trainaug needs it: python tools/prepare_data\.py voc2012 first"):
        get.get_trainaug(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def remove(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


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
        get.get_voc(root)
    else:
        values: dict[str, Any] = yaml.safe_load((CONF / "data" / "voc2012.yaml").read_text())
        values |= {"root": root, "train": "train", "download": True}
        assert Voc2012Config.model_validate(values).dataset("train").ids[:] == VOC_TRAIN
    assert re.search(told, caplog.text)
    assert changed.read_bytes() == b"mine", "nothing that is there is overwritten"
    changed.write_bytes(whole[changed.relative_to(root)])
    assert {path.relative_to(root): path.read_bytes() for path in root.rglob("*") if path.is_file()} == whole
    assert len(requests) == 1
    get.get_voc(root)
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
    assert get.lacking_of_voc(root)
    get_both(root)
    check(root)


def test_lists_that_are_not_the_official_ones_are_told(requests: list[str], tmp_path: Path) -> None:
    """Such as those of a sample of VOC."""
    make_voc(tmp_path)
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text("c\n")
    with pytest.raises(
        UserError, match=r"val\.txt lists 1 images, VOC 2012's own 2: move it away to have the official"
    ):
        get.get_voc(tmp_path)
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text("c\nx\n")
    with pytest.raises(
        UserError, match=r"lacks JPEGImages/x\.jpg \(and 1 more\), which its lists name and .* not hold"
    ):
        get.get_voc(tmp_path)
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text(
        "JPEGImages/c.jpg SegmentationClass/c.png\nJPEGImages/d.jpg SegmentationClass/d.png\n"
    )
    get.get_voc(tmp_path)


def test_a_list_of_trainaug_without_its_masks_is_told(tmp_path: Path) -> None:
    make_voc(tmp_path)
    make_sbd(tmp_path / "sbd")
    get.build_trainaug(tmp_path, tmp_path / "sbd", len(TRAINAUG))
    get.get_trainaug(tmp_path)
    remove(tmp_path, "SegmentationClassAug/e.png", "SegmentationClassAug/f.png")
    with pytest.raises(
        UserError, match=r"Aug/e\.png \(and 1 more\): no such file, but .*trainaug\.txt lists it; move that"
    ):
        get.get_trainaug(tmp_path)


def test_the_room_is_told_once(requests: list[str], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for fetch in (get.get_voc, get.get_coco):
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
                get.get_voc(tmp_path / "VOC2012")
        assert "SEGAPP_CACHE" not in str(error.value)
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: usage._replace(free=1 if path.name == "downloads" else 9**9)
    )
    with pytest.raises(UserError, match=r"downloads has 0\.0 MB free, .* root=DIR") as error:
        get.get_voc(tmp_path / "VOC2012")
    assert "SEGAPP_CACHE" not in str(error.value)


def test_no_room_is_said_before_anything_starts(
    requests: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=1_500_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(UserError, match=r"has 0\.0 GB free, and about 0\.0 GB are needed"):
        get.get_voc(tmp_path / "VOC2012")
    assert not requests


def test_a_full_disk_leaves_nothing_that_looks_complete(
    requests: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "VOCdevkit" / "VOC2012"
    get.get_voc(root)

    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(get, "write_mask", full)
        with pytest.raises(UserError, match="the disk of .* is full; make room"):
            get.get_trainaug(root, images=len(TRAINAUG))
    assert not (root / "SegmentationClassAug").exists()
    get.get_trainaug(root, images=len(TRAINAUG))
    check(root)


def test_coco(requests: list[str], tmp_path: Path) -> None:
    get.get_coco(tmp_path / "coco")
    for name in ("train2017", "val2017", "annotations"):
        assert (tmp_path / "coco" / name / "1.txt").read_text() == name
    assert len(requests) == 3
    get.get_coco(tmp_path / "coco")
    assert len(requests) == 3


def test_offline(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"offline=true.*put it at .*downloads/VOCtrainval_11-May-2012\.tar"):
        get.get_voc(tmp_path / "VOC2012", offline=True)
