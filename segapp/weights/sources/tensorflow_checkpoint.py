"""TensorFlow's checkpoint format, read without TensorFlow.

A checkpoint PREFIX is a table PREFIX.index (tensorflow/core/lib/io: format.cc, block.cc, table_builder.cc) from names
to BundleEntryProto (tensorflow/core/protobuf/tensor_bundle.proto), and the tensors' little-endian bytes in
PREFIX.data-00000-of-00001 and further shards. Nothing in a file is taken on trust.
"""

import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import google_crc32c
import torch
from torch import Tensor

from segapp.base.errors import UserError

MAX_INDEX_BYTES = 16 << 20
"""That of Xception-65 with all its slots has 0.2 MB."""
MAX_ENTRIES = 100_000
MAX_NAMES_BYTES = 16 << 20
"""Of all names together: a few bytes of an index can stand for a long one."""
MAX_DIMENSIONS = 254  # tensorflow/core/framework/tensor_shape.h
MAX_ELEMENTS = 1 << 40
"""Of a tensor, and of an empty one if its dimensions of 0 were 1."""

TABLE_MAGIC = 0xDB4775248B80FB57  # tensorflow/core/lib/io/format.h
FOOTER_BYTES = 48
BLOCK_TRAILER_BYTES = 5  # compression type, CRC
NO_COMPRESSION, SNAPPY = 0, 1
CRC_MASK = 0xA282EAD8  # tensorflow/core/lib/hash/crc32c.h

DTYPES = {
    1: torch.float32,
    2: torch.float64,
    3: torch.int32,
    4: torch.uint8,
    5: torch.int16,
    6: torch.int8,
    8: torch.complex64,
    9: torch.int64,
    10: torch.bool,
    14: torch.bfloat16,
    17: torch.uint16,
    18: torch.complex128,
    19: torch.float16,
    22: torch.uint32,
    23: torch.uint64,
}
"""By the number of tensorflow/core/framework/types.proto."""


@dataclass(frozen=True)
class Entry:
    """Where a tensor's bytes are. `dtype` is None where this reader has none for it, as for strings."""

    dtype: torch.dtype | None
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int
    sliced: bool


class TFCheckpoint(Mapping[str, Tensor]):
    """Tensors by name, each read and verified when it is asked for.

    Args:
        prefix: the files' common path, without .index.

    Raises:
        UserError: no such checkpoint, a damaged one, or one of a kind that is not read.
    """

    def __init__(self, prefix: Path) -> None:
        self.prefix = prefix
        self.index = prefix.with_name(f"{prefix.name}.index")
        try:
            if self.index.stat().st_size > MAX_INDEX_BYTES:
                raise UserError(f"{self.index}: larger than {MAX_INDEX_BYTES >> 20} MB, which no index is")
            content = self.index.read_bytes()
        except OSError as error:
            raise UserError(f"{self.index}: cannot be read ({error.strerror})") from None
        try:
            self.shards, self.entries = parse_index(content)
        except UserError as error:
            raise UserError(f"{self.index}: {error}") from None
        except (ValueError, IndexError, struct.error) as error:
            raise UserError(f"{self.index}: damaged, or no TensorFlow checkpoint ({error})") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, name: str) -> Tensor:
        entry = self.entries[name]
        if entry.sliced:
            self._refuse(name, "is stored in slices (a partitioned variable), which are not read")
        if entry.dtype is None:
            self._refuse(name, "is of a type that is not read")
        if entry.size != math.prod(entry.shape) * entry.dtype.itemsize:
            self._refuse(name, f"has {entry.size} bytes, which its shape {list(entry.shape)} does not")
        path = self.shard(entry.shard)
        try:
            with path.open("rb") as file:
                if file.seek(0, 2) < entry.offset + entry.size:
                    self._refuse(name, f"reaches beyond the end of {path.name}, which is cut off or another's")
                file.seek(entry.offset)
                content = file.read(entry.size)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); a checkpoint needs all its files") from None
        if masked_crc(content) != entry.crc:
            self._refuse(name, f"is damaged: its checksum in {path.name} is wrong")
        if not content:
            return torch.empty(0, dtype=entry.dtype).reshape(entry.shape)
        return torch.frombuffer(bytearray(content), dtype=entry.dtype).reshape(entry.shape)

    def shard(self, number: int) -> Path:
        return self.prefix.with_name(f"{self.prefix.name}.data-{number:05d}-of-{self.shards:05d}")

    def _refuse(self, name: str, why: str) -> NoReturn:
        raise UserError(f"{self.index}: {name} {why}")


def masked_crc(content: bytes) -> int:
    """CRC-32C as the format stores it, rotated and shifted."""
    crc: int = google_crc32c.value(content)
    return (((crc >> 15) | (crc << 17)) + CRC_MASK) & 0xFFFFFFFF


def parse_index(content: bytes) -> tuple[int, dict[str, Entry]]:
    """The number of shards, and the entries by name.

    Raises:
        ValueError, IndexError, struct.error: damaged.
        UserError: of a kind that is not read.
    """
    if len(content) < FOOTER_BYTES:
        raise ValueError("too short")
    footer = content[-FOOTER_BYTES:]
    if struct.unpack("<Q", footer[-8:]) != (TABLE_MAGIC,):
        raise ValueError("the table's mark is missing at its end")
    _, at = handle(footer, 0)  # of the metaindex, which is empty
    index, _ = handle(footer, at)

    shards, entries = None, {}
    end = names_bytes = 0
    last = None
    for _, value in block(content, index):
        here, _ = handle(value, 0)
        if here[0] < end:
            raise ValueError("blocks overlap")
        end = here[0] + here[1]
        for key, value in block(content, here):
            if last is not None and key <= last:
                raise ValueError("names are not in order")
            last = key
            names_bytes += len(key)
            if not key:
                shards = header(value)
            elif key[0]:  # a zero begins the key of a slice
                entries[key.decode()] = entry(value)
            if len(entries) > MAX_ENTRIES or names_bytes > MAX_NAMES_BYTES:
                raise ValueError("too many tensors, or too long names")
    if shards is None:
        raise ValueError("no header")
    for name, each in entries.items():
        if each.shard >= shards:
            raise ValueError(f"{name!r} is in shard {each.shard} of {shards}")
    return shards, entries


Handle = tuple[int, int]
"""Offset and size of a block in the table, its trailer not counted."""


def handle(content: bytes, at: int) -> tuple[Handle, int]:
    """A block's handle at `at`, and where it ends."""
    offset, at = varint(content, at)
    size, at = varint(content, at)
    return (offset, size), at


def block(content: bytes, where: Handle) -> Iterator[tuple[bytes, bytes]]:
    """The keys and values of a block, its keys' common beginnings put back."""
    offset, size = where
    end = offset + size
    if end + BLOCK_TRAILER_BYTES > len(content):
        raise ValueError("a block lies outside the file")
    compression, crc = struct.unpack_from("<BI", content, end)
    if masked_crc(content[offset : end + 1]) != crc:
        raise ValueError("the checksum of a block is wrong")
    if compression != NO_COMPRESSION:
        what = "Snappy" if compression == SNAPPY else f"type {compression}"
        raise UserError(f"the index is compressed ({what}), which is not read; TensorFlow writes it plain")
    (restarts,) = struct.unpack_from("<I", content, end - 4)
    end -= 4 * (restarts + 1)
    if size < 4 or end < offset:
        raise ValueError("a block's restart points lie outside it")
    key = b""
    at = offset
    while at < end:
        shared, at = varint(content, at)
        fresh, at = varint(content, at)
        length, at = varint(content, at)
        if shared > len(key) or at + fresh + length > end:
            raise ValueError("a name or its entry is too long")
        key = key[:shared] + content[at : at + fresh]
        at += fresh
        yield key, content[at : at + length]
        at += length


def varint(content: bytes, at: int) -> tuple[int, int]:
    """A number of at most 64 bits, seven to a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (2**64 - 1), at
    raise ValueError("a number does not end")


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """A protocol buffer's fields: number, and a number or bytes."""
    at = 0
    while at < len(message):
        tag, at = varint(message, at)
        kind = tag & 7
        value: int | bytes
        if kind == 0:
            value, at = varint(message, at)
        elif kind == 2:
            length, at = varint(message, at)
            value = message[at : at + length]
            at += length
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
            value = int.from_bytes(message[at : at + length], "little")
            at += length
        else:
            raise ValueError("an entry is no protocol buffer")
        if at > len(message):
            raise ValueError("an entry is cut off")
        yield tag >> 3, value


def number(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise ValueError("an entry holds bytes for a number")
    return value


def message(value: int | bytes) -> bytes:
    if not isinstance(value, bytes):
        raise ValueError("an entry holds a number for a message")
    return value


def header(value: bytes) -> int:
    """BundleHeaderProto: the number of shards."""
    shards, big_endian = 0, 0
    for field, content in fields(value):
        if field == 1:
            shards = number(content)
        elif field == 2:
            big_endian = number(content)
    if big_endian:
        raise UserError("written on a big-endian machine, which is not read")
    if not 0 < shards < 100_000:
        raise ValueError(f"{shards} shards")
    return shards


def entry(value: bytes) -> Entry:
    """BundleEntryProto."""
    dtype = shard = offset = size = crc = 0
    shape: tuple[int, ...] = ()
    sliced = False
    for field, content in fields(value):
        if field == 1:
            dtype = number(content)
        elif field == 2:
            shape = tuple(dimension(each) for inner, each in fields(message(content)) if inner == 2)
        elif field == 3:
            shard = number(content)
        elif field == 4:
            offset = number(content)
        elif field == 5:
            size = number(content)
        elif field == 6:
            crc = number(content)
        elif field == 7:
            sliced = True
    if len(shape) > MAX_DIMENSIONS or math.prod(max(1, length) for length in shape) > MAX_ELEMENTS:
        raise ValueError("a tensor of no possible shape")
    return Entry(DTYPES.get(dtype), shape, shard, offset, size, crc, sliced)


def dimension(value: int | bytes) -> int:
    """TensorShapeProto.Dim: its size; 0 is not written."""
    sizes = [number(content) for field, content in fields(message(value)) if field == 1]
    return sizes[-1] if sizes else 0
