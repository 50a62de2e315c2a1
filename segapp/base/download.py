"""Fetches files by http; remote.py copies what has other addresses, and nothing else does. All of it is untrusted."""

import hashlib
import http.client
import json
import logging
import math
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from threading import Thread
from typing import IO, Any, NoReturn
from urllib.parse import unquote, urlsplit

from filelock import FileLock

from segapp.base.cache import cache_folder
from segapp.base.errors import OTHER_FOLDER, UserError, disk_error, megabytes, plain
from segapp.base.files import file_lock, write_json
from segapp.base.logs import progress_bar

log = logging.getLogger(__name__)

PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds between tries that bring nothing new; one more try than pauses
MOST_TRIES = 100  # in all, however much each of them brings
TIMEOUT = 30.0  # seconds, to connect and for each read
_CHUNK = 1 << 18  # bytes
_MB = 1_000_000  # bytes


@dataclass(frozen=True)
class Fetched:
    """`downloaded`: now or earlier; False: put there by hand."""

    path: Path
    sha256: str
    downloaded: bool
    url: str

    def accept(self) -> None:
        """To be called once its content has proved right: from now on the address must give these bytes."""
        if self.downloaded:
            _trust(self.url, self.sha256)

    def discard(self) -> None:
        """Removes it, where it is not the user's."""
        if self.downloaded:
            discard_download(self.path)


def fetch(
    url: str,
    folder: Path,
    *,
    size: int | None = None,
    megabytes: int | None = None,
    sha256: str | None = None,
    md5: str | None = None,
    offline: bool = False,
    otherwise: str = "",
    elsewhere: str = OTHER_FOLDER,
) -> Fetched:
    """The file at `url`, as folder/NAME: what lies there, else downloaded, where possible from where a try ended.

    `size` in bytes is exact, `megabytes` about right: over twice as much is refused. With neither `sha256` nor `md5`,
    the checksum must be the one that this address had when it was first accepted. `otherwise`, a sentence of how to go
    on without the file, ends every error. `elsewhere` says how to take another folder, where this one's disk is full.

    Raises:
        UserError: the file cannot be had, or is not the expected one.
    """
    expected = _Expected(size, megabytes, sha256, md5)
    try:
        path = folder / _file_name(url)
        if path.exists():
            return _found(url, path, expected)
        if offline:
            raise UserError(f"offline=true, and {path.name} is not here; get it from {url} and put it at {path}")
        folder.mkdir(parents=True, exist_ok=True)
        with file_lock(Path(f"{path}.lock"), f"downloading {path}"):
            if path.exists():
                return _found(url, path, expected)
            return Fetched(path, _Download(url, path, expected, elsewhere).run(), True, url)
    except (UserError, OSError) as problem:
        error = disk_error(folder, problem, otherwise=elsewhere) if isinstance(problem, OSError) else problem
        raise UserError(f"{error}. {otherwise}" if otherwise else str(error)) from None


def answers(url: str, seconds: float = 2.0) -> bool:
    """Whether the server of a file answers for it, known after so many seconds at the latest."""
    found = []

    def ask() -> None:
        request = urllib.request.Request(url, headers={"User-Agent": "segapp"}, method="HEAD")
        with suppress(OSError, http.client.HTTPException, ValueError):
            urllib.request.build_opener(_Redirects).open(request, timeout=seconds).close()
            found.append(url)

    asking = Thread(target=ask, daemon=True)  # looking up a name has no time-out of its own
    asking.start()
    asking.join(seconds)
    return bool(found)


def _file_name(url: str) -> str:
    try:
        parts = urlsplit(url)
        name = unquote(parts.path.rpartition("/")[2])
        whole = bool(parts.hostname) and parts.port != 0 and url.isascii() and url.isprintable() and " " not in url
    except ValueError as error:
        raise UserError(f"{url!r} is no address of a file: {error}") from None
    if parts.scheme not in ("http", "https"):
        raise UserError(f"{url!r}: only http:// and https:// addresses are fetched")
    if not whole or name in ("", ".", "..") or not name.isprintable() or set(name) & set("/\\:"):
        raise UserError(f"{url!r} is no address of a file; give one that ends in the file's name")
    return name


class _Checksums:
    """Of the bytes so far."""

    def __init__(self, names: set[str]) -> None:
        self.size = 0
        self._hashes = {name: hashlib.new(name, usedforsecurity=False) for name in names}

    def add(self, chunk: bytes) -> None:
        self.size += len(chunk)
        for one in self._hashes.values():
            one.update(chunk)

    def add_file(self, path: Path) -> None:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                self.add(chunk)

    def __getitem__(self, name: str) -> str:
        return self._hashes[name].hexdigest()


@dataclass(frozen=True)
class _Expected:
    size: int | None
    megabytes: int | None
    sha256: str | None
    md5: str | None

    @property
    def about(self) -> int | None:
        """Bytes."""
        return self.megabytes * _MB if self.size is None and self.megabytes is not None else self.size

    @property
    def most(self) -> float:
        """Bytes."""
        if self.size is not None:
            return self.size
        return math.inf if self.megabytes is None else 2 * self.megabytes * _MB + _MB

    @property
    def length(self) -> str:
        return f"about {self.megabytes} MB" if self.size is None else f"{self.size} bytes"

    @property
    def given(self) -> dict[str, str]:
        named = {"sha256": self.sha256, "md5": self.md5}
        return {name: value.lower() for name, value in named.items() if value is not None}

    def checksums(self) -> _Checksums:
        return _Checksums({"sha256", *self.given})

    def fault(self, url: str, seen: _Checksums) -> str | None:
        """What is wrong with a file, as in "it ...", or None."""
        if self.size is not None and seen.size != self.size:
            return f"is {seen.size} bytes long, not {self.size}"
        for name, value in self.given.items():
            if seen[name] != value:
                return f"has {name} {seen[name]}, not {value}"
        if self.given:
            return None
        first = _entries(_ledger()).get(url)
        if first is None or first["sha256"] == seen["sha256"]:
            return None
        return (
            f"has sha256 {seen['sha256']}, not {first['sha256']} as on {first.get('recorded', 'an earlier day')}; "
            f"to accept the new one, delete the entry of {url} in {_ledger()}"
        )


def _found(url: str, path: Path, expected: _Expected) -> Fetched:
    seen = expected.checksums()
    seen.add_file(path)
    if fault := expected.fault(url, seen):  # perhaps put there by hand: not ours to delete
        raise UserError(f"{path} {fault}; remove the file to have it downloaded anew")
    with suppress(OSError, ValueError):
        return Fetched(path, seen["sha256"], _mark(path).read_text(encoding="ascii") == seen["sha256"], url)
    return Fetched(path, seen["sha256"], False, url)


def discard_download(path: Path) -> None:
    """Removes a file that `fetch` has downloaded; one that the user put there stays."""
    if _mark(path).exists():
        path.unlink(missing_ok=True)
        _mark(path).unlink(missing_ok=True)


def _mark(path: Path) -> Path:
    """Beside a file that was downloaded: its SHA-256."""
    return path.with_name(f".{path.name}.downloaded")


def _ledger() -> Path:
    """Of the checksums that downloads had the first time."""
    return cache_folder() / "checksums.json"


def _trust(url: str, sha256: str) -> None:
    """Records the checksum of an address at its first use."""
    ledger = _ledger()
    try:
        if url in _entries(ledger):
            return
        log.info("%s has sha256 %s; from now on it must have that", url, sha256)
        ledger.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{ledger}.lock"):
            entry = {"sha256": sha256, "recorded": date.today().isoformat()}
            write_json(ledger, {url: entry} | _entries(ledger))
    except OSError as error:
        log.warning("the checksum of %s is not recorded, so a later change would go unseen: %s", url, error)


def _entries(ledger: Path) -> dict[str, Any]:
    try:
        entries = json.loads(ledger.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        entries = None
    if not isinstance(entries, dict):
        log.warning("%s is damaged; the checksums in it are forgotten", ledger)
        return {}
    return {url: entry for url, entry in entries.items() if isinstance(entry, dict) and "sha256" in entry}


class _PassingError(Exception):
    """What may be mended by another try."""


def _reason(error: Exception) -> str:
    """In one line; some of it may be the server's."""
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    text = inner.strerror if isinstance(inner, OSError) and inner.strerror else str(inner) or type(inner).__name__
    return plain(text)


class _Redirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        schemes = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if schemes[1] not in ("http", "https") or schemes == ("https", "http"):
            fp.close()
            raise UserError(f"{req.full_url} sends on to {plain(newurl)}, which is less safe; it is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


class _Download:
    """A file on its way. What lies in the part is what `seen` has seen."""

    def __init__(self, url: str, path: Path, expected: _Expected, elsewhere: str) -> None:
        self.url, self.path, self.expected, self.elsewhere = url, path, expected, elsewhere
        self.part = path.with_name(f"{path.name}.part")
        self.notes = path.with_name(f"{path.name}.part.json")
        self.validator: str | None = None  # what tells whether the file is still the same on the server
        self.seen = expected.checksums()

    def run(self) -> str:
        """Its SHA-256, once it lies there whole."""
        self._take_up_part()
        about = self.expected.about
        self._check_room(about)
        size = "size unknown" if about is None else f"about {megabytes(about)}"
        log.info("downloading %s to %s, %s", self.url, self.path, size)
        self._retry()
        if fault := self.expected.fault(self.url, self.seen):
            self._refuse(fault)
        with self.part.open("rb") as file:
            os.fsync(file.fileno())
        _mark(self.path).write_text(self.seen["sha256"], encoding="ascii")
        self.part.replace(self.path)
        self.notes.unlink(missing_ok=True)
        return self.seen["sha256"]

    @property
    def _by_hand(self) -> str:
        return f"try again later, or put the file at {self.path} by hand"

    @property
    def _kept(self) -> str:
        resumable = self.seen.size and self.validator
        return (
            f"; the {megabytes(self.seen.size)} that came are kept, and the next run goes on there"
            if resumable
            else ""
        )

    def _take_up_part(self) -> None:
        """What an earlier process left, if the server can tell whether its file is still the same."""
        with suppress(FileNotFoundError, ValueError):
            match json.loads(self.notes.read_text(encoding="utf-8")):
                case {"url": self.url, "validator": str(validator)}:
                    self.seen.add_file(self.part)
                    self.validator = validator
                    return
        self._drop_part()

    def _drop_part(self) -> None:
        self.part.unlink(missing_ok=True)
        self.notes.unlink(missing_ok=True)
        self.validator = None
        self.seen = self.expected.checksums()

    def _check_room(self, total: int | None) -> None:
        free = shutil.disk_usage(self.part.parent).free
        if total is not None and total - self.seen.size > free:
            needed = megabytes(total - self.seen.size)
            raise UserError(
                f"the disk of {self.part.parent} has {megabytes(free)} free, but {needed} are needed "
                f"for {self.url}{self._kept}; make room, or {self.elsewhere}"
            )

    def _retry(self) -> None:
        failures, furthest, reason = 0, self.seen.size, ""
        for _ in range(MOST_TRIES):
            try:
                return self._try()
            except _PassingError as trouble:
                reason = str(trouble)
            failures = 1 if self.seen.size > furthest else failures + 1
            furthest = max(furthest, self.seen.size)
            if failures > len(PAUSES):
                break
            log.warning("%s: %s; trying again", self.url, reason)
            time.sleep(PAUSES[failures - 1])
        raise UserError(f"cannot download {self.url}: {reason}{self._kept}; {self._by_hand}")

    def _try(self) -> None:
        request = urllib.request.Request(self.url, headers={"User-Agent": "segapp"})
        if self.seen.size and self.validator:
            request.add_header("Range", f"bytes={self.seen.size}-")
            request.add_header("If-Range", self.validator)
        try:
            response = urllib.request.build_opener(_Redirects).open(request, timeout=TIMEOUT)
        except urllib.error.HTTPError as error:
            error.close()
            answer = f"the server answers {error.code} {_reason(error)}"
            if error.code == 416 and self.seen.size:  # the part is all there is, or more
                self._drop_part()
            elif error.code < 500 and error.code != 429:
                raise UserError(f"cannot download {self.url}: {answer}; {self._by_hand}") from None
            raise _PassingError(answer) from None
        except (OSError, http.client.HTTPException) as error:
            raise _PassingError(_reason(error)) from None
        with response:
            self._begin(response)
            self._receive(response)

    def _begin(self, response: http.client.HTTPResponse) -> None:
        """Sees to it that what the server sends now belongs behind what lies in the part."""
        etag = response.headers.get("ETag", "W/")  # a weak one does not promise the same bytes
        validator = response.headers.get("Last-Modified") if etag.startswith("W/") else etag
        if response.status == 206:
            place = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d+|\*)", response.headers.get("Content-Range", ""))
            if (
                place is None
                or int(place[1]) != self.seen.size
                or response.length not in (None, int(place[2]) + 1 - int(place[1]))
                or place[3] not in ("*", str(int(place[2]) + 1))
                or validator not in (None, self.validator)
            ):
                self._drop_part()
                raise _PassingError("the server sent another part than the one asked for")
        elif response.status != 200:
            raise UserError(f"cannot download {self.url}: the server answers {response.status}; {self._by_hand}")
        elif response.headers.get_content_type() == "text/html" and self.path.suffix not in (".html", ".htm"):
            # A login or an error page: without a checksum it would pass for the file.
            raise UserError(f"{self.url} answers with a web page in place of the file; {self._by_hand}")
        else:
            self._drop_part()
            self.validator = validator
            if validator is not None:
                write_json(self.notes, {"url": self.url, "validator": validator})

    def _receive(self, response: http.client.HTTPResponse) -> None:
        announced = None if response.length is None else self.seen.size + response.length
        least, most = self.expected.size or 0, self.expected.most
        if announced is not None and not least <= announced <= most:
            self._refuse(f"is {announced} bytes long, not {self.expected.length}")
        total = self.expected.size if announced is None else announced
        self._check_room(total)
        try:
            with (
                self.part.open("ab") as file,
                progress_bar(total, self.path.name, "B", done=self.seen.size, leave=False, unit_scale=True) as bar,
            ):
                # What goes on behind the announced length is no part of the file.
                while announced is None or self.seen.size < announced:
                    chunk = self._read(response, _CHUNK if announced is None else announced - self.seen.size)
                    if not chunk:
                        break
                    if self.seen.size + len(chunk) > most:
                        self._refuse(f"is over {most:.0f} bytes long, not {self.expected.length}")
                    file.write(chunk)
                    self.seen.add(chunk)
                    bar.update(len(chunk))
        except OSError as error:
            needs = "" if total is None else f": {self.url} takes {megabytes(total)}"
            raise disk_error(self.part.parent, error, needs + self._kept, self.elsewhere) from None
        if total is not None and self.seen.size < total:
            raise _PassingError(f"the connection ended after {self.seen.size} of {total} bytes")

    def _read(self, response: http.client.HTTPResponse, most: int) -> bytes:
        try:
            return response.read1(min(most, _CHUNK))
        except (OSError, http.client.HTTPException) as error:  # never to be taken for the disk's
            raise _PassingError(_reason(error)) from None

    def _refuse(self, fault: str) -> NoReturn:
        self._drop_part()
        raise UserError(f"the file at {self.url} {fault}; it was not kept; {self._by_hand}")
