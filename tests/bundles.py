"""Writes TensorFlow's checkpoint format, whole or with faults, for tests. The script beside TensorFlow's own fixtures
lets TensorFlow read what this writes.
"""

import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np

Array = np.ndarray[Any, Any]
Shapes = Mapping[str, tuple[int, ...]]
Values = Callable[[str, tuple[int, ...]], Array]

MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
TYPES = {np.dtype(np.float32): 1, np.dtype(np.float64): 2, np.dtype(np.int64): 9, np.dtype(np.float16): 19}


def masked(content: bytes) -> int:
    crc: int = google_crc32c.value(content)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def entry(dtype: int, shape: Sequence[int], shard: int, offset: int, size: int, crc: int) -> bytes:
    """A BundleEntryProto."""
    dimensions = b"".join(field(2, field(1, length)) for length in shape)
    where = field(3, shard) + field(4, offset) + field(5, size)
    return field(1, dtype) + field(2, dimensions) + where + varint(6 << 3 | 5) + struct.pack("<I", crc)


def block(pairs: Sequence[tuple[bytes, bytes]], *, interval: int = 16, compression: int = 0) -> bytes:
    """A table's block with its trailer."""
    out, restarts, last = bytearray(), [], b""
    for i, (key, value) in enumerate(pairs):
        shared = 0
        if i % interval == 0:
            restarts.append(len(out))
        else:
            shared = len(last) if key.startswith(last) else 0
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        out += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    out += struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))
    out.append(compression)
    return bytes(out) + struct.pack("<I", masked(bytes(out)))


def table(pairs: Sequence[tuple[bytes, bytes]], *, per_block: int = 50, compression: int = 0) -> bytes:
    """A whole index file."""
    out, handles = bytearray(), []
    for at in range(0, len(pairs), per_block):
        content = block(pairs[at : at + per_block], compression=compression)
        handles.append((pairs[min(at + per_block, len(pairs)) - 1][0], varint(len(out)) + varint(len(content) - 5)))
        out += content
    ends = []
    for content in (block([]), block(handles, interval=1)):  # metaindex, index
        ends.append(varint(len(out)) + varint(len(content) - 5))
        out += content
    return bytes(out) + b"".join(ends).ljust(40, b"\0") + MAGIC


def header(shards: int = 1) -> bytes:
    return field(1, shards) + field(3, field(1, 1))


def write_bundle(prefix: Path, arrays: Shapes, values: Values, *, per_block: int = 50) -> None:
    """A checkpoint in one shard, its arrays made one at a time."""
    pairs, offset = [(b"", header())], 0
    with Path(f"{prefix}.data-00000-of-00001").open("wb") as file:
        for name in sorted(arrays, key=str.encode):
            array = values(name, arrays[name])
            content = array.tobytes()
            file.write(content)
            pairs.append(
                (name.encode(), entry(TYPES[array.dtype], array.shape, 0, offset, len(content), masked(content)))
            )
            offset += len(content)
    Path(f"{prefix}.index").write_bytes(table(pairs, per_block=per_block))


def write_index(prefix: Path, arrays: Shapes) -> None:
    """An index of float32 arrays alone, for what is to be found before any data is read."""
    pairs, offset = [(b"", header())], 0
    for name in sorted(arrays, key=str.encode):
        size = 4 * int(np.prod(arrays[name], dtype=np.int64))
        pairs.append((name.encode(), entry(1, arrays[name], 0, offset, size, 0)))
        offset += size
    Path(f"{prefix}.index").write_bytes(table(pairs))
