"""Ways to damage what a file holds: its bytes, the tree of values in it, and then its checksums made right again."""

import io
import json
import math
import random
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

from tests.bundles import table

Mutation = Callable[[random.Random, bytes], bytes]

ODD_NUMBERS = (0, 1, 2, 127, 128, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)
ODD_TEXTS = ("", "\0", "a\nb", "\x1b[31m", "\ud800", "x" * 1000, "../x", "/x", "#", "\u2028", "é", "nan", "1")
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, -1, -(2**70), 10**400, 0.5, 1e308, -1e308, 1e-300, math.nan, math.inf,
    [], {}, [[]], [0], [None], {"a": 0}, [[[[[[1]]]]]], *ODD_NUMBERS, *ODD_TEXTS,
)  # fmt: skip
SNIPPETS = (
    b"[" * 3000, b"{" * 3000, b'{"a":' * 3000, b"- " * 3000, b"9" * 5000, b"0x" + b"f" * 5000, b"1e999", b"-",
    b"\xff", b"\xef\xbb\xbf", b"\xe2\x80\xa8", b"\0", b"\n", b"\r", b"\t", b" ", b":", b"%", b'"', b"'",
    b"&a", b"*a", b"&a [*a, *a]", b"<<: *a", b"? ", b"| ", b"---\n", b"...\n", b"2001-99-99", b"1:1:1",
    b"!!int ''", b"!!bool x", b"!!timestamp x", b"!!map [a]", b"!!set [a]", b"!!float ''", b"!!python/name:os.system ",
    b"NaN", b"null", b"true", b"\\ud800",
)  # fmt: skip


def bytes_damaged(chance: random.Random, content: bytes) -> bytes:
    """One to four faults anywhere: bits, numbers, cuts, copies, pieces of text."""
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = _place(chance, len(content))
        length = min(chance.choice((1, 2, 4, 8, 64, 1024)), len(content) - at)
        before, piece, after = content[:at], content[at : at + length], content[at + length :]
        match chance.randrange(7):
            case 0 if content:
                at = min(at, len(content) - 1)
                content = content[:at] + bytes([content[at] ^ 1 << chance.randrange(8)]) + content[at + 1 :]
            case 1:
                kind = chance.choice("BHIQ")
                number = chance.choice(ODD_NUMBERS) % (1 << 8 * struct.calcsize(kind))
                put = struct.pack(chance.choice("<>") + kind, number)
                content = before + put + content[at + len(put) :]
            case 2:
                content = before
            case 3:
                content = before + after
            case 4:
                content = before + piece * chance.choice((2, 3, 50)) + after
            case 5:
                other = _place(chance, len(content))
                content = content[:other] + piece + content[other:]
            case 6:
                content = before + chance.choice(SNIPPETS) + (piece + after if chance.random() < 0.5 else after)
    return content


def _place(chance: random.Random, length: int) -> int:
    """As often among the first hundred bytes, where headers are, as anywhere."""
    return chance.randrange(min(length, 100) + 1) if chance.random() < 0.5 else chance.randrange(length + 1)


MOST_NODES = 1000
"""Of a tree that may still grow."""


def tree_damaged(chance: random.Random, tree: Any) -> Any:
    """A copy of a tree of lists and dicts with a few values, keys or entries changed."""
    holder = [json.loads(json.dumps(tree))]
    for _ in range(chance.choice((1, 1, 2, 3))):
        nodes = [(holder, 0), *_nodes(holder[0])]
        parent, key = chance.choice(nodes)
        if isinstance(parent, dict) and key not in parent:
            continue
        value = parent[key]
        match chance.randrange(7):
            case 0 | 1 | 2:
                parent[key] = chance.choice(ODD_VALUES)
            case 3 if isinstance(parent, dict):
                parent[chance.choice(ODD_TEXTS)] = parent.pop(key)
            case 4 if isinstance(parent, dict):
                del parent[key]
            case 5 if isinstance(value, list) and len(nodes) < MOST_NODES:
                parent[key] = value * chance.choice((0, 2, 300))
            case 6 if len(nodes) < MOST_NODES:
                other, place = chance.choice(nodes)
                if not isinstance(other, dict) or place in other:
                    parent[key] = json.loads(json.dumps(other[place]))
    return holder[0]


def _nodes(tree: Any) -> list[tuple[Any, Any]]:
    """Each value's container and key, whatever the depth."""
    nodes, todo = [], [tree]
    while todo:
        each = todo.pop()
        keys = list(each) if isinstance(each, dict) else range(len(each)) if isinstance(each, list) else ()
        nodes += [(each, key) for key in keys]
        todo += [each[key] for key in keys]
    return nodes


def png_damaged(chance: random.Random, content: bytes) -> bytes:
    """The chunks of a PNG, or the pixels in one, damaged under right checksums."""
    chunks, at = [], 8
    while at < len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        chunks.append((content[at + 4 : at + 8], content[at + 8 : at + 8 + length]))
        at += 12 + length
    place = chance.randrange(len(chunks))
    kind, data = chunks[place]
    if kind == b"IDAT" and chance.random() < 0.7:
        chunks[place] = kind, zlib.compress(bytes_damaged(chance, zlib.decompress(data)))
    elif kind == b"IHDR" and chance.random() < 0.5:
        sides = (0, 1, 3, 40, 2000, 65535, 2**31 - 1, 2**32 - 1)
        chunks[place] = kind, struct.pack(">II", chance.choice(sides), chance.choice(sides)) + data[8:]
    elif chance.random() < 0.2:
        chunks.insert(chance.randrange(len(chunks)), chunks.pop(place))
    else:
        chunks[place] = kind, bytes_damaged(chance, data)
    packed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return content[:8] + b"".join(packed)


def safetensors_damaged(chance: random.Random, content: bytes) -> bytes:
    """The header's tree, or that of the description in it."""
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    metadata = header.get("__metadata__", {})
    if "segapp" in metadata and chance.random() < 0.7:
        metadata["segapp"] = json.dumps(tree_damaged(chance, json.loads(metadata["segapp"])))
    else:
        names = chance.sample(sorted(header), min(3, len(header)))  # else every fault is one of the many alike
        changed = tree_damaged(chance, {name: header.pop(name) for name in names})
        header = header | changed if isinstance(changed, dict) else changed
    packed = json.dumps(header).encode()
    return struct.pack("<Q", len(packed)) + packed + data


def zip_damaged(chance: random.Random, content: bytes) -> bytes:
    """A member of a zip archive, most often the pickle."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    pickles = [name for name in members if name.endswith(".pkl")]
    name = chance.choice(pickles if chance.random() < 0.8 else sorted(members))
    members[name] = bytes_damaged(chance, members[name])
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", chance.choice((zipfile.ZIP_STORED,) * 9 + (zipfile.ZIP_DEFLATED,))) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return out.getvalue()


def table_damaged(pairs: list[tuple[bytes, bytes]]) -> Mutation:
    """TensorFlow's index of these entries, some of them damaged under right checksums."""

    def mutate(chance: random.Random, content: bytes) -> bytes:
        changed = list(pairs)
        for _ in range(chance.choice((1, 1, 3))):
            at = chance.randrange(len(changed))
            key, value = changed[at]
            match chance.randrange(5):
                case 0:
                    changed[at] = bytes_damaged(chance, key), value
                case 1:
                    changed[at] = key, chance.choice(changed)[1]
                case 2 if len(changed) > 1:
                    del changed[at]
                case _:
                    changed[at] = key, bytes_damaged(chance, value)
        if chance.random() < 0.8:
            changed.sort()
        return table(changed, compression=chance.choice((0,) * 19 + (1,)))

    return mutate
