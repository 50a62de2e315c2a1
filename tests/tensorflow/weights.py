"""The variables of the released TensorFlow graph: names, shapes, and made-up values that follow from the name alone.

Numpy only, so that TensorFlow's side and the project's tests build the same network without sharing a file.
Shapes are TensorFlow's: convolutions [H, W, I, O], depthwise convolutions [H, W, C, 1].
"""

import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, Any]
Shapes = dict[str, tuple[int, ...]]

FIXTURES = Path(__file__).parent / "fixtures"
HEAD_SCOPES = ("image_pooling", "aspp", "concat_projection", "decoder/", "meta_architecture/")
ASPP_CHANNELS = 256
LOW_LEVEL_CHANNELS = 48
# In the head every so many channels vary so little that the BN's epsilon shows in the output.
FLAT_EVERY = 16
FLAT_VARIANCE = 1e-5


# The dense prediction cell: which branch each takes, -1 for the feature, and its rates of rows and columns.
CELL = [(-1, (1, 6)), (0, (18, 15)), (1, (6, 3)), (0, (1, 1)), (0, (6, 21))]

# Channels of the stem, and of each unit its expansion, channels and stride (arXiv:1801.04381, Table 2, unrolled).
_STRIDES = [1, 2, 1, 2, 1, 1, 2, 1, 1, 1, 1, 1, 1, 2, 1, 1, 1]
_FULL = [16, 24, 24, 32, 32, 32, 64, 64, 64, 64, 96, 96, 96, 160, 160, 160, 320]
_HALF = [8, 12, 12, 16, 16, 16, 32, 32, 32, 32, 48, 48, 48, 80, 80, 80, 160]
MOBILENET = {
    variant: (stem, [(1 if at == 0 else 6, c, s) for at, (c, s) in enumerate(zip(channels, _STRIDES, strict=True))])
    for variant, stem, channels in (("mobilenet_v2", 32, _FULL), ("mobilenet_v2_dm05", 16, _HALF))
}


class Module(NamedTuple):
    """One Xception module: the scope under the variant's name, and what core/xception.py builds it from."""

    scope: str
    channels: tuple[int, int, int]
    stride: int
    skip: str  # conv, sum or none
    activation_inside: bool = False


ENTRY_65 = [((128, 128, 128), 2), ((256, 256, 256), 2), ((728, 728, 728), 2)]
ENTRY_71 = [
    ((128, 128, 128), 2),
    ((256, 256, 256), 1),
    ((256, 256, 256), 2),
    ((728, 728, 728), 1),
    ((728, 728, 728), 2),
]
ENTRY = {"xception_41": ENTRY_65, "xception_65": ENTRY_65, "xception_71": ENTRY_71}
MIDDLE_UNITS = {"xception_41": 8, "xception_65": 16, "xception_71": 16}
# The module whose second separable convolution the decoder reads.
LOW_LEVEL_MODULE = {
    "xception_41": "entry_flow/block2/unit_1",
    "xception_65": "entry_flow/block2/unit_1",
    "xception_71": "entry_flow/block3/unit_1",
}


def modules(variant: str) -> list[Module]:
    """The modules of `xception_41`, `xception_65` or `xception_71`, in order."""
    entry = [
        Module(f"entry_flow/block{block}/unit_1", channels, stride, "conv")
        for block, (channels, stride) in enumerate(ENTRY[variant], 1)
    ]
    middle = [
        Module(f"middle_flow/block1/unit_{unit}", (728, 728, 728), 1, "sum")
        for unit in range(1, MIDDLE_UNITS[variant] + 1)
    ]
    leave = [
        Module("exit_flow/block1/unit_1", (728, 1024, 1024), 2, "conv"),
        Module("exit_flow/block2/unit_1", (1536, 1536, 2048), 1, "none", activation_inside=True),
    ]
    return entry + middle + leave


def _norm(scope: str, channels: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for name in ("gamma", "beta", "moving_mean", "moving_variance"):
        yield f"{scope}/BatchNorm/{name}", (channels,)


def _conv(scope: str, kernel: int, inputs: int, outputs: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{scope}/weights", (kernel, kernel, inputs, outputs)
    yield from _norm(scope, outputs)


def _separable(scope: str, inputs: int, outputs: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{scope}_depthwise/depthwise_weights", (3, 3, inputs, 1)
    yield from _norm(f"{scope}_depthwise", inputs)
    yield from _conv(f"{scope}_pointwise", 1, inputs, outputs)


def _encoder(variant: str) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from _conv(f"{variant}/entry_flow/conv1_1", 3, 3, 32)
    yield from _conv(f"{variant}/entry_flow/conv1_2", 3, 32, 64)
    inputs = 64
    for module in modules(variant):
        scope, channels = f"{variant}/{module.scope}/xception_module", inputs
        for number, outputs in enumerate(module.channels, 1):
            yield from _separable(f"{scope}/separable_conv{number}", channels, outputs)
            channels = outputs
        if module.skip == "conv":
            yield from _conv(f"{scope}/shortcut", 1, inputs, channels)
        inputs = channels


def _head(
    num_classes: int, decoder: bool, image_pooling: bool, inputs: int = 2048, atrous: bool = True, cell: bool = False
) -> Iterator[tuple[str, tuple[int, ...]]]:
    if cell:
        for branch, (source, _) in enumerate(CELL):
            yield from _separable(
                f"meta_architecture/branch{branch}", inputs if source < 0 else ASPP_CHANNELS, ASPP_CHANNELS
            )
        yield from _conv("meta_architecture/concat_projection", 1, len(CELL) * ASPP_CHANNELS, ASPP_CHANNELS)
    else:
        if image_pooling:
            yield from _conv("image_pooling", 1, inputs, ASPP_CHANNELS)
        yield from _conv("aspp0", 1, inputs, ASPP_CHANNELS)
        for branch in (1, 2, 3) if atrous else ():
            yield from _separable(f"aspp{branch}", inputs, ASPP_CHANNELS)
        joined = (1 + 3 * atrous + image_pooling) * ASPP_CHANNELS
        yield from _conv("concat_projection", 1, joined, ASPP_CHANNELS)
    if decoder:
        yield from _conv("decoder/feature_projection0", 1, 256, LOW_LEVEL_CHANNELS)
        yield from _separable("decoder/decoder_conv0", ASPP_CHANNELS + LOW_LEVEL_CHANNELS, ASPP_CHANNELS)
        yield from _separable("decoder/decoder_conv1", ASPP_CHANNELS, ASPP_CHANNELS)
    yield "logits/semantic/weights", (1, 1, ASPP_CHANNELS, num_classes)
    yield "logits/semantic/biases", (num_classes,)


def variables(
    variant: str, num_classes: int, decoder: bool = True, image_pooling: bool = True, cell: bool = False
) -> Shapes:
    """Every variable of the released segmentation graph (separable head), without optimizer slots."""
    return dict([*_encoder(variant), *_head(num_classes, decoder, image_pooling, cell=cell)])


def mobilenet_variables(variant: str, num_classes: int) -> Shapes:
    """Those of `mobilenet_v2` and of `mobilenet_v2_dm05`, with image pooling and one branch, without a decoder."""
    stem, units = MOBILENET[variant]
    found = dict(_conv("MobilenetV2/Conv", 3, 3, stem))
    inputs = stem
    for number, (expansion, channels, _) in enumerate(units):
        scope = "MobilenetV2/expanded_conv" + (f"_{number}" if number else "")
        wide = inputs * expansion
        if expansion > 1:
            found |= dict(_conv(f"{scope}/expand", 1, inputs, wide))
        found |= {f"{scope}/depthwise/depthwise_weights": (3, 3, wide, 1)}
        found |= dict(_norm(f"{scope}/depthwise", wide)) | dict(_conv(f"{scope}/project", 1, wide, channels))
        inputs = channels
    return found | dict(_head(num_classes, decoder=False, image_pooling=True, inputs=inputs, atrous=False))


def classifier_variables(variant: str, num_classes: int = 1001) -> Shapes:
    """Every variable of the ImageNet classifier; its class 0 is the background."""
    logits: Shapes = {
        f"{variant}/logits/weights": (1, 1, 2048, num_classes),
        f"{variant}/logits/biases": (num_classes,),
    }
    return dict(_encoder(variant)) | logits


def trainable(name: str) -> bool:
    """Whether the variable is learnt; the others are the BNs' moving statistics."""
    return not name.endswith(("moving_mean", "moving_variance"))


def values(name: str, shape: tuple[int, ...]) -> Array:
    """float32 values of one variable. RandomState's stream is frozen, so they stay the same."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    kind = name.rpartition("/")[2]
    if kind in ("weights", "depthwise_weights"):
        # TensorFlow's fan-in: [H, W, I, O] gives H * W * I, and a depthwise [H, W, C, 1] sees one channel.
        fan_in = np.prod(shape[:2]) if kind == "depthwise_weights" else np.prod(shape[:-1])
        std = 0.05 if "logits/" in name else np.sqrt(2 / fan_in)
        array = random.normal(0, std, shape)
    elif kind == "biases":
        array = random.normal(0, 1, shape)
    elif kind == "gamma":
        array = random.uniform(0.7, 1.3, shape) * _gain(name)
        if name.startswith(HEAD_SCOPES):
            array[::FLAT_EVERY] *= 0.01
    elif kind in ("beta", "moving_mean"):
        array = random.normal(0, 0.2, shape)
    elif kind == "moving_variance":
        array = random.uniform(0.5, 1.5, shape)
        if name.startswith(HEAD_SCOPES):
            array[::FLAT_EVERY] *= FLAT_VARIANCE
    else:
        raise ValueError(f"{name} is no variable of this graph")
    return array.astype(np.float32)


def _gain(name: str) -> float:
    """Keeps the activations' size through the modules, where no ReLU halves what the weights' std doubles."""
    if "/xception_module/separable_conv" not in name or "_pointwise/" not in name:
        return 1.0
    return 0.2 if "/middle_flow/" in name and "separable_conv3" in name else 0.7


def image(height: int, width: int, seed: int = 0) -> Array:
    """A deterministic uint8 RGB image: coarse squares under noise, for wide and narrow filters."""
    random = np.random.RandomState(seed)
    coarse = random.randint(0, 192, (height // 24 + 1, width // 24 + 1, 3))
    squares = coarse.repeat(24, axis=0).repeat(24, axis=1)[:height, :width]
    return np.asarray(squares + random.randint(0, 64, (height, width, 3)), np.uint8)


def feature(height: int, width: int, channels: int, seed: int = 0) -> Array:
    """A deterministic float32 feature map, as it comes from a ReLU."""
    random = np.random.RandomState(seed)
    return np.maximum(0, random.normal(size=(height, width, channels))).astype(np.float32)
