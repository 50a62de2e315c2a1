"""Masks are drawn once, whole or not at all."""

import errno
import hashlib
import json
import logging
import shutil
import time
from multiprocessing import get_context
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segapp.base.errors import UserError
from segapp.base.masks import write_mask
from segapp.data.formats.coco.masks import Source, hash_of
from tests.data.formats.coco.samples import HEIGHT, WIDTH, box, content, make, masks, mine, region


def test_masks_are_drawn_once_and_anew_when_something_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    root = make(tmp_path / "set", content(region(1)))
    dataset = mine(root).dataset("train")
    (first,) = masks(dataset)
    assert first.is_relative_to(root / "segapp_masks")
    assert dataset.name.startswith("set train #")
    read: list[Path] = []
    read_bytes = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda path: read.append(path) or read_bytes(path))  # type: ignore[func-returns-value]
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("hashed again"))
    assert masks(mine(root).dataset("val")) == [first]
    assert not read
    monkeypatch.undo()
    (root / "regions.json").write_text(json.dumps(content(region(2))))
    (second,) = masks(mine(root).dataset("train"))
    (third,) = masks(mine(root, classes={"dog": "dog"}).dataset("train"))
    assert len({first.parent, second.parent, third.parent}) == 3
    assert [np.array(Image.open(mask)).max() for mask in (first, second, third)] == [1, 2, 1]
    shutil.copytree(root, tmp_path / "moved")
    (moved,) = masks(mine(tmp_path / "moved").dataset("train"))
    assert moved == tmp_path / "moved" / second.relative_to(root)
    assert caplog.text.count("drawing its masks, once") == 3


def test_the_folder_is_named_as_ever(tmp_path: Path) -> None:
    """So masks that were drawn before are found."""
    every = Source("x", tmp_path, tmp_path, None, 5)
    assert every.key("abc") == hashlib.sha256(b'[1, "abc", null, 5]').hexdigest()[:20]
    chosen = Source("x", tmp_path, tmp_path, {"pet": ("cat", "dog")}, 5)
    assert chosen.key("abc") == hashlib.sha256(b'[1, "abc", [["pet", ["cat", "dog"]]], 5]').hexdigest()[:20]


def test_the_hash_is_remembered_by_size_and_time(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("abc")
    known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, appendix B.1
    assert hash_of(file) == known
    (memory,) = (tmp_path / "cache" / "hashes").iterdir()
    for damage in ("", "[]", "{}", "no JSON"):
        memory.write_text(damage)
        assert hash_of(file) == known
    file.write_text("abcd")
    assert hash_of(file) != known


def test_a_root_that_cannot_be_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache folder takes the masks; those that lie in the root already are taken from there."""
    root = make(tmp_path / "set", content(region(1)))
    (root / "segapp_masks").write_text("in the way, for whoever tests as root")
    (mask,) = masks(mine(root).dataset("train"))
    assert mask.is_relative_to(tmp_path / "cache" / "masks")
    assert masks(mine(root).dataset("val")) == [mask]
    (root / "segapp_masks").unlink()
    shutil.copytree(mask.parent, root / "segapp_masks" / mask.parent.name)
    assert masks(mine(root).dataset("train"))[0].is_relative_to(root)
    shutil.rmtree(root / "segapp_masks")
    (root / "segapp_masks").write_text("in the way")
    monkeypatch.setenv("SEGAPP_CACHE", str(root / "regions.json"))
    with pytest.raises(UserError, match=r"segapp_masks: masks cannot be written there.*SEGAPP_CACHE"):
        mine(root).dataset("train")


def many(root: Path, number: int = 100) -> Path:
    """More than one process draws."""
    values = content(*(region(1, [box(0, 0, 1 + k % 8, 1)], image=k) for k in range(number)))
    values["images"] = [{"id": k, "file_name": f"{k}.png", "height": HEIGHT, "width": WIDTH} for k in range(number)]
    return make(root, values)


def draw_elsewhere(root: Path) -> ForkProcess:
    process = get_context("fork").Process(target=lambda: mine(root).dataset("train"))
    process.start()
    return process


def check_many(root: Path) -> None:
    dataset = mine(root).dataset("train")
    drawn = [dataset[index].label for index in range(len(dataset))]
    assert [int((label == 1).sum()) for label in drawn if label is not None] == [1 + k % 8 for k in range(100)]
    assert not [path for path in (root / "segapp_masks").iterdir() if path.name[0] == "." and path.is_dir()]


def slowly(path: Path, label: np.ndarray, palette: np.ndarray) -> None:
    time.sleep(0.02)
    write_mask(path, label, palette)


@pytest.mark.slow
def test_killed_in_the_middle_then_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the next one waits for no process that outlives the one killed."""
    root = many(tmp_path)
    monkeypatch.setattr("segapp.data.formats.coco.masks.write_mask", slowly)
    process = draw_elsewhere(root)
    deadline = time.monotonic() + 60
    while len(list(root.glob("segapp_masks/.*/*.png"))) < 20:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.kill()
    process.join()
    assert not list(root.glob("segapp_masks/[!.]*"))
    check_many(root)


def test_two_processes_draw_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = many(tmp_path)
    monkeypatch.setattr("segapp.data.formats.coco.masks.write_mask", lambda path, *mask: path.touch(exist_ok=False))
    both = [draw_elsewhere(root) for _ in range(2)]
    for process in both:
        process.join(120)
    assert [process.exitcode for process in both] == [0, 0]
    assert [len(list(folder.glob("*.png"))) for folder in root.glob("segapp_masks/*-*")] == [100]


def test_a_failure_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    root = many(tmp_path)
    values = json.loads((root / "regions.json").read_text())
    values["annotations"][70]["segmentation"] = [[0, 0, 1, 0, 1]]
    whole = (root / "regions.json").read_text()
    (root / "regions.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"regions\.json: annotation 170: "):
        mine(root).dataset("train")
    assert all(path.suffix == ".lock" for path in (root / "segapp_masks").iterdir())
    (root / "regions.json").write_text(whole)
    check_many(root)


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = make(tmp_path, content(region(1)))

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("segapp.data.formats.coco.masks.write_mask", full)
    with pytest.raises(UserError, match=r"segapp_masks: the masks cannot be written \(No space left on device\)"):
        mine(root).dataset("train")
    monkeypatch.undo()
    assert len(mine(root).dataset("train")) == 1


def test_a_damaged_index_is_told(tmp_path: Path) -> None:
    root = make(tmp_path, content(region(1)))
    (mask,) = masks(mine(root).dataset("train"))
    (mask.parent / "index.json").write_text("{}")
    with pytest.raises(UserError, match=r"index\.json: damaged; delete the folder"):
        mine(root).dataset("train")
