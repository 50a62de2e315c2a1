"""Xception, the first one (arXiv:1610.02357, Figure 5).

Left open by the paper and taken from its author's code (keras/src/applications/xception.py): BN's epsilon, the initial
values, no BN between a depthwise conv and its pointwise one, no ReLU before the first separable conv. Padding is
symmetric, as in timm's legacy_xception; TensorFlow's pools, those of padding=tensorflow, pad an even side on the right
and below alone.
"""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from segapp.models.encoders.interface import INCEPTION, Encoder, EncoderOptions, Feature
from segapp.models.encoders.padding import check_padding, check_size
from segapp.models.encoders.pools import MaxPool2d, TensorFlowMaxPool2d
from segapp.models.layers import BatchNorm2d, Conv2d, ConvBN, DepthwiseConv2d, scaled
from segapp.models.strides import strides_and_rates

EPS = 1e-3
"""Keras' default, which its Xception leaves as it is."""
STEM = 32, 64
SMALLEST = 7
"""The side of which an unpadded stem leaves a place."""

Padding = Literal["same", "valid", "tensorflow"]
"""The first two as `segapp.models.encoders.padding` has them; the last as valid, with TensorFlow's pools: Keras's."""
Activation = Literal["none", "relu", "elu"]
ACTIVATIONS: dict[Activation, type[nn.Module]] = {"none": nn.Identity, "relu": nn.ReLU, "elu": nn.ELU}


@dataclass(frozen=True)
class Unit:
    """One module: separable convs, and with stride 2 a max pool behind them.

    Attributes:
        channels: of each separable conv.
        stride: its own.
        skip: the input is added: by a 1x1 conv where stride or channels change.
        relu: where ReLUs stand: before every separable conv, before all but the first, or after each.
    """

    channels: tuple[int, ...]
    stride: int = 1
    skip: bool = True
    relu: Literal["before", "between", "after"] = "before"


UNITS = (
    Unit((128, 128), 2, relu="between"),
    Unit((256, 256), 2),
    Unit((728, 728), 2),
    *[Unit((728, 728, 728))] * 8,
    Unit((728, 1024), 2),
    Unit((1536, 2048), skip=False, relu="after"),
)


class XceptionConfig(EncoderOptions):
    """See conf/model/encoder/xception.yaml.

    `activation` between depthwise and pointwise (Section 4.7); `residuals`: modules add their input (Section 4.6);
    `padding` of the stem and of pools; `width` multiplies every channel count, rounded to multiples of 8.
    """

    name: Literal["xception"]
    activation: Activation = "none"
    residuals: bool = True
    padding: Padding = "same"
    width: float = Field(default=1.0, gt=0, le=4)

    def build(self, output_stride: int) -> "Xception":
        check_padding(self.padding, output_stride)
        return Xception(
            output_stride=output_stride,
            activation=self.activation,
            residuals=self.residuals,
            padding=self.padding,
            width=self.width,
        )


def separable(in_channels: int, out_channels: int, activation: Activation, rate: int) -> nn.Sequential:
    """Depthwise 3x3, the activation, pointwise 1x1, BN."""
    return nn.Sequential(
        OrderedDict(
            depthwise=DepthwiseConv2d(in_channels, dilation=rate),
            act=ACTIVATIONS[activation](),
            pointwise=Conv2d(in_channels, out_channels),
            bn=BatchNorm2d(out_channels, EPS),
        )
    )


class XceptionUnit(nn.Module):
    """As its `Unit` says, with the stride and the atrous rate that it runs with."""

    def __init__(
        self, in_channels: int, unit: Unit, stride: int, rate: int, activation: Activation, padding: Padding
    ) -> None:
        super().__init__()
        channels = in_channels
        self.convs = nn.ModuleList()
        for out_channels in unit.channels:
            self.convs.append(separable(channels, out_channels, activation, rate))
            channels = out_channels
        self.act = nn.ReLU()  # never in place: the raw input feeds the skip, and may be a feature
        self.relu = unit.relu
        pool = TensorFlowMaxPool2d if padding == "tensorflow" else MaxPool2d
        self.pool = pool(3, stride, rate) if unit.stride > 1 else nn.Identity()
        self.skip = unit.skip
        if unit.skip and (unit.stride > 1 or channels != in_channels):
            self.shortcut: nn.Module = ConvBN(in_channels, channels, eps=EPS, stride=stride, relu=False)
        else:
            self.shortcut = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i, conv in enumerate(self.convs):
            if self.relu == "before" or (self.relu == "between" and i > 0):
                y = self.act(y)
            y = conv(y)
            if self.relu == "after":
                y = self.act(y)
        y = self.pool(y)
        return y + self.shortcut(x) if self.skip else y  # type: ignore[no-any-return]


class Xception(Encoder):
    """Gives what each module with a stride takes, before its ReLU, of strides 2, 4, 8 and 16, and the last output.

    Args:
        output_stride: 8, 16 or 32.
        activation: between depthwise and pointwise convs.
        residuals: modules add their input.
        padding: of the stem, and of pools; see `Padding`.
        width: multiplies every channel count, rounded to multiples of 8.
    """

    normalization = INCEPTION

    def __init__(
        self,
        *,
        output_stride: int = 16,
        activation: Activation = "none",
        residuals: bool = True,
        padding: Padding = "same",
        width: float = 1.0,
    ) -> None:
        super().__init__()
        first, channels = (scaled(each, width) for each in STEM)
        self.stem = nn.Sequential(ConvBN(3, first, 3, stride=2, eps=EPS), ConvBN(first, channels, 3, eps=EPS))
        self.smallest = 1
        if padding != "same":
            self.smallest = SMALLEST
            for module in self.stem.modules():
                if isinstance(module, Conv2d):
                    module.padding = 0, 0
        self.blocks = nn.ModuleList()
        current = 2
        features = []
        plan = strides_and_rates([unit.stride for unit in UNITS], output_stride, start=current)
        for unit, (stride, rate) in zip(UNITS, plan, strict=True):
            if unit.stride > 1:
                features.append(Feature(channels, current))
            wide = tuple(scaled(each, width) for each in unit.channels)
            unit = Unit(wide, unit.stride, unit.skip and residuals, unit.relu)
            self.blocks.append(XceptionUnit(channels, unit, stride, rate, activation, padding))
            channels, current = wide[-1], current * stride
        self.taps = tuple(unit.stride > 1 for unit in UNITS)
        self.features = (*features, Feature(channels, current))
        for module in self.modules():
            if isinstance(module, Conv2d):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        check_size(images, self.smallest)
        x = self.stem(images)
        features = []
        for block, is_tapped in zip(self.blocks, self.taps, strict=True):
            if is_tapped:
                features.append(x)
            x = block(x)
        return (*features, x)
