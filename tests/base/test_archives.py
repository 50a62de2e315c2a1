"""Archives, sound and hostile ones."""

import gzip
import io
import tarfile
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segapp.base import archives
from segapp.base.archives import extract
from segapp.base.errors import UserError
from tests.base.test_download import BODY, OTHER, fill_disk


def member(name: str, body: bytes = b"abc", **fields: Any) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(body)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, body


def link(name: str, to: str, kind: bytes = tarfile.SYMTYPE) -> tuple[tarfile.TarInfo, bytes]:
    return member(name, b"", type=kind, linkname=to)


def pack(
    path: Path, *members: tuple[tarfile.TarInfo, bytes], format: int = tarfile.PAX_FORMAT, **options: Any
) -> Path:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format, **options) as tar:
        for info, body in members:
            tar.addfile(info, io.BytesIO(body))
    body = buffer.getvalue()
    path.write_bytes(body if path.suffix == ".tar" else gzip.compress(body, 1))
    return path


@pytest.fixture
def into(tmp_path: Path) -> Path:
    (tmp_path / "into").mkdir()
    return tmp_path / "into"


def is_text(name: str) -> bool:
    return name.endswith(".txt")


def refused(archive: Path, into: Path, *parts: str, limit: int = 10**6) -> None:
    """One line that names the archive, and nothing is left of it."""
    before = sorted(into.parent.rglob("*"))
    with pytest.raises(UserError) as caught:
        extract(archive, into, is_text, limit=limit)
    message = str(caught.value)
    assert message.isprintable()
    for part in (str(archive), *parts):
        assert part in message
    assert sorted(into.parent.rglob("*")) == before


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz"])
@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_extract(name: str, format: int, tmp_path: Path, into: Path) -> None:
    long = f"deep/{'x' * 90}/{'y' * 90}.txt"
    archive = pack(
        tmp_path / name,
        member("./top", b"", type=tarfile.DIRTYPE),
        member("./top/a.txt", BODY, mode=0o777),
        link("./top/link", "/etc/passwd"),
        member("../unwanted", OTHER),
        member("/dev/null", b"", type=tarfile.CHRTYPE),
        member("empty.txt", b""),
        member(long, b"long"),
        format=format,
    )
    paths = extract(archive, into, is_text, limit=len(BODY) + 4)
    assert paths == [into / "top/a.txt", into / "empty.txt", into / long]
    assert [path.read_bytes() for path in paths] == [BODY, b"", b"long"]
    assert sorted(path for path in into.rglob("*") if path.is_file()) == sorted(paths)
    assert not paths[0].stat().st_mode & 0o111


@pytest.mark.parametrize(
    "hostile",
    [
        member("/tmp/absolute.txt"),
        member("../out.txt"),
        member("a/../../out.txt"),
        member("C:/out.txt"),
        member("..\\out.txt"),
        member("new\nline.txt"),
        link("link.txt", "/etc/passwd"),
        link("hard.txt", "/etc/passwd", tarfile.LNKTYPE),
        member("fifo.txt", b"", type=tarfile.FIFOTYPE),
        member("device.txt", b"", type=tarfile.CHRTYPE),
        member("good.txt"),  # a second time
        member("./good.txt"),
        member("good.txt/below.txt"),
        member("folder/good.txt/../x.txt"),
        member("x" * 300 + ".txt"),
    ],
    ids=lambda hostile: hostile[0].name[:20].encode("unicode_escape").decode(),
)
@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_hostile_member(hostile: tuple[tarfile.TarInfo, bytes], format: int, tmp_path: Path, into: Path) -> None:
    refused(pack(tmp_path / "a.tar", member("folder/x.txt"), member("good.txt"), hostile, format=format), into)


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
@pytest.mark.parametrize("name", ["a.txt", "unwanted"])
@pytest.mark.parametrize("size", [-1, -512, -1024, -10_000])
def test_size_below_zero(kind: bytes, name: str, size: int, tmp_path: Path, into: Path) -> None:
    """Each would send tarfile back to where it was before."""
    headers = [member("good.txt", b"")[0], member(name, b"", size=size, type=kind)[0]]
    archive = tmp_path / "a.tar"
    archive.write_bytes(b"".join(info.tobuf(tarfile.GNU_FORMAT) for info in headers) + bytes(10_000))
    refused(archive, into, "damaged")


@pytest.mark.parametrize("size", ["-512", "-1", "1000000000000000", "x", "9" * 5000])
def test_size_in_a_pax_header(size: str, tmp_path: Path, into: Path) -> None:
    refused(pack(tmp_path / "a.tar", member("good.txt"), member("a.txt", pax_headers={"size": size})), into)


def test_sparse_file(tmp_path: Path, into: Path) -> None:
    headers = {"GNU.sparse.map": "0,3", "GNU.sparse.size": "1000000000000"}
    refused(pack(tmp_path / "a.tar", member("a.txt", pax_headers=headers)), into, "special file")


def test_link_that_files_follow(tmp_path: Path, into: Path) -> None:
    """The link is passed over, so that the file lands in a folder of its own."""
    archive = pack(tmp_path / "a.tar", link("way", str(tmp_path)), member("way/out.txt"))
    assert extract(archive, into, is_text, limit=10) == [into / "way/out.txt"]
    assert not (into / "way").is_symlink()
    assert not (tmp_path / "out.txt").exists()


def test_file_that_was_there_stays(tmp_path: Path, into: Path) -> None:
    (into / "a.txt").write_text("mine")
    refused(pack(tmp_path / "a.tar", member("b/b.txt"), member("a.txt")), into, "a.txt")
    assert (into / "a.txt").read_text() == "mine"


def test_limit(tmp_path: Path, into: Path) -> None:
    archive = pack(tmp_path / "a.tar.gz", member("a.txt", bytes(600)), member("b", BODY), member("c.txt", bytes(401)))
    refused(archive, into, "more than", limit=1000)
    assert len(extract(archive, into, is_text, limit=1001)) == 2


def test_claimed_size(tmp_path: Path, into: Path) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(member("a.txt", b"", size=10**15)[0].tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    refused(archive, into, "more than")
    refused(archive, into, "damaged", limit=10**16)


def test_too_many_members(tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MOST_MEMBERS", 5)
    refused(pack(tmp_path / "a.tar", *[member(f"{i}.txt") for i in range(6)]), into, "more than 5")
    refused(pack(tmp_path / "a.tar", *[member(f"{i}") for i in range(6)]), into, "more than 5")
    assert (
        len(extract(pack(tmp_path / "a.tar", *[member(f"{i}.txt") for i in range(5)]), into, is_text, limit=99)) == 5
    )


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_cut_short(name: str, tmp_path: Path, into: Path) -> None:
    archive = pack(tmp_path / name, member("a.txt", BODY[:1000]), member("b", BODY[:1000]))
    body = archive.read_bytes()
    end = len(body) if name.endswith("gz") else 2 * (512 + 1024) + 512  # a tar ends with its first block of zeros
    for cut in sorted({*range(0, end, 97), *range(0, end, 512), *range(end - 9, end)}):
        archive.write_bytes(body[:cut])
        refused(archive, into, "damaged")


def test_flipped_bits(tmp_path: Path, into: Path) -> None:
    """Gzip has a checksum of all there is; what is not refused must be whole."""
    archive = pack(tmp_path / "a.tar.gz", member("a.txt", BODY[:1000]), member("b", BODY[:1000]))
    body = archive.read_bytes()
    for place in range(10, len(body), 37):  # the first ten are gzip's header: a time, a system
        archive.write_bytes(body[:place] + bytes([body[place] ^ 0x10]) + body[place + 1 :])
        refused(archive, into, "damaged")


@pytest.mark.parametrize(
    "body", [b"", b"<!DOCTYPE html><html>" * 100, gzip.compress(b"<html>" * 500, mtime=0), b"\x1f\x8b", BODY]
)
def test_no_tar(body: bytes, tmp_path: Path, into: Path) -> None:
    (tmp_path / "a.tar.gz").write_bytes(body)
    refused(tmp_path / "a.tar.gz", into, "no .tar")


def test_missing_archive(tmp_path: Path, into: Path) -> None:
    refused(tmp_path / "a.tar", into)


def peak(call: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_is_bounded(tmp_path: Path, into: Path) -> None:
    archive = pack(tmp_path / "a.tar.gz", member("a.txt", bytes(20_000_000)), member("b", bytes(20_000_000)))
    assert peak(lambda: extract(archive, into, is_text, limit=20_000_000)) < 4_000_000


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_huge_header(kind: bytes, tmp_path: Path, into: Path) -> None:
    archive = pack(tmp_path / "a.tar.gz", member("x", bytes(20_000_000), type=kind), member("a.txt"))
    assert peak(lambda: refused(archive, into, "too large")) < 4_000_000


def test_headers_are_not_gathered(tmp_path: Path, into: Path) -> None:
    many = [member("x", b"", pax_headers={"comment": chr(200 + i % 99) * 2000 + str(i)}) for i in range(2000)]
    archive = pack(tmp_path / "a.tar.gz", *many)
    assert peak(lambda: extract(archive, into, is_text, limit=0)) < 4_000_000


def test_endless_headers(tmp_path: Path, into: Path) -> None:
    archive = pack(tmp_path / "a.tar.gz", *[member("x", b"13 comment=ab\n", type=tarfile.XGLTYPE)] * 3000)
    refused(archive, into, "damaged")


def test_disk_full_in_extraction(tmp_path: Path, into: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = pack(tmp_path / "a.tar", member("a/a.txt"), member("a/b.txt", BODY))
    fill_disk(monkeypatch)
    refused(archive, into, str(into), "full")


def zipped(path: Path, *members: tuple[str, bytes], modes: dict[str, int] | None = None) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, body in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = ((modes or {}).get(name, 0o100644)) << 16
            file.writestr(info, body)
    return path


def test_zip(tmp_path: Path, into: Path) -> None:
    archive = zipped(
        tmp_path / "a.zip", ("top/", b""), ("top/a.txt", BODY), ("b", OTHER), ("../unwanted", b"x"), ("empty.txt", b"")
    )
    paths = extract(archive, into, is_text, limit=len(BODY))
    assert [path.relative_to(into).as_posix() for path in paths] == ["top/a.txt", "empty.txt"]
    assert paths[0].read_bytes() == BODY


@pytest.mark.parametrize("name", ["../a.txt", "/a.txt", "a/../../b.txt", "C:\\a.txt", "a\nb.txt"])
def test_zip_with_unsafe_names(name: str, tmp_path: Path, into: Path) -> None:
    refused(zipped(tmp_path / "a.zip", ("ok.txt", BODY), (name, b"x")), into, "unsafe name")


def test_zip_with_a_link(tmp_path: Path, into: Path) -> None:
    archive = zipped(tmp_path / "a.zip", ("a.txt", b"/etc/passwd"), modes={"a.txt": 0o120777})
    refused(archive, into, "a link")


def test_zip_with_a_name_twice_or_too_much(tmp_path: Path, into: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        twice = zipped(tmp_path / "a.zip", ("a.txt", b"1"), ("a.txt", b"2"))
    refused(twice, into, "twice")
    bomb = zipped(tmp_path / "b.zip", ("a.txt", bytes(10_000_000)))
    assert bomb.stat().st_size < 20_000
    refused(bomb, into, "unpacks to more than 1.0 MB")


def test_zip_that_lies_of_a_size(tmp_path: Path, into: Path) -> None:
    """The directory says 10 bytes, the member unfolds to ten million."""
    archive = zipped(tmp_path / "a.zip", ("a.txt", bytes(10_000_000)))
    archive.write_bytes(archive.read_bytes().replace((10_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    refused(archive, into, "damaged")


def test_zip_cut_or_flipped(tmp_path: Path, into: Path) -> None:
    archive = zipped(tmp_path / "a.zip", ("a.txt", BODY[:1000]), ("b.txt", BODY[:1000]))
    body = archive.read_bytes()
    for end in range(0, len(body), 97):
        archive.write_bytes(body[:end])
        refused(archive, into)
    for place in range(0, len(body), 31):
        archive.write_bytes(body[:place] + bytes([body[place] ^ 0x55]) + body[place + 1 :])
        try:
            paths = extract(archive, into, is_text, limit=10**6)
        except UserError:
            assert not list(into.iterdir())
            continue
        for path in paths:
            assert path.read_bytes() == BODY[:1000]
            path.unlink()
