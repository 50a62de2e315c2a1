"""Writes TFLite files with Google's own FlatBuffers library, after tensorflow/lite/schema/schema.fbs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import flatbuffers  # type: ignore[import-untyped]
import numpy as np
import torch
from torch import nn

from segapp.models.deeplabv3plus import DeepLabV3Plus

FLOAT, FLOAT16, INT32, UINT8 = 0, 1, 2, 3
CONV_OPTIONS, DEPTHWISE_OPTIONS = 1, 2


@dataclass
class Graph:
    """Tensors as (shape, type, constant or None, scale, zero), operators as (code, inputs, output, options)."""

    tensors: list[tuple[tuple[int, ...], int, bytes | None, list[float], list[int]]] = field(default_factory=list)
    operators: list[tuple[int, list[int], int, tuple[int, ...]]] = field(default_factory=list)

    def tensor(
        self,
        shape: Sequence[int],
        kind: int = UINT8,
        content: bytes | None = None,
        scale: Sequence[float] = (),
        zero: Sequence[int] = (),
    ) -> int:
        self.tensors.append((tuple(shape), kind, content, list(scale), list(zero)))
        return len(self.tensors) - 1

    def operator(self, code: int, inputs: list[int], options: tuple[int, ...] = ()) -> int:
        """Gives the tensor that it makes."""
        made = self.tensor((1, 1, 1, 1))
        self.operators.append((code, inputs, made, options))
        return made

    def packed(self) -> bytes:
        builder = flatbuffers.Builder(1 << 20)
        codes = sorted({code for code, _, _, _ in self.operators})
        contents = [content for _, _, content, _, _ in self.tensors if content is not None]
        buffers = [_table(builder, {}), *(_table(builder, {0: builder.CreateByteVector(each)}) for each in contents)]
        tensors, number = [], 0
        for shape, kind, content, scale, zero in self.tensors:
            number += content is not None
            quantization = {}
            if scale:
                quantization = {2: _vector(builder, scale, "Float32"), 3: _vector(builder, zero, "Int64")}
            fields: dict[int, Any] = {0: _vector(builder, shape, "Int32")}
            made = _table(builder, quantization) if scale else None
            tensors.append(
                _table(
                    builder,
                    fields | ({4: made} if made else {}),
                    {1: ("Int8", kind), 2: ("Uint32", number if content is not None else 0)},
                )
            )
        operators = []
        for code, inputs, output, options in self.operators:
            fields = {1: _vector(builder, inputs, "Int32"), 2: _vector(builder, [output], "Int32")}
            scalars: dict[int, tuple[str, int]] = {0: ("Uint32", codes.index(code))}
            if options:
                is_depthwise = len(options) == 7
                kinds = ["Int8", "Int32", "Int32", *(["Int32"] if is_depthwise else []), "Int8", "Int32", "Int32"]
                fields[4] = _table(builder, {}, dict(enumerate(zip(kinds, options, strict=True))))
                scalars[3] = ("Uint8", DEPTHWISE_OPTIONS if is_depthwise else CONV_OPTIONS)
            operators.append(_table(builder, fields, scalars))
        graph = {
            0: _vector(builder, tensors, "UOffsetTRelative"),
            1: _vector(builder, [0], "Int32"),
            2: _vector(builder, [len(self.tensors) - 1], "Int32"),
            3: _vector(builder, operators, "UOffsetTRelative"),
        }
        graphs = _vector(builder, [_table(builder, graph)], "UOffsetTRelative")
        listed = [_table(builder, {}, {0: ("Int8", code), 3: ("Int32", code)}) for code in codes]
        model = {
            1: _vector(builder, listed, "UOffsetTRelative"),
            2: graphs,
            4: _vector(builder, buffers, "UOffsetTRelative"),
        }
        builder.Finish(_table(builder, model, {0: ("Uint32", 3)}), file_identifier=b"TFL3")
        return bytes(builder.Output())


def _vector(builder: flatbuffers.Builder, values: Sequence[Any], kind: str) -> int:
    size = 8 if kind == "Int64" else 4
    builder.StartVector(size, len(values), size)
    for value in reversed(values):
        getattr(builder, f"Prepend{kind}")(value)
    return int(builder.EndVector())


def _table(
    builder: flatbuffers.Builder, offsets: dict[int, int], scalars: dict[int, tuple[str, int]] | None = None
) -> int:
    scalars = scalars or {}
    builder.StartObject(max([*offsets, *scalars], default=-1) + 1)
    for slot, offset in offsets.items():
        builder.PrependUOffsetTRelativeSlot(slot, offset, 0)
    for slot, (kind, value) in scalars.items():
        getattr(builder, f"Prepend{kind}Slot")(slot, value, 0)
    return int(builder.EndObject())


@torch.no_grad()
def graph_of(model: DeepLabV3Plus, quantised: bool = True) -> Graph:
    """MobileNetV2 with DeepLabv3's head as Google's converter lays it out, BN folded into the convs.

    The model's own weights become those of the file: what 8 bits hold, and a BN that only adds.
    """
    graph = Graph()
    image = graph.tensor(
        (1, 513, 513, 3), UINT8 if quantised else FLOAT, None, [1 / 128] * quantised, [128] * quantised
    )

    def conv(module: nn.Module, given: int) -> int:
        layer, bn = (module, None) if isinstance(module, nn.Conv2d) else (module.conv, module.bn)
        assert isinstance(layer, nn.Conv2d)
        bias = layer.bias
        if isinstance(bn, nn.BatchNorm2d):
            factor = bn.weight * (bn.running_var + bn.eps) ** -0.5  # type: ignore[operator]
            layer.weight.mul_(factor[:, None, None, None])
            bias = bn.bias - bn.running_mean * factor  # type: ignore[operator]
        assert bias is not None
        low, high = min(0.0, float(layer.weight.min())), max(0.0, float(layer.weight.max()))
        scale = (high - low) / 255
        zero = round(-low / scale)
        stored = (layer.weight / scale + zero).round().clamp(0, 255)
        is_depthwise = layer.groups > 1
        code, axes = (4, (1, 2, 3, 0)) if is_depthwise else (3, (0, 2, 3, 1))
        if quantised:
            steps = (bias / (scale / 64)).round()
            layer.weight.copy_((stored - zero) * scale)
            bias = steps * (scale / 64)
            weight = graph.tensor(
                stored.permute(axes).shape,
                UINT8,
                stored.permute(axes).numpy().astype(np.uint8).tobytes(),
                [scale],
                [zero],
            )
            offset = graph.tensor(bias.shape, INT32, steps.numpy().astype("<i4").tobytes(), [scale / 64], [0])
        else:
            half = layer.weight.permute(axes).half()
            layer.weight.copy_(half.float().permute(*np.argsort(axes).tolist()))
            weight = graph.operator(6, [graph.tensor(half.shape, FLOAT16, half.numpy().tobytes())])
            graph.tensors[weight] = (tuple(half.shape), FLOAT, None, [], [])
            offset = graph.tensor(bias.shape, FLOAT, bias.numpy().astype("<f4").tobytes())
        if isinstance(bn, nn.BatchNorm2d):
            bn.weight.fill_(1)
            bn.bias.copy_(bias)
            bn.running_mean.zero_()  # type: ignore[union-attr]
            bn.running_var.fill_(1 - bn.eps)  # type: ignore[union-attr]
        else:
            layer.bias.copy_(bias)  # type: ignore[union-attr]
        (down, across), (high_rate, wide_rate) = layer.stride, layer.dilation
        multiplier = (1,) if is_depthwise else ()
        options = (0, across, down, *multiplier, 0, wide_rate, high_rate)
        return graph.operator(code, [given, weight, offset], options)

    x = conv(model.encoder.stem, image)  # type: ignore[arg-type]
    for block in model.encoder.blocks:
        y = x
        if not isinstance(block.expand, nn.Identity):
            y = conv(block.expand, y)  # type: ignore[arg-type]
        y = conv(block.project, conv(block.depthwise, y))  # type: ignore[arg-type]
        x = graph.operator(0, [y, x]) if block.skip else y
    aspp: Any = model.aspp
    branch = conv(aspp.branches[0], x)
    pooled = graph.operator(23, [conv(aspp.image_pooling, graph.operator(1, [x]))])
    joined = graph.operator(2, [graph.operator(114, [pooled]), branch])
    graph.operator(56, [graph.operator(23, [conv(model.logits, conv(aspp.projection, joined))])])
    return graph
