"""Against a real server on this machine that does what a test tells it to."""

import errno
import functools
import hashlib
import io
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segapp.base import download, files
from segapp.base.cache import cache_folder
from segapp.base.download import Fetched, fetch
from segapp.base.errors import UserError

pytestmark = pytest.mark.network

BODY = np.random.default_rng(0).bytes(700_000)
OTHER = np.random.default_rng(1).bytes(700_000)
OTHERWISE = "Train from scratch with weights=null."


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        server.requests.append(dict(self.headers))
        reply = server.replies.pop(0) if len(server.replies) > 1 else server.replies[0]
        reply(self)
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


Reply = Callable[[Handler], None]


class Server(ThreadingHTTPServer):
    """Gives one reply after another, the last of them again and again, and keeps the headers of what it was asked."""

    replies: list[Reply]
    requests: list[dict[str, str]]

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that hangs up

    def url(self, name: str = "net.tar") -> str:
        return f"http://127.0.0.1:{self.server_port}/files/{name}"

    @property
    def ranges(self) -> list[str | None]:
        return [request.get("Range") for request in self.requests]


def send(
    body: bytes = BODY,
    *,
    etag: str | None = '"1"',
    modified: str | None = None,
    ranges: bool = True,
    if_range: bool = True,
    cut: int | None = None,
    length: int | None = None,
    shift: int = 0,
    last: int | None = None,
    kind: str = "application/octet-stream",
) -> Reply:
    """What servers do, well or badly: cut after so many bytes, of a false length, from a place not asked for."""

    def reply(handler: Handler) -> None:
        asked = handler.headers.get("Range") if ranges else None
        if if_range and handler.headers.get("If-Range") not in (None, etag, modified):
            asked = None
        start = int(asked.removeprefix("bytes=").removesuffix("-")) - shift if asked else 0
        handler.send_response(206 if asked else 200)
        if asked:
            handler.send_header("Content-Range", f"bytes {start}-{last or len(body) - 1}/{len(body)}")
        for name, value in {"ETag": etag, "Last-Modified": modified, "Content-Type": kind}.items():
            if value is not None:
                handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(body) - start if length is None else length))
        handler.end_headers()
        handler.wfile.write(body[start : None if cut is None else start + cut])

    return reply


def chunked(chunks: Iterator[bytes]) -> Reply:
    """Without a length."""

    def reply(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for chunk in chunks:
            handler.wfile.write(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n")
        handler.wfile.write(b"0\r\n\r\n")

    return reply


def status(code: int, **headers: str) -> Reply:
    def reply(handler: Handler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return reply


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "PAUSES", (0.0,) * 4)
    with Server(("127.0.0.1", 0), Handler) as server:
        server.replies, server.requests = [send()], []
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "files"


def fails(url: str, folder: Path, *parts: str, **options: Any) -> str:
    """Every failure is one line that ends with how to go on without the file."""
    with pytest.raises(UserError) as caught:
        fetch(url, folder, otherwise=OTHERWISE, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(f". {OTHERWISE}")
    for part in parts:
        assert part in message
    return message


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith((".lock", ".downloaded")))


def ledger() -> Path:
    return cache_folder() / "checksums.json"


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*args: Any, **options: Any) -> Any:
        raise error

    return fail


# --- fetch: what is there, and what comes whole


def test_download(server: Server, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    fetched = fetch(server.url(), folder, megabytes=1)
    assert fetched == Fetched(folder / "net.tar", sha256(BODY), True, server.url())
    assert fetched.path.read_bytes() == BODY
    assert names(folder) == ["net.tar"]
    assert server.requests[0]["User-Agent"] == "segapp"
    assert server.ranges == [None]
    assert f"downloading {server.url()} to {folder / 'net.tar'}, about 1.0 MB" in caplog.messages
    assert fetch(server.url(), folder) == fetched, "downloaded, if not now"
    assert len(server.requests) == 1


def test_name_is_the_last_part_of_the_path(server: Server, folder: Path) -> None:
    assert fetch(server.url("a%20b.tar?x=/c.zip#d"), folder).path == folder / "a b.tar"


def test_empty_file(server: Server, folder: Path) -> None:
    server.replies = [send(b"")]
    assert fetch(server.url(), folder, size=0).path.read_bytes() == b""


def test_without_a_length(server: Server, folder: Path) -> None:
    server.replies = [chunked(iter([BODY[:5], BODY[5:]]))]
    assert fetch(server.url(), folder, size=len(BODY)).path.read_bytes() == BODY


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://127.0.0.1",
        "http://127.0.0.1/a/",
        "http://127.0.0.1/a/..",
        "http://127.0.0.1/%2e%2e",
        "http://127.0.0.1/..%2fa",
        "http://127.0.0.1/a%5cb",
        "http://127.0.0.1/a%0ab",
        "http://127.0.0.1/a b",
        "http://127.0.0.1/ä",
        "http://127.0.0.1:99999/a",
        "http://[::1/a",
        "http:///a",
        "file:///etc/passwd",
        "ftp://127.0.0.1/a",
        "net.tar",
        "",
    ],
)
def test_no_address(url: str, folder: Path) -> None:
    fails(url, folder, repr(url))
    assert not folder.exists()


def test_put_there_by_hand(server: Server, folder: Path) -> None:
    folder.mkdir()
    (folder / "net.tar").write_bytes(BODY)
    fetched = fetch(server.url(), folder, sha256=sha256(BODY), size=len(BODY), offline=True)
    assert fetched == Fetched(folder / "net.tar", sha256(BODY), False, server.url())
    assert not server.requests
    assert names(folder) == ["net.tar"]


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"size": 5}, (" 5;", " 700000 bytes")),
        ({"sha256": "ab" * 32}, ("ab" * 32, sha256(BODY))),
        ({"md5": "ab" * 16}, ("ab" * 16, hashlib.md5(BODY).hexdigest())),
    ],
)
def test_another_file_put_there_by_hand_stays(options: Any, parts: tuple[str, str], folder: Path) -> None:
    folder.mkdir()
    (folder / "net.tar").write_bytes(BODY)
    fails("http://127.0.0.1/net.tar", folder, str(folder / "net.tar"), "remove", *parts, **options)
    assert (folder / "net.tar").read_bytes() == BODY


@pytest.mark.parametrize("given", [False, True])
def test_read_only_cache(given: bool, server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fetch(server.url(), folder)
    read_only = raising(OSError(errno.EROFS, os.strerror(errno.EROFS)))
    monkeypatch.setattr(Path, "mkdir", read_only)
    monkeypatch.setattr(download, "FileLock", read_only)
    monkeypatch.setattr(download, "write_json", read_only)
    assert fetch(server.url(), folder, sha256=sha256(BODY) if given else None).path.read_bytes() == BODY
    assert len(server.requests) == 1


def test_offline(server: Server, folder: Path) -> None:
    fails(server.url(), folder, "offline=true", server.url(), str(folder / "net.tar"), offline=True)
    assert not server.requests
    assert not folder.exists()


# --- fetch: connections that break


def test_cut_connection_is_resumed(server: Server, folder: Path) -> None:
    server.replies = [send(cut=300_000), send()]
    fetched = fetch(server.url(), folder)
    assert fetched.path.read_bytes() == BODY
    assert fetched.sha256 == sha256(BODY)
    assert server.ranges == [None, "bytes=300000-"]
    assert server.requests[1]["If-Range"] == '"1"'
    assert names(folder) == ["net.tar"]


def left_from_before(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, reply: Reply) -> str:
    """A part, as a process leaves it whose connection was cut; returns its last words."""
    server.replies = [reply]
    with monkeypatch.context() as patch:
        patch.setattr(download, "PAUSES", ())
        message = fails(server.url(), folder, server.url(), "by hand")
    assert (folder / "net.tar.part").stat().st_size == 300_000
    server.requests.clear()
    return message


@pytest.mark.parametrize("by", [{"etag": '"1"'}, {"etag": None, "modified": "Mon, 01 Jan 2024 00:00:00 GMT"}])
def test_resume_of_an_earlier_process(
    by: Any, server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert "0.3 MB that came are kept" in left_from_before(server, folder, monkeypatch, send(**by, cut=300_000))
    server.replies = [send(**by)]
    fetched = fetch(server.url(), folder, md5=hashlib.md5(BODY).hexdigest())
    assert fetched.path.read_bytes() == BODY
    assert fetched.sha256 == sha256(BODY)
    assert server.ranges == ["bytes=300000-"]
    assert names(folder) == ["net.tar"]


@pytest.mark.parametrize("etag", [None, 'W/"1"'])
def test_nothing_that_tells_of_a_change(
    etag: str | None, server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "kept" not in left_from_before(server, folder, monkeypatch, send(etag=etag, cut=300_000))
    server.replies = [send(OTHER, etag=etag)]
    assert fetch(server.url(), folder).path.read_bytes() == OTHER
    assert server.ranges == [None]


def test_part_of_another_address(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left_from_before(server, folder, monkeypatch, send(cut=300_000))
    server.replies = [send(OTHER)]
    url = server.url("other/net.tar")
    assert fetch(url, folder).path.read_bytes() == OTHER
    assert server.ranges == [None]


@pytest.mark.parametrize("notes", ["", "{", "[]", '{"url": 1}', None])
def test_damaged_notes(notes: str | None, server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left_from_before(server, folder, monkeypatch, send(cut=300_000))
    if notes is None:
        (folder / "net.tar.part").unlink()
    else:
        (folder / "net.tar.part.json").write_text(notes)
    server.replies = [send()]
    assert fetch(server.url(), folder).path.read_bytes() == BODY
    assert server.ranges == [None]


@pytest.mark.parametrize(
    ("replies", "asked"),
    [
        ([send(OTHER, etag='"2"')], 1),  # answers 200
        ([send(OTHER, ranges=False)], 1),
        ([send(OTHER, etag='"2"', if_range=False), send(OTHER, etag='"2"')], 2),  # 206 of another file
        ([send(OTHER, shift=1), send(OTHER)], 2),  # 206 from another place
        ([send(OTHER, length=5, cut=5), send(OTHER)], 2),  # 206 of another length than its own range
        ([send(OTHER, last=399_999, length=100_000, cut=100_000), send(OTHER)], 2),  # 206 of less than the rest
        ([status(206), send(OTHER)], 2),
        ([status(416), send(OTHER)], 2),
    ],
)
def test_part_that_no_longer_fits(
    replies: list[Reply], asked: int, server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_from_before(server, folder, monkeypatch, send(cut=300_000))
    server.replies = replies
    assert fetch(server.url(), folder).path.read_bytes() == OTHER
    assert server.ranges == ["bytes=300000-", None][:asked]


@pytest.mark.parametrize("code", [500, 503, 429])
def test_passing_trouble(code: int, server: Server, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    server.replies = [status(code), send()]
    assert fetch(server.url(), folder).path.read_bytes() == BODY
    assert len(server.requests) == 2
    assert str(code) in caplog.text


def test_lasting_trouble(server: Server, folder: Path) -> None:
    server.replies = [status(500)]
    fails(server.url(), folder, server.url(), "500", str(folder / "net.tar"))
    assert len(server.requests) == 5


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_no_such_file(code: int, server: Server, folder: Path) -> None:
    server.replies = [status(code)]
    fails(server.url(), folder, server.url(), str(code), str(folder / "net.tar"))
    assert len(server.requests) == 1
    assert names(folder) == []


def test_pauses_grow(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(download, "PAUSES", (0.1, 0.2))
    monkeypatch.setattr(time, "sleep", slept.append)
    server.replies = [status(500), status(500), send(cut=5), status(500), send()]
    fetch(server.url(), folder)
    assert slept == [0.1, 0.2, 0.1, 0.2]  # what the third brought let the count begin anew


def test_progress_is_bounded(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MOST_TRIES", 7)
    server.replies = [send(cut=10)]
    fails(server.url(), folder, "70 of 700000")
    assert len(server.requests) == 7


def test_to_begin_again_is_no_progress(server: Server, folder: Path) -> None:
    server.replies = [send(etag=None, cut=10)]
    fails(server.url(), folder, "10 of 700000")
    assert len(server.requests) == 5


def test_short_of_the_announced_length(server: Server, folder: Path) -> None:
    server.replies = [send(etag=None, length=len(BODY) + 10)]
    fails(server.url(), folder, "700000 of 700010")
    assert not (folder / "net.tar").exists()


def test_longer_than_the_announced_length(server: Server, folder: Path) -> None:
    server.replies = [send(length=600_000)]
    fails(server.url(), folder, "600000", "700000", size=len(BODY))
    assert names(folder) == []
    assert fetch(server.url(), folder).path.read_bytes() == BODY[:600_000]  # HTTP's own bound of the file


def test_chunks_cut_short(server: Server, folder: Path) -> None:
    def reply(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"ff\r\nabc")

    server.replies = [reply, send()]
    assert fetch(server.url(), folder).path.read_bytes() == BODY


def test_slow_server(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    done = threading.Event()

    def stuck(handler: Handler) -> None:
        send(cut=300_000)(handler)
        handler.wfile.flush()
        done.wait(10)

    server.replies = [stuck, send()]
    began = time.monotonic()
    assert fetch(server.url(), folder).path.read_bytes() == BODY
    assert time.monotonic() - began < 5
    assert server.ranges == [None, "bytes=300000-"]
    done.set()


def test_nobody_listens(folder: Path, server: Server) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/net.tar"
        fails(url, folder, url, "Connection refused", str(folder / "net.tar"))


def test_no_network(folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", raising(socket.gaierror(-2, "Name or service not known")))
    fails("http://host.example/net.tar", folder, "host.example", "Name or service not known", str(folder / "net.tar"))


# --- fetch: what a server must not do


def test_redirect(server: Server, folder: Path) -> None:
    server.replies = [status(302, Location=server.url("elsewhere")), send()]
    assert fetch(server.url(), folder).path == folder / "net.tar"


@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/net.tar", "data:,abc"])
def test_redirect_to_another_scheme(to: str, server: Server, folder: Path) -> None:
    server.replies = [status(302, Location=to)]
    fails(server.url(), folder, server.url(), to)
    assert names(folder) == []
    assert len(server.requests) == 1


def test_redirect_in_circles(server: Server, folder: Path) -> None:
    server.replies = [status(302, Location=server.url())]
    fails(server.url(), folder, server.url(), "302")


def test_redirect_to_plain_http() -> None:
    def redirect(old: str, new: str) -> urllib.request.Request | None:
        handler: Any = download._Redirects()
        return handler.redirect_request(urllib.request.Request(old), io.BytesIO(), 302, "Found", {}, new)  # type: ignore[no-any-return]

    assert redirect("https://a.example/x", "https://b.example/x")
    assert redirect("http://a.example/x", "https://b.example/x")
    with pytest.raises(UserError, match="http://b.example/x"):
        redirect("https://a.example/x", "http://b.example/x")


def test_web_page_in_place_of_the_file(server: Server, folder: Path) -> None:
    server.replies = [send(b"<html>log in", kind="text/html; charset=utf-8")]
    fails(server.url(), folder, server.url(), "web page")
    assert names(folder) == []
    assert fetch(server.url("a.html"), folder).path.read_bytes() == b"<html>log in"


def test_endless_body(server: Server, folder: Path) -> None:
    server.replies = [chunked(bytes(100_000) for _ in range(10**9))]
    fails(server.url(), folder, server.url(), "about 1 MB", megabytes=1)
    assert names(folder) == []


def test_far_too_large(server: Server, folder: Path) -> None:
    server.replies = [send(b"", length=3_000_001)]
    fails(server.url(), folder, "3000001 bytes", "about 1 MB", megabytes=1)
    assert names(folder) == []
    assert len(server.requests) == 1


def test_a_little_too_large(server: Server, folder: Path) -> None:
    server.replies = [send(bytes(3_000_000))]
    assert fetch(server.url(), folder, megabytes=1).path.stat().st_size == 3_000_000


@pytest.mark.parametrize("size", [699_999, 700_001])
@pytest.mark.parametrize("announced", [True, False])
def test_wrong_size(size: int, announced: bool, server: Server, folder: Path) -> None:
    server.replies = [send()] if announced else [chunked(iter([BODY])) for _ in range(5)]
    fails(server.url(), folder, server.url(), str(size), size=size)
    assert not (folder / "net.tar").exists()
    assert len(server.requests) == (5 if size > 700_000 and not announced else 1)  # perhaps it was cut short


@pytest.mark.parametrize(("kind", "digits"), [("sha256", 64), ("md5", 32)])
def test_given_checksum(kind: str, digits: int, server: Server, folder: Path) -> None:
    right, wrong = hashlib.new(kind, BODY).hexdigest(), "0" * digits
    fails(server.url(), folder, server.url(), right, wrong, **{kind: wrong})
    assert names(folder) == []
    options: Any = {kind: right.upper()}
    assert fetch(server.url(), folder, **options).sha256 == sha256(BODY)
    assert not ledger().exists()


# --- fetch: trust on first use


def test_checksum_is_recorded(server: Server, folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    fetched = fetch(server.url(), folder)
    assert not ledger().exists(), "not before its content has proved right"
    fetched.accept()
    assert json.loads(ledger().read_text())[server.url()]["sha256"] == sha256(BODY)
    assert any(server.url() in line and sha256(BODY) in line for line in caplog.messages)
    fetch(server.url("second"), folder).accept()
    assert list(json.loads(ledger().read_text())) == [server.url("second"), server.url()]


def test_checksum_has_changed(server: Server, folder: Path) -> None:
    fetched = fetch(server.url(), folder)
    fetched.accept()
    fetched.discard()
    day = json.loads(ledger().read_text())[server.url()]["recorded"]
    server.replies = [send(OTHER)]
    fails(server.url(), folder, server.url(), sha256(BODY), sha256(OTHER), day, str(ledger()))
    assert names(folder) == []
    ledger().unlink()
    assert fetch(server.url(), folder).sha256 == sha256(OTHER)


def test_changed_file_put_there_by_hand_stays(server: Server, folder: Path) -> None:
    fetched = fetch(server.url(), folder)
    fetched.accept()
    fetched.path.write_bytes(OTHER)
    fails(server.url(), folder, str(folder / "net.tar"), sha256(BODY), sha256(OTHER), str(ledger()))
    assert (folder / "net.tar").read_bytes() == OTHER


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b'{"URL": 3}', b'{"URL": {"size": 3}}', b'{"other": 1}'])
def test_damaged_ledger(text: bytes, server: Server, folder: Path) -> None:
    cache_folder().mkdir()
    ledger().write_bytes(text.replace(b"URL", server.url().encode()))
    fetch(server.url(), folder).accept()
    assert json.loads(ledger().read_text())[server.url()]["sha256"] == sha256(BODY)


def test_ledger_cannot_be_written(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def write(path: Path, value: Any) -> None:
        if path == ledger():
            raise OSError(errno.EROFS, "Read-only file system")
        path.write_text(json.dumps(value))

    monkeypatch.setattr(download, "write_json", write)
    fetched = fetch(server.url(), folder)
    fetched.accept()
    assert fetched.path.read_bytes() == BODY
    assert "Read-only file system" in caplog.text


def test_a_file_put_there_by_hand_is_neither_recorded_nor_removed(server: Server, folder: Path) -> None:
    """Not even where one that was downloaded lay before."""
    fetch(server.url(), folder).path.unlink()
    (folder / "net.tar").write_bytes(OTHER)
    fetched = fetch(server.url(), folder)
    fetched.accept()
    fetched.discard()
    assert not ledger().exists()
    assert (folder / "net.tar").read_bytes() == OTHER


def test_a_download_is_removed_also_by_a_later_process(server: Server, folder: Path) -> None:
    fetch(server.url(), folder)
    fetch(server.url(), folder).discard()
    assert not [path for path in folder.iterdir() if path.suffix != ".lock"]


# --- fetch: disks, folders and other processes


def test_no_room(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage("/")._replace(free=600_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    fails(server.url(), folder, str(folder), "0.6 MB free", "1.0 MB are needed", "SEGAPP_CACHE", megabytes=1)
    assert not server.requests
    fails(server.url(), folder, str(folder), "0.6 MB free", "0.7 MB are needed", "SEGAPP_CACHE")
    assert names(folder) == ["net.tar.part.json"]


def test_room_for_the_rest_is_enough(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left_from_before(server, folder, monkeypatch, send(cut=300_000))
    server.replies = [send()]
    usage = shutil.disk_usage("/")._replace(free=400_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    assert fetch(server.url(), folder, size=700_000).path.read_bytes() == BODY


class FullDisk(io.FileIO):
    """Takes 300,000 bytes."""

    def write(self, data: Any) -> int:
        room = max(0, 300_000 - self.tell())
        if not room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(bytes(data)[:room])


def fill_disk(patch: pytest.MonkeyPatch) -> None:
    whole = Path.open

    def opened(path: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if mode in ("ab", "xb"):
            return io.BufferedWriter(FullDisk(path, mode[0]))
        return whole(path, mode, *args, **options)

    patch.setattr(Path, "open", opened)


def test_disk_full(server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        fill_disk(patch)
        fails(server.url(), folder, str(folder), "full", "0.7 MB", "kept", "SEGAPP_CACHE")
    assert len(server.requests) == 1
    assert fetch(server.url(), folder).path.read_bytes() == BODY
    assert server.ranges == [None, "bytes=300000-"]


@pytest.mark.parametrize("what", [(Path, "mkdir"), (files, "FileLock")])
def test_folder_not_writable(what: Any, server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(what[0], what[1], raising(PermissionError(errno.EACCES, "Permission denied")))
    fails(server.url(), folder, str(folder), "Permission denied", "SEGAPP_CACHE")
    assert not server.requests


def test_folder_is_a_file(server: Server, folder: Path) -> None:
    folder.write_text("")
    fails(server.url(), folder / "deeper", str(folder / "deeper"), "Not a directory", "SEGAPP_CACHE")


def test_two_processes(server: Server, folder: Path) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def reply(handler: Handler) -> None:
        asked.set()
        go_on.wait(20)
        send()(handler)

    server.replies = [reply]
    code = """
import logging, sys, types
from pathlib import Path

sys.modules["segapp"] = types.ModuleType("segapp")  # the package's own __init__ takes seconds, for torch
sys.modules["segapp"].__path__ = [sys.argv[3]]
from segapp.base.download import fetch

logging.basicConfig(level="INFO")
print(fetch(sys.argv[1], Path(sys.argv[2])).downloaded)
"""
    command = [sys.executable, "-c", code, server.url(), str(folder), str(Path(download.__file__).parent.parent)]
    start = functools.partial(subprocess.Popen[str], command, text=True, stdout=subprocess.PIPE)
    with start() as first:
        assert asked.wait(20)
        with start(stderr=subprocess.PIPE) as second:
            assert second.stderr is not None
            assert "another process is downloading" in second.stderr.readline()
            go_on.set()
            assert second.communicate()[0] == "True\n"
        assert first.communicate()[0] == "True\n"
    assert len(server.requests) == 1
    assert (folder / "net.tar").read_bytes() == BODY
