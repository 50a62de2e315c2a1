"""The network that comes with the program, and when predict takes it without being told."""

import dataclasses
import http.server
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import segapp
from segapp.base import download
from segapp.base.classes import VOC_CLASSES
from segapp.base.errors import UserError
from segapp.cli import run_tool
from segapp.data.formats.shapes import SHAPES_CLASSES
from segapp.weights import find
from segapp.weights.checkpoint import load_model, start_from
from segapp.weights.find import EMBEDDED_FILE, PUBLISHED, chosen, converted, find_checkpoint, put_by_hand
from segapp.weights.zoo import ZOO
from tests.networks import small

Point = Callable[[str], None]


@pytest.fixture
def point(monkeypatch: pytest.MonkeyPatch) -> Point:
    """Has the published network lie at another address."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    def to(url: str) -> None:
        monkeypatch.setitem(ZOO, PUBLISHED, dataclasses.replace(ZOO[PUBLISHED], url=url))

    return to


class Answering(http.server.BaseHTTPRequestHandler):
    """Has a file, but not what is in it."""

    def do_HEAD(self) -> None:
        self.send_response(404 if "nothing" in self.path else 200)
        self.end_headers()

    def do_GET(self) -> None:
        self.send_error(403)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    found = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=found.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{found.server_port}"
    found.shutdown()
    found.server_close()
    thread.join()


def test_it_is_small_and_knows_vocs_classes() -> None:
    assert EMBEDDED_FILE.stat().st_size < 6e6
    network, info = load_model(find_checkpoint("embedded", offline=True))
    assert info.classes == VOC_CLASSES
    assert info.scores["miou"] > 0.5
    assert info.source is not None
    assert info.source.licence == "Apache-2.0"
    state = network.state_dict().values()
    assert all(each.dtype == torch.float32 and each.isfinite().all() for each in state if each.is_floating_point())


def test_load_gives_it_unless_told_otherwise() -> None:
    assert segapp.load(device="cpu").classes == VOC_CLASSES


def test_what_is_in_the_cache_is_taken_without_asking(point: Point, monkeypatch: pytest.MonkeyPatch) -> None:
    point("http://127.0.0.1:1/x.tar.gz")
    converted(PUBLISHED).parent.mkdir(parents=True)
    converted(PUBLISHED).write_bytes(EMBEDDED_FILE.read_bytes())
    monkeypatch.setattr(find, "answers", None)
    assert chosen("auto") == chosen("auto", offline=True) == PUBLISHED


def test_a_file_put_by_hand_is_taken_first(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """And where it cannot be read, a line says so."""
    monkeypatch.setattr(find, "answers", None)
    put_by_hand(PUBLISHED).parent.mkdir(parents=True)
    put_by_hand(PUBLISHED).write_bytes(b"no archive")
    assert chosen("auto") == chosen("auto", offline=True) == "embedded"
    assert f"{PUBLISHED} cannot be had (" in caplog.text
    assert "cannot be reached" not in caplog.text


def test_offline_goes_straight_to_it(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(find, "answers", None)
    assert chosen("auto", offline=True) == "embedded"
    assert f"{PUBLISHED} is not in the cache: the small network that comes with segapp predicts" in caplog.text
    assert f"tools/import_weights.py {PUBLISHED} gets the better one" in caplog.text
    assert len(caplog.records) == 1


@pytest.mark.network
def test_it_stands_in_at_once_where_no_server_answers(
    point: Point, server: str, caplog: pytest.LogCaptureFixture
) -> None:
    for url in ("http://127.0.0.1:1/x.tar.gz", f"{server}/nothing.tar.gz"):
        point(url)
        caplog.clear()
        start = time.monotonic()
        assert chosen("auto") == "embedded"
        assert time.monotonic() - start < 5
        assert f"{PUBLISHED} cannot be reached: the small network" in caplog.text


@pytest.mark.network
def test_a_server_that_keeps_silent_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        assert not download.answers(f"http://127.0.0.1:{silent.getsockname()[1]}/x", seconds=0.2)
        assert time.monotonic() - start < 2


@pytest.mark.network
def test_a_download_that_fails_is_told_and_named_networks_do_not_fall_back(
    point: Point, server: str, caplog: pytest.LogCaptureFixture
) -> None:
    point(f"{server}/x.tar.gz")
    with caplog.at_level(logging.WARNING):
        assert chosen("auto") == "embedded"
    assert "the server answers 403" in caplog.text
    with pytest.raises(UserError, match="the server answers 403"):
        find_checkpoint(chosen(PUBLISHED))


def test_weights_take_half_of_the_room(make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """Rounded to float16 in the file, and float32 again in the network; a run starts from them, too."""
    whole, half = make_checkpoint(), tmp_path / "half.safetensors"
    assert run_tool("import_weights", [str(whole), f"output={half}", "half=true"]) == 0
    assert half.stat().st_size < 0.65 * whole.stat().st_size
    stored, network = load_file(half), load_model(half)[0].state_dict()
    for name, each in load_model(whole)[0].state_dict().items():
        rounded = each.half() if each.is_floating_point() else each
        assert torch.equal(stored[name], rounded)
        assert network[name].dtype == each.dtype
        assert torch.equal(network[name], rounded.to(each.dtype))
    assert start_from(half, small().build(7), SHAPES_CLASSES)[1] is None
