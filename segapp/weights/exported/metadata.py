"""What stands beside a network in an exported file, by key: read without the library that runs it."""

import mmap
import zipfile
from collections.abc import Iterator
from pathlib import Path
from xml.parsers import expat

from segapp.base.errors import UserError

METADATA_PROPS = 14
"""ModelProto's field of keys and values (onnx.proto)."""
MOST_BYTES = 1 << 24
"""Of a value in a program of torch.export; no description is so long."""


def read_metadata(path: Path) -> dict[str, str]:
    """Keys and values of an ONNX file, an IR of OpenVINO (its .xml) or a program of torch.export.

    Raises:
        UserError: it is not there, or damaged.
    """
    read = {".onnx": _of_onnx, ".xml": _of_ir, ".pt2": _of_program}[path.suffix]
    try:
        return read(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint") from None
    except (OSError, ValueError, IndexError, expat.ExpatError, zipfile.BadZipFile, RuntimeError) as error:
        raise UserError(f"{path}: no exported network, or a damaged one ({error})") from None


def _of_onnx(path: Path) -> dict[str, str]:
    if not path.stat().st_size:
        raise ValueError("it is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        pairs = [dict(_fields(content, *span)) for number, span in _fields(content, 0, len(content)) if number == 14]
        return {
            content[slice(*pair[1])].decode(): content[slice(*pair[2])].decode() for pair in pairs if len(pair) == 2
        }


def _fields(content: mmap.mmap, at: int, end: int) -> Iterator[tuple[int, tuple[int, int]]]:
    """Of a protobuf message each field's number, and where its content begins and ends."""
    while at < end:
        key, at = _varint(content, at)
        kind, start = key & 7, at
        if kind == 0:
            _, at = _varint(content, at)
        elif kind == 2:
            length, start = _varint(content, at)
            at = start + length
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError("it is no protobuf")
        if at > end:
            raise ValueError("it is cut off")
        yield key >> 3, (start, at)


def _varint(content: mmap.mmap, at: int) -> tuple[int, int]:
    """A number of protobuf's, and where the next byte is."""
    value = 0
    for place in range(10):
        byte = content[at + place]
        value |= (byte & 127) << 7 * place
        if byte < 128:
            return value, at + place + 1
    raise ValueError("it is no protobuf")


def _of_ir(path: Path) -> dict[str, str]:
    """The values of <net><rt_info>."""
    found: dict[str, str] = {}
    inside: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        inside.append(name)
        if inside[:2] == ["net", "rt_info"] and len(inside) == 3 and "value" in attributes:
            found[name] = attributes["value"]

    def refuse(*_: object) -> None:
        raise ValueError("it declares entities")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.EndElementHandler = lambda name: inside.pop()
    parser.EntityDeclHandler = refuse
    with path.open("rb") as file:
        parser.ParseFile(file)
    if not path.with_suffix(".bin").is_file():
        raise UserError(f"{path}: {path.with_suffix('.bin').name}, its weights, is not beside it")
    return found


def _of_program(path: Path) -> dict[str, str]:
    with zipfile.ZipFile(path) as archive:
        extra = [each for each in archive.infolist() if "/extra/" in each.filename and each.file_size < MOST_BYTES]
        return {each.filename.rpartition("/")[2]: archive.read(each).decode() for each in extra}
