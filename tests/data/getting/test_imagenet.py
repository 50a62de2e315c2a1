"""ImageNet's archives, and Kaggle's folders, into class folders."""

import hashlib
import io
import re
import shutil
import tarfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from segapp.base.archives import extract
from segapp.base.errors import UserError
from segapp.cli import run_tool
from segapp.data.getting import imagenet
from segapp.data.getting.imagenet import prepare_imagenet

IDS = {1: "n02", 2: "n01", 3: "n00"}
"""Numbers of the development kit's classes, not in the order of their ids; 3 has children and is none."""
VAL = [2, 1, 1]
"""The numbers of val's images in order."""
SORTED = {"n01": ["ILSVRC2012_val_00000001.JPEG"], "n02": [f"ILSVRC2012_val_{i:08d}.JPEG" for i in (2, 3)]}
TRAIN = {"n01": ["n01_1.JPEG", "n01_7.JPEG"], "n02": ["n02_3.JPEG"]}


def tar(files: Mapping[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def devkit(folder: Path) -> bytes:
    rows = [(number, wnid, "words", "gloss", int(number == 3)) for number, wnid in IDS.items()]
    kind = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("words", "O"), ("gloss", "O"), ("num_children", "O")]
    savemat(folder / "meta.mat", {"synsets": np.array(rows, kind).reshape(-1, 1)})
    data = "ILSVRC2012_devkit_t12/data"
    truth = "".join(f"{number}\n" for number in VAL).encode()
    meta = (folder / "meta.mat").read_bytes()
    (folder / "meta.mat").unlink()
    files = {f"{data}/meta.mat": meta, f"{data}/ILSVRC2012_validation_ground_truth.txt": truth}
    return tar({**files, "ILSVRC2012_devkit_t12/readme.txt": b"x"}, "w:gz")


@pytest.fixture
def archives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "archives"
    folder.mkdir()
    inner = {f"{wnid}.tar": tar({name: name.encode() for name in names}) for wnid, names in TRAIN.items()}
    val = {name: name.encode() for names in SORTED.values() for name in names}
    for key, content in (("TRAIN", tar(inner)), ("VAL", tar(val)), ("DEVKIT", devkit(folder))):
        put(folder, key, content, monkeypatch)
    return folder


def put(folder: Path, key: str, content: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """An archive, taken for the published one."""
    archive = getattr(imagenet, key)
    (folder / archive.name).write_bytes(content)
    monkeypatch.setattr(imagenet, key, replace(archive, md5=hashlib.md5(content).hexdigest()))


def check(root: Path) -> None:
    """All is there, in its place and nothing else."""
    files = {path.relative_to(root).as_posix(): path.read_text() for path in root.rglob("*.JPEG")}
    assert files == {
        f"{role}/{wnid}/{name}": name
        for role, classes in (("train", TRAIN), ("val", SORTED))
        for wnid, names in classes.items()
        for name in names
    }
    assert {path.name for path in root.iterdir()} == {"train", "val", ".imagenet.lock"}


def test_names_and_checksums_are_torchvisions() -> None:
    from torchvision.datasets.imagenet import ARCHIVE_META

    ours = {"train": imagenet.TRAIN, "val": imagenet.VAL, "devkit": imagenet.DEVKIT}
    assert {key: (each.name, each.md5) for key, each in ours.items()} == ARCHIVE_META


def test_the_tool(archives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "image net"
    arguments = ["imagenet", f"archives={archives}", f"root={root}"]
    assert run_tool("prepare_data", arguments) == 0
    assert f"experiment=imagenet_xception data.root='{root}'" in capsys.readouterr().out
    check(root)
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    shutil.rmtree(archives)
    assert run_tool("prepare_data", arguments) == 0, "nothing is left to do"
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


@pytest.mark.parametrize("call", [1, 2, 3, 4])
def test_broken_off_it_goes_on(call: int, archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls, root = extract, [0], tmp_path / "imagenet"

    def broken(*arguments: object, **options: object) -> object:
        calls[0] += 1
        if calls[0] == call:
            raise KeyboardInterrupt
        return real(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(imagenet, "extract", broken)
    with pytest.raises(KeyboardInterrupt):
        prepare_imagenet(root, archives)
    assert not (root / "train").exists(), "a part of it would be taken for the whole"
    done = {path.name for path in (root / ".train.part").glob("*")}
    assert len(done) == max(0, call - 3)
    prepare_imagenet(root, archives)
    check(root)
    # The kit, val, and the classes; after the break the kit, and what was not done.
    assert calls[0] - call == 1 + (call <= 2) + len(TRAIN) - len(done)


def test_kaggles_folders_are_sorted_in_place(archives: Path, tmp_path: Path) -> None:
    top = tmp_path / "kaggle"
    root = top / "ILSVRC" / "Data" / "CLS-LOC"
    prepare_imagenet(root, archives)
    for path in list((root / "val").rglob("*.JPEG")):
        path.replace(root / "val" / path.name)
    for name in SORTED:
        (root / "val" / name).rmdir()
    rows = [f"{Path(name).stem},{wnid} 1 2 3 4 {wnid} 5 6 7 8" for wnid, names in SORTED.items() for name in names]
    (top / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *rows[1:]]))
    shutil.rmtree(archives)
    with pytest.raises(UserError, match=r"val holds ILSVRC2012_val_00000001\.JPEG, of which nobody knows the class"):
        prepare_imagenet(root, root)
    (top / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *rows]))
    prepare_imagenet(root, root)
    check(root)


@pytest.mark.parametrize(
    "gone", ["ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"]
)
def test_what_is_missing_is_told_at_once_and_where_it_is(gone: str, archives: Path, tmp_path: Path) -> None:
    (archives / gone).unlink()
    with pytest.raises(UserError, match=rf"{re.escape(gone)}: no such file.*https://image-net\.org/download-images"):
        prepare_imagenet(tmp_path / "imagenet", archives)
    assert not (tmp_path / "imagenet").exists()


@pytest.mark.parametrize("key", ["TRAIN", "VAL", "DEVKIT"])
def test_a_damaged_archive(key: str, archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = archives / getattr(imagenet, key).name
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 10])
    root = tmp_path / "imagenet"
    with pytest.raises(UserError, match=rf"{re.escape(path.name)}: damaged: its MD5 is"):
        prepare_imagenet(root, archives)
    put(archives, key, path.read_bytes(), monkeypatch)  # cut where it was made
    with pytest.raises(UserError, match=re.escape(path.name)):
        prepare_imagenet(root, archives)
    put(archives, key, content, monkeypatch)
    prepare_imagenet(root, archives)
    check(root)


@pytest.mark.parametrize(
    ("key", "files", "told"),
    [
        ("TRAIN", {"n01.tar": tar({"a.JPEG": b"a"})}, "lacks the class n02"),
        ("TRAIN", {"n09.tar": tar({"a.JPEG": b"a"})}, r"holds n09\.tar, which is no class of ImageNet's 2"),
        ("TRAIN", {"../n01.tar": b"x"}, "unsafe name"),
        ("TRAIN", {"n01.tar": tar({"../a.JPEG": b"a"})}, "unsafe name"),
        ("VAL", {"ILSVRC2012_val_00000001.JPEG": b"a"}, r"lacks ILSVRC2012_val_00000002\.JPEG \(and 1 more\)"),
        ("DEVKIT", {"data/meta.mat": b"x"}, "no development kit of ImageNet 2012"),
    ],
)
def test_archives_of_something_else(
    key: str, files: dict[str, bytes], told: str, archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(archives, key, tar(files, "w:gz" if key == "DEVKIT" else "w"), monkeypatch)
    root = tmp_path / "imagenet"
    with pytest.raises(UserError, match=told):
        prepare_imagenet(root, archives)
    assert not (root / "train").exists()
    assert not (tmp_path / "n01.tar").exists()


def test_a_folder_without_classes_is_not_taken_for_train(archives: Path, tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "n01.tar").write_bytes(b"x")
    with pytest.raises(UserError, match="train holds no class folders"):
        prepare_imagenet(tmp_path, archives)
