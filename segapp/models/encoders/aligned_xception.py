"""The modified aligned Xception 41, 65 and 71 (arXiv:1802.02611, Fig. 4; 71: research/deeplab/core/xception.py).

Parameter names are timm's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from segapp.models.encoders.interface import INCEPTION, Encoder, EncoderOptions, Feature
from segapp.models.layers import Conv2d, ConvBN, SeparableConv, scaled, trunc_normal
from segapp.models.strides import strides_and_rates

EPS = 1e-3


@dataclass(frozen=True)
class Unit:
    """One module: three separable convs (the last with the stride) and a skip."""

    channels: tuple[int, int, int]
    stride: int
    skip: Literal["conv", "sum", "none"]
    relu_inside: bool = False


ENTRY_65 = (
    Unit((128, 128, 128), 2, "conv"),
    Unit((256, 256, 256), 2, "conv"),
    Unit((728, 728, 728), 2, "conv"),
)
ENTRY_71 = (
    Unit((128, 128, 128), 2, "conv"),
    Unit((256, 256, 256), 1, "conv"),
    Unit((256, 256, 256), 2, "conv"),
    Unit((728, 728, 728), 1, "conv"),
    Unit((728, 728, 728), 2, "conv"),
)
MIDDLE = Unit((728, 728, 728), 1, "sum")
EXIT = (
    Unit((728, 1024, 1024), 2, "conv"),
    Unit((1536, 1536, 2048), 1, "none", relu_inside=True),
)

XCEPTIONS = {
    "xception41": (*ENTRY_65, *[MIDDLE] * 8, *EXIT),
    "xception65": (*ENTRY_65, *[MIDDLE] * 16, *EXIT),
    "xception71": (*ENTRY_71, *[MIDDLE] * 16, *EXIT),
}


class AlignedXceptionConfig(EncoderOptions):
    """See conf/model/encoder/xception65.yaml. `width` multiplies every channel count, rounded to multiples of 8."""

    name: Literal["xception41", "xception65", "xception71"]
    width: float = Field(default=1.0, gt=0, le=4)

    def build(self, output_stride: int) -> "AlignedXception":
        return AlignedXception(XCEPTIONS[self.name], output_stride=output_stride, width=self.width)


class XceptionModule(nn.Module):
    def __init__(self, in_channels: int, unit: Unit, stride: int, rate: int) -> None:
        super().__init__()
        self.stack = nn.ModuleDict()
        channels = in_channels
        for i, out_channels in enumerate(unit.channels, start=1):
            self.stack[f"conv{i}"] = SeparableConv(
                channels,
                out_channels,
                eps=EPS,
                stride=stride if i == 3 else 1,
                dilation=rate,
                relu=unit.relu_inside,
            )
            channels = out_channels
        # Never in place: the raw input feeds the skip, and conv2's raw output may be a feature.
        self.act = nn.Identity() if unit.relu_inside else nn.ReLU()
        self.skip = unit.skip
        if unit.skip == "conv":
            self.shortcut = ConvBN(in_channels, channels, eps=EPS, stride=stride, relu=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the module's output and that of its second separable conv, before any ReLU."""
        y = self.stack["conv1"](self.act(x))
        tap = self.stack["conv2"](self.act(y))
        y = self.stack["conv3"](self.act(tap))
        if self.skip == "conv":
            y = y + self.shortcut(x)
        elif self.skip == "sum":
            y = y + x
        return y, tap


class AlignedXception(Encoder):
    """Gives, of each unit with a stride, the output of the second separable conv, before its ReLU and before the
    stride (the paper's low-level feature is that of stride 4), and the last unit's output.

    Args:
        units: a block table, as in `XCEPTIONS`.
        output_stride: 8, 16 or 32.
        width: multiplies every channel count, rounded to multiples of 8.
    """

    normalization = INCEPTION

    def __init__(self, units: Sequence[Unit], *, output_stride: int = 16, width: float = 1.0) -> None:
        super().__init__()
        wide = partial(scaled, width=width)
        stem = wide(32), wide(64)
        self.stem = nn.Sequential(ConvBN(3, stem[0], 3, stride=2, eps=EPS), ConvBN(stem[0], stem[1], 3, eps=EPS))
        self.blocks = nn.ModuleList()
        channels, current = stem[1], 2
        features = []
        plan = strides_and_rates([unit.stride for unit in units], output_stride, start=current)
        for unit, (stride, rate) in zip(units, plan, strict=True):
            first, second, third = unit.channels
            if unit.stride > 1:
                features.append(Feature(wide(second), current))
            unit = Unit((wide(first), wide(second), wide(third)), unit.stride, unit.skip, unit.relu_inside)
            self.blocks.append(XceptionModule(channels, unit, stride, rate))
            channels, current = unit.channels[2], current * stride
        self.taps = tuple(unit.stride > 1 for unit in units)
        self.features = (*features, Feature(channels, current))
        for module in self.modules():
            if isinstance(module, Conv2d):
                trunc_normal(module.weight, 0.09)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = self.stem(images)
        features = []
        for block, is_tapped in zip(self.blocks, self.taps, strict=True):
            x, tap = block(x)
            if is_tapped:
                features.append(tap)
        return (*features, x)
