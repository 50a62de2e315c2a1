"""The reader of TensorFlow's checkpoints: held against files that TensorFlow wrote, and against hostile ones."""

import gzip
import random
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from segapp.base.errors import UserError
from segapp.weights.sources.tensorflow_checkpoint import TFCheckpoint
from tests.bundles import MAGIC, Array, block, entry, field, header, masked, table, varint, write_bundle

FIXTURES = Path(__file__).parent.parent / "tensorflow" / "fixtures"


def expected(name: str) -> dict[str, tuple[str, Array]]:
    """Name to TensorFlow's type and values."""
    with np.load(FIXTURES / f"{name}.npz") as file:
        return {
            str(tensor): (str(dtype), file[str(i)])
            for i, (tensor, dtype) in enumerate(zip(file["names"], file["dtypes"], strict=True))
        }


@pytest.mark.parametrize("name", ["dtypes", "shapes", "shards", "prefixes", "object"])
def test_the_very_same_arrays(name: str) -> None:
    """Bit by bit: NaN, infinities, denormals and -0 among them."""
    checkpoint = TFCheckpoint(FIXTURES / name)
    wanted = expected(name)
    assert set(checkpoint) - {"_CHECKPOINTABLE_OBJECT_GRAPH"} == set(wanted)
    for tensor, (dtype, array) in wanted.items():
        if dtype == "string":
            continue
        read = checkpoint[tensor]
        assert tuple(read.shape) == array.shape, tensor
        assert str(read.dtype) == f"torch.{dtype}", tensor
        bits = read.view(torch.uint16) if dtype == "bfloat16" else read
        assert bits.numpy().tobytes() == array.tobytes(), tensor


def test_several_shards_and_blocks(tmp_path: Path) -> None:
    assert TFCheckpoint(FIXTURES / "shards").shards == 3
    for path in FIXTURES.glob("blocks.*.gz"):
        (tmp_path / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    checkpoint = TFCheckpoint(tmp_path / "blocks")
    assert len(checkpoint) == 256
    assert all(checkpoint[name].item() == int(name[:3]) for name in checkpoint)


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("dtypes", "types/string", "types/string is of a type that is not read"),
        ("object", "_CHECKPOINTABLE_OBJECT_GRAPH", "is of a type that is not read"),
    ],
)
def test_what_is_not_read_is_refused_by_name(name: str, tensor: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        TFCheckpoint(FIXTURES / name)[tensor]


def test_slices_are_refused_by_name() -> None:
    checkpoint = TFCheckpoint(FIXTURES / "partitioned")
    whole = {name for name, each in checkpoint.entries.items() if not each.sliced}
    assert whole != set(checkpoint), "the fixture holds a partitioned variable"
    for name in checkpoint:
        if name not in whole:
            with pytest.raises(UserError, match="is stored in slices"):
                checkpoint[name]
    for name, (_, array) in expected("partitioned").items():
        if name in whole:
            assert np.array_equal(checkpoint[name].numpy(), array)


def test_our_writer_is_read_as_tensorflows_are(tmp_path: Path) -> None:
    """So that the faults below are faults of one thing only."""
    arrays = {f"a/very/long/common/prefix/{i}": (i % 3 + 1, 2) for i in range(200)} | {"b": ()}
    write_bundle(tmp_path / "x", arrays, lambda name, shape: np.full(shape, hash(name) % 1000, np.float32))
    checkpoint = TFCheckpoint(tmp_path / "x")
    assert {name: tuple(checkpoint[name].shape) for name in checkpoint} == arrays
    assert all((checkpoint[name] == hash(name) % 1000).all() for name in arrays)


def one_tensor(tmp_path: Path, value: bytes, content: bytes = b"\0" * 16) -> TFCheckpoint:
    (tmp_path / "x.data-00000-of-00001").write_bytes(content)
    (tmp_path / "x.index").write_bytes(table([(b"", header()), (b"t", value)]))
    return TFCheckpoint(tmp_path / "x")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (entry(1, [4], 0, 0, 16, 0), "t is damaged: its checksum"),
        (entry(1, [4], 0, 8, 16, 0), "t reaches beyond the end of x.data-00000-of-00001"),
        (entry(1, [2500000000], 0, 0, 10_000_000_000, 0), "t reaches beyond the end"),
        (entry(1, [2500000000], 0, 0, 16, 0), "t has 16 bytes, which its shape"),
        (entry(1, [4], 0, 2**63, 16, 0), "t reaches beyond the end"),
        (entry(7, [4], 0, 0, 16, 0), "t is of a type that is not read"),
        (entry(99, [4], 0, 0, 16, 0), "t is of a type that is not read"),
    ],
)
def test_a_tensor_that_is_not_there(tmp_path: Path, value: bytes, message: str) -> None:
    checkpoint = one_tensor(tmp_path, value)
    with pytest.raises(UserError, match=message):
        checkpoint["t"]


@pytest.mark.parametrize(
    "value",
    [
        entry(1, [2**62, 2**62], 0, 0, 16, 0),
        entry(1, [1] * 300, 0, 0, 4, 0),
        entry(1, [4], 1, 0, 16, 0),
        field(1, b"text"),
        field(2, 5),
        field(2, field(2, 5)),
        varint(2 << 3 | 2) + varint(1000) + b"short",
        varint(1 << 3 | 3),
        b"\xff" * 12,
        varint(6 << 3 | 5) + b"\0",
    ],
)
def test_an_entry_that_is_none(tmp_path: Path, value: bytes) -> None:
    with pytest.raises(UserError, match=r"x\.index: damaged, or no TensorFlow checkpoint"):
        one_tensor(tmp_path, value)


def long_keys() -> bytes:
    """Keys that each add a byte to the last one: a hundred megabytes from a hundred kilobytes, if let."""
    return table([(b"", header()), *((b"k" * length, b"") for length in range(1, 20_000))], per_block=10**9)


def overlapping_blocks() -> bytes:
    """An index block that names one data block thousands of times."""
    data = block([(b"", header()), (b"t", entry(1, [4], 0, 0, 16, 0))])
    again = block([(b"z%06d" % i, varint(0) + varint(len(data) - 5)) for i in range(5000)], interval=1)
    ends = varint(0) + varint(len(data) - 5) + varint(len(data)) + varint(len(again) - 5)
    return data + again + ends.ljust(40, b"\0") + MAGIC


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "too short"),
        (b"<html>" * 100, "mark is missing"),
        (b"\0" * 40 + MAGIC, "block"),
        (b"\xff" * 40 + MAGIC, "a number does not end|outside"),
        (table([(b"a", b"")]), "no header"),
        (table([(b"", header(0))]), "0 shards"),
        (table([(b"", header(10**9))]), "shards"),
        (table([(b"", header()), (b"b", b""), (b"a", b"")]), "not in order"),
        (table([(b"", header()), (b"b", b""), (b"b", b"")]), "not in order"),
        (table([(b"", header()), (b"\xff", b"")]), "utf-8"),
        (long_keys(), "too long names"),
        (overlapping_blocks(), "blocks overlap"),
    ],
)
def test_an_index_that_is_none(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.index").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(UserError, match=f"x.index: damaged, or no TensorFlow checkpoint .*({message})"):
        TFCheckpoint(tmp_path / "x")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (table([(b"", header())], compression=1), r"compressed \(Snappy\), which is not read"),
        (table([(b"", header() + field(2, 1))]), "big-endian"),
    ],
)
def test_a_kind_that_is_not_read(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.index").write_bytes(content)
    with pytest.raises(UserError, match=f"x.index: .*{message}"):
        TFCheckpoint(tmp_path / "x")


def test_files_that_are_missing_or_vast(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="x.index: cannot be read"):
        TFCheckpoint(tmp_path / "x")
    checkpoint = one_tensor(tmp_path, entry(1, [4], 0, 0, 16, masked(b"\0" * 16)))
    assert checkpoint["t"].tolist() == [0, 0, 0, 0]
    (tmp_path / "x.data-00000-of-00001").unlink()
    with pytest.raises(UserError, match="data-00000-of-00001: cannot be read .* needs all its files"):
        checkpoint["t"]
    with (tmp_path / "x.index").open("wb") as file:
        file.truncate(20 << 20)
    with pytest.raises(UserError, match="larger than 16 MB"):
        TFCheckpoint(tmp_path / "x")


def repaired(content: bytearray, good: bytes) -> bytes:
    """The blocks' checksums made right again, where the blocks of `good` were."""
    footer, at, blocks = good[-48:], 0, []
    numbers = []
    for _ in range(4):
        value = shift = 0
        while True:
            byte = footer[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                break
        numbers.append(value)
    meta, index = numbers[:2], numbers[2:]
    blocks = [(0, meta[0] - 5), tuple(meta), tuple(index)]
    for offset, size in blocks:
        end = offset + size
        content[end + 1 : end + 5] = struct.pack("<I", masked(bytes(content[offset : end + 1])))
    return bytes(content)


@pytest.mark.slow
@pytest.mark.parametrize("mend", [bytes, "checksums"], ids=["as it is", "checksums made right"])
def test_random_bytes_anywhere_in_the_index(tmp_path: Path, mend: Callable[[bytearray], bytes] | str) -> None:
    """600 times: a tensor comes out as it was, or one clear error does."""
    good = (FIXTURES / "prefixes.index").read_bytes()
    (tmp_path / "x.data-00000-of-00001").write_bytes((FIXTURES / "prefixes.data-00000-of-00001").read_bytes())
    wanted = {name: array for name, (_, array) in expected("prefixes").items()}
    chance = random.Random(0)
    refused = 0
    tracemalloc.start()
    for _ in range(600):
        content = bytearray(good)
        at = chance.randrange(len(good))
        for place in range(at, min(at + chance.choice([1, 1, 2, 8]), len(good))):
            content[place] = chance.choice([0, 255, 128, 127, chance.randrange(256)])
        (tmp_path / "x.index").write_bytes(bytes(content) if mend is bytes else repaired(content, good))
        error = None
        try:
            checkpoint = TFCheckpoint(tmp_path / "x")
            for name in checkpoint:
                read = checkpoint[name]
                if mend is bytes:
                    assert np.array_equal(read.numpy(), wanted[name])
        except UserError as caught:
            error = str(caught)
        if error is not None:
            refused += 1
            assert "\n" not in error
            assert str(tmp_path / "x") in error
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused > 100
    assert peak < 16 << 20
    assert {path.name for path in tmp_path.iterdir()} == {"x.index", "x.data-00000-of-00001"}
