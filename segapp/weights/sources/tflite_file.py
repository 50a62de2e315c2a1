"""Reads TFLite files: their graph and its constants, whatever the network (tensorflow/lite/schema/schema.fbs)."""

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segapp.base.errors import UserError

MOST_BYTES = 1 << 30
"""Of a file; Google's small DeepLab has 2 MB."""
MOST_ENTRIES = 1 << 16
"""Of a table's list: tensors, operators, dimensions."""
IDENTIFIER = b"TFL3"

ADD, AVERAGE_POOL, CONCATENATION, CONV, DEPTHWISE, DEQUANTIZE, RESIZE_BILINEAR = 0, 1, 2, 3, 4, 6, 23
MEAN, ARG_MAX, QUANTIZE = 40, 56, 114
"""BuiltinOperator."""
TYPES = {0: "<f4", 1: "<f2", 2: "<i4", 3: "u1", 4: "<i8", 9: "i1"}
"""TensorType, as numpy calls them."""
DILATIONS = {CONV: 4, DEPTHWISE: 5}
"""The place of dilation_w_factor in the operator's options; dilation_h_factor follows. 1 and 2 are the strides."""


@dataclass(frozen=True)
class Tensor:
    """`dtype`: as numpy calls it; empty where it is not one of numbers.

    `buffer`: which one holds its values. `scales`, `zeros`: of its quantisation.
    """

    shape: tuple[int, ...]
    dtype: str
    buffer: int
    scales: tuple[float, ...]
    zeros: tuple[int, ...]


@dataclass(frozen=True)
class Operator:
    """`inputs`, `outputs`: places among the tensors, -1 for none. `stride`, `dilation`: (height, width) of a conv."""

    code: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    stride: tuple[int, int]
    dilation: tuple[int, int]


class TFLiteFile:
    """The first graph of a file.

    Raises:
        UserError: missing, no TFLite file, cut, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            if path.stat().st_size > MOST_BYTES:
                raise UserError(f"{path}: larger than {MOST_BYTES} bytes")
            self._data = path.read_bytes()
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
        if self._data[4:8] != IDENTIFIER:
            raise UserError(f"{path}: no TFLite file")
        try:
            model = _Table(self._data, _unpack("<I", self._data, 0))
            graph = next(model.tables(2))
            codes = [max(each.number(0, "<b"), each.number(3, "<i")) for each in model.tables(1)]
            self._buffers = list(model.tables(4))
            self.tensors = [_tensor(each) for each in graph.tables(0)]
            self.inputs = tuple(graph.numbers(1, "<i"))
            self.operators = [_operator(each, codes) for each in graph.tables(3)]
            places = [*self.inputs[:1], *(at for each in self.operators for at in (*each.inputs, *each.outputs))]
            if max(places) >= len(self.tensors) or min(places) < -1 or min(self.inputs[:1], default=-1) < 0:
                raise ValueError("a tensor that is not there")
        except (struct.error, ValueError, IndexError, StopIteration, KeyError, OverflowError) as error:
            raise UserError(f"{path}: a damaged TFLite file ({error or 'no graph'})") from None

    def values(self, place: int) -> npt.NDArray[np.float64]:
        """A constant as real numbers: (stored - zero) * scale where it is quantised.

        Raises:
            UserError: it is no constant, damaged, of a type that weights do not have, or with a scale a channel.
        """
        tensor = self.tensors[place]
        try:
            stored = self._buffers[tensor.buffer].bytes(0)
            if not tensor.dtype:
                raise ValueError(f"tensor {place} holds no numbers")
            if len(stored) != math.prod(tensor.shape) * np.dtype(tensor.dtype).itemsize:
                raise ValueError(f"tensor {place} has {len(stored)} bytes for {tensor.shape}")
        except (struct.error, ValueError, IndexError) as error:
            raise UserError(f"{self.path}: a damaged TFLite file ({error})") from None
        values = np.frombuffer(stored, tensor.dtype).reshape(tensor.shape).astype(np.float64)
        if len(tensor.scales) > 1:
            raise UserError(f"{self.path}: is quantised with a scale a channel; one a tensor is read")
        zero = tensor.zeros[0] if tensor.zeros else 0
        return (values - zero) * tensor.scales[0] if tensor.scales else values


def _tensor(table: "_Table") -> Tensor:
    quantization = table.table(4)
    shape = tuple(table.numbers(0, "<i"))
    if min(shape, default=1) < 0:
        raise ValueError("a negative side")
    return Tensor(
        shape,
        TYPES.get(table.number(1, "<b"), ""),
        int(table.number(2, "<I")),
        () if quantization is None else tuple(quantization.numbers(2, "<f")),
        () if quantization is None else tuple(quantization.numbers(3, "<q")),
    )


def _operator(table: "_Table", codes: list[int]) -> Operator:
    code, options = codes[int(table.number(0, "<I"))], table.table(4)
    stride, dilation = (1, 1), (1, 1)
    if code in DILATIONS and options is not None:
        stride = int(options.number(2, "<i")), int(options.number(1, "<i"))
        at = DILATIONS[code]
        dilation = int(options.number(at + 1, "<i", 1)), int(options.number(at, "<i", 1))
    return Operator(code, tuple(table.numbers(1, "<i")), tuple(table.numbers(2, "<i")), stride, dilation)


class _Table:
    """One table of a FlatBuffer; what it says of places is checked before anything is taken from there."""

    def __init__(self, data: bytes, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - _unpack("<i", data, at)
        self._size = _unpack("<H", data, self._fields)

    def _field(self, number: int) -> int | None:
        place = 4 + 2 * number
        offset = _unpack("<H", self._data, self._fields + place) if place + 2 <= self._size else 0
        return self._at + offset if offset else None

    def number(self, number: int, kind: str, default: int = 0) -> int:
        field = self._field(number)
        return default if field is None else _unpack(kind, self._data, field)

    def table(self, number: int) -> "_Table | None":
        field = self._field(number)
        return None if field is None else _Table(self._data, field + _unpack("<I", self._data, field))

    def _list(self, number: int, most: int) -> tuple[int, int]:
        """Where a list's first entry is, and how many there are."""
        field = self._field(number)
        if field is None:
            return 0, 0
        at = field + _unpack("<I", self._data, field)
        length = _unpack("<I", self._data, at)
        if length > most:
            raise ValueError(f"a list of {length} entries")
        return at + 4, length

    def tables(self, number: int) -> "Iterator[_Table]":
        at, length = self._list(number, MOST_ENTRIES)
        for place in range(at, at + 4 * length, 4):
            yield _Table(self._data, place + _unpack("<I", self._data, place))

    def numbers(self, number: int, kind: str) -> list[int]:
        at, length = self._list(number, MOST_ENTRIES)
        step = struct.calcsize(kind)
        return [_unpack(kind, self._data, place) for place in range(at, at + step * length, step)]

    def bytes(self, number: int) -> bytes:
        at, length = self._list(number, len(self._data))
        if at + length > len(self._data):
            raise ValueError("a list beyond the file's end")
        return self._data[at : at + length]


def _unpack(kind: str, data: bytes, at: int) -> int:
    if at < 0:
        raise ValueError("a place before the file")
    value: int = struct.unpack_from(kind, data, at)[0]
    return value
