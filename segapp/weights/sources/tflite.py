"""Google's small DeepLabs as TFLite files, read strictly: 8-bit and float, BN folded into the convs."""

import logging
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from segapp.base.classes import background_of
from segapp.base.errors import UserError
from segapp.models.deeplabv3plus import ASPPConfig, DeepLabV3Plus, DeepLabV3PlusConfig
from segapp.models.encoders import EncoderConfig
from segapp.models.encoders.interface import INCEPTION, Normalization
from segapp.models.encoders.mobilenet_v2 import MULTIPLIERS, STEM, wide
from segapp.weights.checkpoint import CheckpointInfo, by, shapes_of
from segapp.weights.sources.common import Weights, WeightsMetadata, check_finite, class_names, counts
from segapp.weights.sources.tflite_file import (
    ADD,
    ARG_MAX,
    AVERAGE_POOL,
    CONCATENATION,
    CONV,
    DEPTHWISE,
    DEQUANTIZE,
    MEAN,
    QUANTIZE,
    RESIZE_BILINEAR,
    Operator,
    TFLiteFile,
)

log = logging.getLogger(__name__)

KNOWN = {ADD, ARG_MAX, AVERAGE_POOL, CONCATENATION, CONV, DEPTHWISE, DEQUANTIZE, MEAN, QUANTIZE, RESIZE_BILINEAR}
POOLS = {AVERAGE_POOL, MEAN}
HEAD = ("aspp.image_pooling", "aspp.branches.0", "aspp.projection", "logits")


def read(path: Path, metadata: WeightsMetadata, sha256: str | None = None) -> tuple[CheckpointInfo, Weights]:
    """MobileNetV2 with image pooling, a 1x1 branch, projection and logits, as Google's model zoo has it.

    The normalisation is the one of the file's quantised input, which differs a little from [-1, 1].

    Raises:
        UserError: the file is damaged, or of another network; the first thing that differs is named.
    """
    file = TFLiteFile(path)
    unknown = sorted({each.code for each in file.operators} - KNOWN)
    convs = [each for each in file.operators if each.code in (CONV, DEPTHWISE)]
    if unknown or not convs or any(len(each.inputs) < 3 or min(each.inputs) < 0 for each in convs):
        what = f"operator {unknown[0]} is none of its" if unknown else "its convs are not those"
        raise UserError(f"{path}: no MobileNetV2 with DeepLabv3's head: {what}")
    info = _describe(file, convs, metadata)
    network = info.network
    assert isinstance(network, DeepLabV3PlusConfig)
    with torch.device("meta"):
        model = network.build(len(info.classes))
    expected = shapes_of(info)
    roles = _roles(path, file, convs, _conv_names(model))
    weights: Weights = counts(expected)
    for name, conv in roles.items():
        _check_rates(path, name, conv, model)
        weights |= _conv_bn(file, name, conv, expected, model)
    if missing := expected.keys() - weights.keys():
        raise UserError(f"{path}: no MobileNetV2 with DeepLabv3's head: it lacks {min(missing)}")
    log.info("%d convs taken, of %d constants", len(convs), len(file.tensors))
    return info.model_copy(update={"source": metadata.source(sha256, [path])}), weights


def _describe(file: TFLiteFile, convs: list[Operator], metadata: WeightsMetadata) -> CheckpointInfo:
    stem, number = _shape(file, convs[0])[0], _shape(file, convs[-1])[0]
    names = [name for name, (width, divisible_by) in MULTIPLIERS.items() if wide(STEM, width, divisible_by) == stem]
    if not names:
        raise UserError(
            f"{file.path}: no MobileNetV2 with DeepLabv3's head: it begins with {stem} channels and ends with {number}"
        )
    classes = class_names(file.path, number, metadata)
    return CheckpointInfo(
        network=DeepLabV3PlusConfig(
            encoder=TypeAdapter[EncoderConfig](EncoderConfig).validate_python({"name": names[0]}),
            output_stride=metadata.output_stride,
            aspp=ASPPConfig(name="aspp", channels=256, separable=False, image_pooling=True, atrous=False, dropout=0.1),
            decoder=None,
        ),
        classes=classes,
        background=background_of(classes),
        normalization=_normalization(file),
        canvas=metadata.canvas,
        trained_on=metadata.trained_on,
        jpeg_decoder="tensorflow",
    )


def _normalization(file: TFLiteFile) -> Normalization:
    """What the input's quantisation makes of a byte v: (v - zero) * scale; of a float input, what Google feeds."""
    tensor = file.tensors[file.inputs[0]]
    if tensor.dtype != "u1":
        return INCEPTION
    if len(tensor.scales) != 1 or not 0 < tensor.scales[0] < 1 or len(tensor.zeros) != 1:
        raise UserError(f"{file.path}: its input is not quantised as images are")
    mean, std = tensor.zeros[0] / 255, 1 / (255 * tensor.scales[0])
    return Normalization(mean=(mean,) * 3, std=(std,) * 3)


def _conv_names(model: nn.Module) -> list[str]:
    """The encoder's convs, in the order in which they compute."""
    return [
        name for name, module in model.named_modules() if isinstance(module, nn.Conv2d) and name.startswith("encoder.")
    ]


def _roles(path: Path, file: TFLiteFile, convs: list[Operator], encoder: list[str]) -> dict[str, Operator]:
    """Each conv by our name: the encoder's in their order, the head's by what they are given."""
    made_by = {at: each for each in file.operators for at in each.outputs}

    def source(conv: Operator) -> Operator | None:
        """What gives a conv its input, behind what only changes its numbers' form."""
        found = made_by.get(conv.inputs[0])
        while found is not None and found.code in (QUANTIZE, DEQUANTIZE):
            found = made_by.get(found.inputs[0])
        return found

    body, head = convs[: len(encoder)], convs[len(encoder) :]
    codes = [None if (given := source(each)) is None else given.code for each in head]
    pooled = [each for each, code in zip(head, codes, strict=True) if code in POOLS]
    joined = [each for each, code in zip(head, codes, strict=True) if code == CONCATENATION]
    others = [each for each in head if each not in pooled and each not in joined]
    if len(body) < len(encoder) or [len(pooled), len(joined), len(others)] != [1, 1, 2]:
        raise UserError(
            f"{path}: no MobileNetV2 with DeepLabv3's head: {len(convs)} convs, not {len(encoder) + len(HEAD)}"
        )
    by_name = dict(zip(encoder, body, strict=True))
    return by_name | dict(zip(HEAD, (*pooled, others[0], *joined, others[1]), strict=True))


def _shape(file: TFLiteFile, conv: Operator) -> tuple[int, ...]:
    return file.tensors[conv.inputs[1]].shape


def _check_rates(path: Path, name: str, conv: Operator, model: DeepLabV3Plus) -> None:
    ours = model.get_submodule(name if name == "logits" or name.startswith("encoder.") else f"{name}.conv")
    assert isinstance(ours, nn.Conv2d)
    if (conv.stride, conv.dilation) != (ours.stride, ours.dilation):
        raise UserError(
            f"{path}: {name} has stride {conv.stride[0]} and rate {conv.dilation[0]}, {ours.stride[0]} and "
            f"{ours.dilation[0]} are needed: of another output stride?"
        )


def _conv_bn(
    file: TFLiteFile, name: str, conv: Operator, expected: dict[str, Tensor], model: DeepLabV3Plus
) -> Weights:
    """A conv's weights and bias: for one with BN, a BN that only adds the bias."""
    values, bias = _constant(file, conv.inputs[1]), _constant(file, conv.inputs[2])
    if values.ndim != 4 or bias.ndim != 1:
        raise UserError(f"{file.path}: {name} is no conv with a bias")
    # To O x I x H x W, from O x H x W x I and, where each channel has its own, 1 x H x W x C.
    weight = torch.from_numpy(
        values.transpose((3, 0, 1, 2) if conv.code == DEPTHWISE else (0, 3, 1, 2)).copy()
    ).float()
    offset = torch.from_numpy(bias).float()
    if name == "logits":
        tensors = {"logits.weight": weight, "logits.bias": offset}
    else:
        place = name.removesuffix(".conv")
        bn = model.get_submodule(f"{place}.bn")
        assert isinstance(bn, nn.BatchNorm2d)
        tensors = {
            f"{place}.conv.weight": weight,
            f"{place}.bn.weight": torch.ones_like(offset),
            f"{place}.bn.bias": offset,
            f"{place}.bn.running_mean": torch.zeros_like(offset),
            f"{place}.bn.running_var": torch.full_like(offset, 1 - bn.eps),
        }
    for own, tensor in tensors.items():
        if own not in expected or tensor.shape != expected[own].shape:
            needed = by(expected[own].shape) if own in expected else "nothing"
            raise UserError(f"{file.path}: {own} is {by(tensor.shape)}, {needed} is needed")
        check_finite(file.path, own, tensor)
    return tensors


def _constant(file: TFLiteFile, place: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """A constant, also one that the graph turns into floats."""
    made_by = {at: each for each in file.operators if each.code == DEQUANTIZE for at in each.outputs}
    return file.values(made_by[place].inputs[0] if place in made_by else place)
