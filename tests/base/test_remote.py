"""Addresses of files and folders: copied once, in bounds, from fsspec's memory and from a server on this machine."""

import http.server
import importlib.util
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import known_implementations

from segapp.base.compose import read_config
from segapp.base.config import save_config
from segapp.base.errors import UserError
from segapp.base.remote import _inside, cached, is_address, remote_file, remote_folder
from segapp.commands.resumable import read_resumable
from segapp.data.options import check_network
from segapp.training.config import RESUME_MAY_CHANGE, SegmentConfig, TrainConfig
from segapp.weights.find import find_checkpoint


@pytest.fixture
def memory() -> Iterator[MemoryFileSystem]:
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files
    files.store.clear()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """An address, and the folder that lies there."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_an_address() -> None:
    assert all(map(is_address, ("s3://bucket/a", "https://x.org/y", "memory://a", "simplecache::gs://b/c")))
    assert not any(map(is_address, ("C://x", "runs/a", "/a//b", "latest", "s3:/bucket", "~/x", None, Path("a"))))


def test_a_folder_is_copied_once(memory: MemoryFileSystem) -> None:
    files = {"images/a b.png": b"1" * 3_000_000, "images/c.png": b"22", "masks/deep/c.png": b""}
    memory.pipe({f"/bucket/set/{name}": value for name, value in files.items()})
    memory.pipe("/bucket/other/x", b"no part of it")
    folder = remote_folder("memory://bucket/set")
    assert content(folder) == files
    memory.store.clear()
    assert remote_folder("memory://bucket/set", offline=True) == folder
    with pytest.raises(UserError, match="memory://bucket/set/masks: no such folder, or no file in it"):
        remote_folder("memory://bucket/set/masks")
    with pytest.raises(UserError, match="offline=true, and memory://bucket/more is not in the cache"):
        remote_folder("memory://bucket/more", offline=True)


def test_a_copy_that_was_broken_off_goes_on(memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe({"/set/a": b"a" * 10, "/set/b": b"b" * 10})
    opened: list[str] = []
    original = MemoryFileSystem._open

    def fail(self: MemoryFileSystem, path: str, *arguments: Any, **more: Any) -> Any:
        opened.append(path)
        if path.endswith("b") and opened.count(path) == 1:
            raise ConnectionResetError("the peer is gone")
        return original(self, path, *arguments, **more)

    monkeypatch.setattr(MemoryFileSystem, "_open", fail)
    with pytest.raises(UserError, match="memory://set cannot be read: the peer is gone"):
        remote_folder("memory://set")
    assert not cached("memory://set").exists(), "no half a folder passes for a whole one"
    assert content(remote_folder("memory://set")) == {"a": b"a" * 10, "b": b"b" * 10}
    assert sorted(opened) == ["/set/a", "/set/b", "/set/b"]


@pytest.mark.parametrize("size", [3, 30])
def test_a_file_is_as_long_as_it_was_said_to_be(
    size: int, memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.pipe("/set/a", b"a" * 10)
    original = MemoryFileSystem.info
    monkeypatch.setattr(MemoryFileSystem, "info", lambda *args, **more: original(*args, **more) | {"size": size})
    with pytest.raises(UserError, match=f"over {size} bytes long" if size < 10 else f"ended after 10 of {size} bytes"):
        remote_file("memory://set/a", inside="best")
    assert not cached("memory://set/a").exists()


def test_what_does_not_fit_the_disk_is_not_begun(memory: MemoryFileSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    memory.pipe("/set/a", b"a")
    original = MemoryFileSystem.info
    monkeypatch.setattr(MemoryFileSystem, "info", lambda *args, **more: original(*args, **more) | {"size": 10**18})
    with pytest.raises(UserError, match=r"takes 10+\.0 MB, and .* has .* free; make room"):
        remote_file("memory://set/a", inside="best")


@pytest.mark.parametrize("name", ["../x", "a/../../x", "C:\\x", "a\n", "/etc/x"])
def test_no_file_lies_outside_its_folder(name: str) -> None:
    with pytest.raises(UserError, match="holds a file with the unsafe name"):
        _inside("memory://set", "/set", {f"/set/{name}": {"size": 1}})
    with pytest.raises(UserError, match="holds a file with the unsafe name"):
        _inside("memory://set", "/set", {"/elsewhere/x": {"size": 1}})


def test_a_library_that_is_missing_is_named(tmp_path: Path) -> None:
    missing = next(
        scheme
        for scheme, entry in known_implementations.items()
        if scheme in ("s3", "gs", "abfs", "webhdfs", "oss", "dropbox")
        and importlib.util.find_spec(entry["class"].split(".")[0]) is None
    )
    with pytest.raises(UserError, match=rf"(?i){missing}://bucket/x: .*install.*\(pip install it\)"):
        find_checkpoint(f"{missing}://bucket/x")
    with pytest.raises(UserError, match="nothing://x: Protocol not known: nothing"):
        remote_folder("nothing://x")


def test_a_data_set_at_an_address(memory: MemoryFileSystem, shapes_root: Path, tmp_path: Path) -> None:
    memory.put(str(shapes_root), "/bucket/shapes", recursive=True)
    words = ["experiment=demo", "data=voc2012", "data.root=memory://bucket/shapes", "data.train=train"]
    config = read_config("train", words, SegmentConfig)
    here = read_config("train", [*words, f"data.root={shapes_root}"], SegmentConfig)
    assert not cached("memory://bucket/shapes").exists(), "a config alone fetches nothing"
    there, expected = config.data.dataset("val"), here.data.dataset("val")
    assert len(there) == len(expected) == 4
    for at in range(len(there)):
        np.testing.assert_array_equal(there[at].image, expected[at].image)
    save_config(tmp_path / "config.yaml", config)
    assert "root: memory://bucket/shapes\n" in (tmp_path / "config.yaml").read_text()
    again = read_resumable("train", [f"resume={tmp_path}"], TrainConfig, RESUME_MAY_CHANGE)
    assert again.data == config.data
    offline = read_config("train", [*words[:2], "data.root=memory://bucket/nothing", "offline=true"], SegmentConfig)
    with pytest.raises(UserError, match="data.root=memory://bucket/nothing is not in the cache yet"):
        check_network(offline.data, offline.offline)


def test_a_checkpoint_at_an_address(
    memory: MemoryFileSystem, server: tuple[str, Path], make_checkpoint: Callable[..., Path]
) -> None:
    checkpoint = make_checkpoint()
    memory.put(str(checkpoint), "/runs/one/best.safetensors")
    for address in ("memory://runs/one/best.safetensors", "memory://runs/one"):
        assert find_checkpoint(address).read_bytes() == checkpoint.read_bytes()
    address, folder = server
    (folder / "net.safetensors").write_bytes(checkpoint.read_bytes())
    assert find_checkpoint(f"{address}/net.safetensors").read_bytes() == checkpoint.read_bytes()
    (folder / "net.safetensors").unlink()
    assert find_checkpoint(f"{address}/net.safetensors", offline=True).exists(), "in the cache"
    with pytest.raises(UserError, match="the server answers 404"):
        find_checkpoint(f"{address}/other.safetensors")
    with pytest.raises(UserError, match="memory://runs/two: no such file or folder"):
        find_checkpoint("memory://runs/two")


def test_a_folder_behind_a_server(server: tuple[str, Path]) -> None:
    pytest.importorskip("aiohttp")
    address, folder = server
    files = {"images/a b.png": b"1" * 70_000, "masks/c.png": b"22"}
    for name, value in files.items():
        (folder / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "set" / name).write_bytes(value)
    assert content(remote_folder(f"{address}/set/")) == files
