"""What is refused, and how: a status, one sentence, and the service goes on."""

import os
import socket
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cv2
import pytest
import torch
from fastapi.testclient import TestClient
from PIL import ImageFile

from segapp.base.extras import EXTRAS
from segapp.cli import run_tool
from segapp.serving.app import make_app
from tests.serving.conftest import Open, live
from tests.serving.hostile import STREAMED, is_sentence, picture, post, requests

Capture = pytest.CaptureFixture[str]


@pytest.mark.parametrize("name", requests())
def test_hostile_uploads(client: TestClient, name: str) -> None:
    kind, body = requests()[name]
    answer = client.post("/v1/segment", content=body, headers={b"Content-Type": kind.encode("latin-1")})
    assert 400 <= answer.status_code < 500
    assert is_sentence(answer.content), answer.content
    if "vast" in name:
        assert answer.status_code == 413


@pytest.mark.network
@pytest.mark.parametrize("name", STREAMED)
def test_hostile_streams_end_and_others_are_served(open_service: Open, name: str) -> None:
    with live(open_service("upload=1", "limits.bytes=1000000")) as address, ThreadPoolExecutor(4) as threads:
        asked = [threads.submit(STREAMED[name], f"{address}/v1/segment") for _ in range(3)]
        assert post(f"{address}/v1/segment", "image/jpeg", picture("JPEG"))[0] == 200
        for status, body in (each.result(20) for each in asked):
            assert status == (413 if name == "endless" else 408)
            assert is_sentence(body)


def test_bounds_are_exact(open_service: Open) -> None:
    image = picture("PNG", 30, 20)
    limits = [f"limits.bytes={len(image)}", "limits.pixels=600"]
    with TestClient(make_app(open_service(*limits))) as client:
        assert client.post("/v1/segment", content=image).status_code == 200
        assert client.post("/v1/segment", files={"image": image}).status_code == 200
        wide = picture("PNG", 31, 20)
        for content in (image + b"\0", wide):
            as_body = client.post("/v1/segment", content=content)
            as_form = client.post("/v1/segment", files={"image": content})
            assert as_body.status_code == as_form.status_code == 413
            assert is_sentence(as_body.content)
    with TestClient(make_app(open_service("limits.pixels=600"))) as client:
        answer = client.post("/v1/segment", content=wide)
    assert answer.json() == {"error": "image: 31 x 20 pixels are more than the bound of 600; scale it down, or cut it"}


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("format=gif", "format: input should be 'mask', 'overlay', 'coco', 'probabilities' or 'all'"),
        ("inferenc=full", "inferenc: extra inputs are not permitted"),
        ("inference=full", "inference=full is not offered; it is one of trained, resize, sliding, multi_scale"),
        ("scales=3", "scale 3 is not offered; these are: 0.5, 0.75, 1, 1.25, 1.5, 1.75"),
        ("scales=1,1", "scales: a scale is named twice"),
        ("scales=1,", None),
        ("scales=", None),
        ("scales=nan", None),
        ("flip=perhaps", None),
    ],
)
def test_what_is_not_offered(client: TestClient, query: str, error: str | None) -> None:
    answer = client.post(f"/v1/segment?{query}", content=picture("JPEG"))
    assert (answer.status_code, is_sentence(answer.content)) == (400, True)
    assert error is None or answer.json() == {"error": error}


def test_work_of_one_request_is_bounded(open_service: Open) -> None:
    """In windows of 65 x 65, 130 x 65 pixels take 3: 12675 pixels, and twice as many with their mirror images."""
    image = picture("JPEG", 130, 65)
    with TestClient(make_app(open_service("limits.shown=12675"))) as client:
        assert client.post("/v1/segment?inference=sliding", content=image).status_code == 200
        answer = client.post("/v1/segment?inference=sliding&flip=true", content=image)
    assert answer.status_code == 413
    assert answer.json()["error"].startswith("130 x 65 in this way of inference are 25350 pixels for the network")


def test_limits_may_offer_less(open_service: Open) -> None:
    limits = ["limits.inference=[]", "limits.scales=[]", "limits.flip=false"]
    with TestClient(make_app(open_service(*limits))) as client:
        for query in ("inference=trained", "scales=1", "flip=true"):
            assert client.post(f"/v1/segment?{query}", content=picture("JPEG")).status_code == 400
        assert client.post("/v1/segment?flip=false", content=picture("JPEG")).status_code == 200


def test_addresses_and_methods_that_are_not_there(client: TestClient) -> None:
    for method, path, status in (
        ("GET", "/v1/segment", 405),
        ("POST", "/v1/model", 405),
        ("GET", "/v2", 404),
        ("GET", "/docs", 404),
        ("GET", "/samples/index.html", 404),
        ("GET", "/samples/..%2f..%2fapp.py", 404),
        ("POST", "/v1/classify", 404),
    ):
        answer = client.request(method, path)
        assert (answer.status_code, is_sentence(answer.content)) == (status, True), path
        assert answer.headers["x-content-type-options"] == "nosniff"


def held_back(service: Any, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Until the event is set, the network does nothing."""
    go, compute = threading.Event(), service.network.compute

    def wait(*arguments: Any) -> Any:
        assert go.wait(30)
        return compute(*arguments)

    monkeypatch.setattr(service.network, "compute", wait)
    return go


def test_a_full_queue(open_service: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    service = open_service("queue=3")
    go = held_back(service, monkeypatch)
    with TestClient(make_app(service)) as client, ThreadPoolExecutor(3) as threads:
        asked = [threads.submit(client.post, "/v1/segment", content=picture("JPEG")) for _ in range(3)]
        while service._in_work < 3:
            time.sleep(0.01)
        refused = client.post("/v1/segment", content=picture("JPEG"))
        assert client.get("/readyz").status_code == 200
        go.set()
        assert [each.result().status_code for each in asked] == [200, 200, 200]
        assert client.post("/v1/segment", content=picture("JPEG")).status_code == 200
    assert (refused.status_code, is_sentence(refused.content)) == (429, True)
    assert int(refused.headers["retry-after"]) >= 1


def test_a_deadline(open_service: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    service = open_service("deadline=0.3", "queue=1")
    go = held_back(service, monkeypatch)
    with TestClient(make_app(service)) as client:
        late = client.post("/v1/segment", content=picture("JPEG"))
        assert (late.status_code, is_sentence(late.content)) == (504, True)
        assert client.post("/v1/segment", content=picture("JPEG")).status_code == 429, "its place is not free yet"
        go.set()
        while service._in_work:
            time.sleep(0.01)
        monkeypatch.undo()
        service.config.__dict__["deadline"] = 30
        assert client.post("/v1/segment", content=picture("JPEG")).status_code == 200


def test_memory_is_shared(open_service: Open) -> None:
    with TestClient(make_app(open_service("memory=300000"))) as client, ThreadPoolExecutor(8) as threads:
        images = [picture("PNG", 100, 100)] * 8  # one of them at a time
        assert {each.status_code for each in threads.map(lambda i: client.post("/v1/segment", content=i), images)} == {
            200
        }
        too_large = client.post("/v1/segment", content=picture("PNG", 200, 100))
        probabilities = client.post("/v1/segment?format=probabilities", content=picture("PNG", 100, 100))
    assert too_large.status_code == 413
    assert is_sentence(too_large.content)
    assert probabilities.status_code in (200, 413)


def test_a_failure_is_told_and_kept_from_others(
    open_service: Open, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    service = open_service()
    with monkeypatch.context() as patch, TestClient(make_app(service), raise_server_exceptions=False) as client:
        patch.setattr(service.network, "compute", lambda *_: 1 / 0)
        failed = client.post("/v1/segment", content=picture("JPEG"))
        patch.undo()
        assert client.post("/v1/segment", content=picture("JPEG")).status_code == 200
    assert (failed.status_code, failed.json()) == (500, {"error": "the service failed; its log says more"})


def test_a_token(open_service: Open) -> None:
    with TestClient(make_app(open_service("token=secret"))) as client:
        for given in ({}, {"Authorization": "Bearer other"}, {"Authorization": "Basic secret"}):
            for path in ("/v1/model", "/metrics"):
                assert client.get(path, headers=given).status_code == 401
            answer = client.post("/v1/segment", content=picture("JPEG"), headers=given)
            assert (answer.status_code, is_sentence(answer.content)) == (401, True)
            assert answer.headers["www-authenticate"] == "Bearer"
        headers = {"Authorization": "Bearer secret"}
        assert client.post("/v1/segment", content=picture("JPEG"), headers=headers).status_code == 200
        assert client.get("/healthz").status_code == client.get("/readyz").status_code == 200
        assert "bearer" in client.get("/openapi.json").text.lower()


def test_pages_elsewhere_ask_only_where_told(open_service: Open, client: TestClient) -> None:
    asked = {"Origin": "https://a.org", "Access-Control-Request-Method": "POST"}
    assert "access-control-allow-origin" not in client.get("/v1/model", headers=asked).headers
    with TestClient(make_app(open_service("origins=[https://a.org]"))) as told:
        assert told.get("/v1/model", headers=asked).headers["access-control-allow-origin"] == "https://a.org"
        assert told.options("/v1/segment", headers=asked).status_code == 200
        other = asked | {"Origin": "https://b.org"}
        assert "access-control-allow-origin" not in told.get("/v1/model", headers=other).headers


def test_it_stops_taking_requests(open_service: Open) -> None:
    service = open_service()
    with TestClient(make_app(service)) as client:
        service.stopping = lambda: True
        for answer in (client.get("/readyz"), client.post("/v1/segment", content=picture("JPEG"))):
            assert (answer.status_code, is_sentence(answer.content)) == (503, True)
        assert client.get("/healthz").status_code == 200


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 25804928 bytes."),
        cv2.error("OpenCV(4.13.0) alloc.cpp:73: error: (-4:Insufficient memory) Failed to allocate 36000000 bytes"),
        torch.OutOfMemoryError("CUDA out of memory"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_short_memory_is_told(open_service: Open, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_: Any) -> None:
        raise error

    service = open_service()
    monkeypatch.setattr(service.network, "compute", fail)
    with TestClient(make_app(service)) as client:
        answer = client.post("/v1/segment", content=picture("PNG"))
    assert (answer.status_code, answer.json()["error"].split(";")[0]) == (503, "out of memory")


def test_a_picture_that_finds_no_memory_is_not_called_damaged(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    assert client.post("/v1/segment", content=picture("PNG")).status_code == 503


def test_nothing_is_stored(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a file")

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(os, "open", refuse)
    image = picture("BMP", 1000, 900)
    assert len(image) > 1 << 21
    assert client.post("/v1/segment", files={"image": image}).status_code == 200


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["port=70000"], "port=70000: Input should be less than or equal to 65535"),
        (["port=eighty"], "port=eighty"),
        (["host=no.such.host.invalid"], "host=no.such.host.invalid: no address of this machine"),
        (["host=192.0.2.1"], "host=192.0.2.1: no address of this machine"),
        (["limits.inference=[fast]"], "fast is none of canvas, full, multi_scale"),
        (["token=''"], "token"),
        (["checkpoint=none.safetensors"], "none.safetensors"),
        (["workers=0"], "workers=0"),
    ],
)
def test_mistakes_of_the_start(words: list[str], error: str, capsys: Capture) -> None:
    assert run_tool("serve", ["checkpoint=embedded", "port=0", *words]) == 2
    told = capsys.readouterr().err
    assert error in told
    assert len([line for line in told.splitlines() if line.startswith("error:")]) == 1


def test_a_port_that_is_taken(capsys: Capture) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert run_tool("serve", ["checkpoint=embedded", f"port={port}"]) == 2
    assert f"error: port {port} of 127.0.0.1 is in use; take another, as in port=" in capsys.readouterr().err


def test_a_missing_library(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    monkeypatch.setitem(EXTRAS, "serve", ("no_such_module",))
    assert run_tool("serve", []) == 2
    assert "serve needs no_such_module, which is not installed: pip install 'segapp[serve]'" in capsys.readouterr().err
