"""Uploads that mean no good; each must be answered 4xx, with a sentence.

python -m tests.serving.hostile http://127.0.0.1:8000 1000     asks a service for so many, others between them
"""

import io
import json
import socket
import struct
import sys
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from urllib.parse import urlsplit

import numpy as np
from PIL import Image


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def vast_png(side: int = 60_000, colours: int = 0) -> bytes:
    """A kilobyte that declares side x side pixels."""
    header = struct.pack(">IIBBBBB", side, side, 8, colours, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(900_000)))
        + chunk(b"IEND", b"")
    )


def picture(kind: str, width: int = 90, height: int = 60, **options: object) -> bytes:
    random = np.random.default_rng(0)
    file = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (height, width, 3), np.uint8)).save(file, kind, **options)
    return file.getvalue()


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as opened:
        opened.writestr("picture.png", bytes(1_000_000))
    return file.getvalue()


SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><script>alert(1)</script></svg>'
EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"


def bodies() -> dict[str, bytes]:
    """Of no sound image, by what is wrong."""
    jpeg, png = picture("JPEG"), picture("PNG")
    scans = jpeg[:-2] + 200 * b"\xff\xda\x00\x0c\x03\x01\x00\x02\x11\x03\x11\x00\x3f\x00" + jpeg[-2:]
    return {
        "vast": vast_png(),
        "vast in colours": vast_png(30_000, 2),
        "vast GIF": b"GIF89a"
        + struct.pack("<HH", 65535, 65535)
        + b"\x80\0\0\0\0\0\xff\xff\xff,\0\0\0\0"
        + struct.pack("<HH", 65535, 65535)
        + b"\0\2\2D\1\0;",
        "truncated JPEG": jpeg[: len(jpeg) // 2],
        "truncated PNG": png[: len(png) // 2],
        "truncated WebP": picture("WEBP")[:200],
        "flipped PNG": png[:60] + bytes(each ^ 255 for each in png[60:90]) + png[90:],
        "head alone": jpeg[:20],
        "magic alone": b"\x89PNG\r\n\x1a\n",
        "scans": scans,
        "zip": archive(),
        "zip behind a magic": b"\xff\xd8\xff\xe0" + archive(),
        "svg": SVG,
        "eps": EPS,
        "html": b"<html><script>alert(1)</script></html>",
        "text": b"not an image",
        "zeros": bytes(10_000),
        "noise": np.random.default_rng(1).bytes(10_000),
        "floats": picture_of_floats(),
        "nothing": b"",
    }


def picture_of_floats() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ones((4, 4), np.float32)).save(file, "TIFF")
    return file.getvalue()


def forms() -> dict[str, tuple[str, bytes]]:
    """Bodies with a Content-Type of which something is wrong."""
    part = b'--x\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
    jpeg = picture("JPEG")
    return {
        "no boundary": ("multipart/form-data", part % (b"image", b'; filename="a"', jpeg) + b"--x--"),
        "another field": (
            "multipart/form-data; boundary=x",
            part % (b"picture", b'; filename="a"', jpeg) + b"--x--\r\n",
        ),
        "no file": ("multipart/form-data; boundary=x", part % (b"image", b"", b"text") + b"--x--\r\n"),
        "many files": (
            "multipart/form-data; boundary=x",
            50 * (part % (b"image", b'; filename="a"', b"a")) + b"--x--\r\n",
        ),
        "many fields": ("multipart/form-data; boundary=x", 5000 * (part % (b"a", b"", b"b")) + b"--x--\r\n"),
        "no end": ("multipart/form-data; boundary=x", (part % (b"image", b'; filename="a"', jpeg))[:-300]),
        "no form": ("multipart/form-data; boundary=x", jpeg),
        "boundary of odd letters": ("multipart/form-data; boundary=\xe4\xf6; charset=hex", jpeg),
        "long boundary": (f"multipart/form-data; boundary={'x' * 3000}", jpeg),
        "json": ("application/json", b'{"image": "a.png"}'),
        "text": ("text/plain", jpeg),
        "urlencoded": ("application/x-www-form-urlencoded", b"image=" + b"a" * 1000),
    }


def requests() -> dict[str, tuple[str, bytes]]:
    """Content-Type and body, by what is wrong."""
    raw = {name: ("application/octet-stream", body) for name, body in bodies().items()}
    typed = {f"{name} as image/png": ("image/png", body) for name, body in bodies().items()}
    return raw | typed | forms()


def post(url: str, kind: str, body: bytes, seconds: float = 120) -> tuple[int, bytes]:
    """Status and body of the answer; 0 where the connection broke."""
    request = urllib.request.Request(url, body, {"Content-Type": kind})
    try:
        with urllib.request.urlopen(request, timeout=seconds) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
    except OSError as error:
        return 0, str(error).encode()


def drip(url: str, head: bytes, pieces: Iterator[bytes], pause: float = 0, seconds: float = 60) -> bytes:
    """What comes back while pieces are sent with a pause between them; they may be without end."""
    address = urlsplit(url)
    received, until = b"", time.monotonic() + seconds
    with socket.create_connection((address.hostname or "", address.port or 80)) as connection:
        connection.settimeout(max(pause, 0.001))
        try:
            connection.sendall(head)
            for piece in pieces:
                try:
                    received = connection.recv(1 << 16)
                except TimeoutError:
                    connection.settimeout(seconds)
                    connection.sendall(piece)
                    connection.settimeout(max(pause, 0.001))
                    if time.monotonic() > until:
                        return b""
                else:
                    break
            connection.settimeout(5)
            while not received.endswith(b"}") and (more := connection.recv(1 << 16)):
                received += more
        except OSError:
            pass
        return received


HEAD = b"POST /v1/segment HTTP/1.1\r\nHost: a\r\nContent-Type: image/png\r\n"


def endless() -> Iterator[bytes]:
    while True:
        yield b"10000\r\n" + bytes(1 << 16) + b"\r\n"


def slowly(body: bytes = bytes(1 << 20)) -> Iterator[bytes]:
    for at in range(len(body)):
        yield body[at : at + 1]


def endless_upload(url: str) -> tuple[int, bytes]:
    return parsed(drip(url, HEAD + b"Transfer-Encoding: chunked\r\n\r\n", endless()))


def slow_upload(url: str) -> tuple[int, bytes]:
    return parsed(drip(url, HEAD + b"Content-Length: 100000\r\n\r\n", slowly(), 0.2))


def slow_head(url: str) -> tuple[int, bytes]:
    return parsed(drip(url, HEAD, slowly(b"X-Name: " + 1000 * b"x"), 0.2))


def parsed(answer: bytes) -> tuple[int, bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, body


def is_sentence(body: bytes) -> bool:
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError, TypeError):
        return False
    return isinstance(error, str) and " " in error and "\n" not in error


def main(service: str, number: int) -> int:
    """Sends so many, from 16 threads; good ones between them must be answered. Returns how many went wrong."""
    url = f"{service}/v1/segment"
    cases: list[tuple[str, Callable[[], tuple[int, bytes]]]] = [
        (name, partial(post, url, kind, body)) for name, (kind, body) in requests().items()
    ]
    cases += [("good", lambda: post(url, "image/jpeg", picture("JPEG"))) for _ in range(len(cases) // 10)]
    cases += [(name, partial(ask, url)) for name, ask in STREAMED.items()]
    seen: Counter[tuple[str, int]] = Counter()
    wrong = 0
    with ThreadPoolExecutor(16) as threads:
        names = [cases[at % len(cases)][0] for at in range(number)]
        for name, (status, body) in zip(
            names, threads.map(lambda at: cases[at % len(cases)][1](), range(number)), strict=True
        ):
            good = status == 200 if name == "good" else 400 <= status < 500 and is_sentence(body)
            if name == "good" and status == 429:
                good = True
            seen[name, status] += 1
            if not good:
                wrong += 1
                print(name, status, body[:200])
    for (name, status), count in sorted(seen.items()):
        print(f"{count:5} x {status} {name}")
    print(f"{wrong} of {number} were answered wrongly")
    return wrong


STREAMED = {"endless": endless_upload, "slow body": slow_upload, "slow head": slow_head}

if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1], int(sys.argv[2]))))
