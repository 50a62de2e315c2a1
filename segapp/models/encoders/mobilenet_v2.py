"""MobileNetV2 (arXiv:1801.04381) as research/deeplab's encoder: up to its 320 channels, without the 1x1 conv behind.

Units are named and numbered as in research/slim/nets/mobilenet: blocks.3.expand is expanded_conv_3/expand. Padding is
symmetric, as PyTorch's; TensorFlow's is the same at sides of k * output_stride + 1.
"""

from collections import OrderedDict
from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from segapp.models.encoders.interface import INCEPTION, Encoder, EncoderOptions, Feature
from segapp.models.layers import BatchNorm2d, Conv2d, DepthwiseConv2d, trunc_normal
from segapp.models.strides import strides_and_rates

EPS = 1e-3
"""slim's default, which research/slim/nets/mobilenet/mobilenet.py leaves as it is."""

STEM = 32
ROWS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
"""Expansion t, channels c, units n and the stride s of the first of them (arXiv:1801.04381, Table 2)."""


MULTIPLIERS = {"mobilenet_v2": (1.0, 8), "mobilenet_v2_dm05": (0.5, 1)}
"""What multiplies the channel counts, and of what they are multiples: with half of them, Google rounds no more
(research/deeplab/core/feature_extractor.py: divisible_by and min_depth)."""


class MobileNetV2Config(EncoderOptions):
    """See conf/model/encoder/mobilenet_v2.yaml. `width` multiplies every channel count; see `wide`."""

    name: Literal["mobilenet_v2", "mobilenet_v2_dm05"]
    width: float = Field(default=1.0, gt=0, le=4)

    def build(self, output_stride: int) -> "MobileNetV2":
        multiplier, divisible_by = MULTIPLIERS[self.name]
        return MobileNetV2(output_stride=output_stride, width=multiplier * self.width, divisible_by=divisible_by)


def wide(channels: int, width: float, divisible_by: int = 8) -> int:
    """To a multiple that is not more than a tenth below (_make_divisible in slim's mobilenet.py)."""
    half_up = int(channels * width + divisible_by / 2) // divisible_by * divisible_by
    rounded = max(divisible_by, half_up)
    return rounded if rounded >= 0.9 * channels * width else rounded + divisible_by


def conv_bn(conv: Conv2d, *, relu: bool = True) -> nn.Sequential:
    layers = OrderedDict[str, nn.Module](conv=conv, bn=BatchNorm2d(conv.out_channels, EPS))
    if relu:
        layers["act"] = nn.ReLU6()
    return nn.Sequential(layers)


class InvertedResidual(nn.Module):
    """1x1 to `expansion` times the channels, 3x3 depthwise, and 1x1 to few of them, which no ReLU follows.

    Args:
        skip: adds the input.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, expansion: int, stride: int, rate: int, skip: bool
    ) -> None:
        super().__init__()
        self.expanded = in_channels * expansion
        self.expand = conv_bn(Conv2d(in_channels, self.expanded)) if expansion > 1 else nn.Identity()
        self.depthwise = conv_bn(DepthwiseConv2d(self.expanded, stride, rate))
        self.project = conv_bn(Conv2d(self.expanded, out_channels), relu=False)
        self.skip = skip

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the unit's output and that of its depthwise conv."""
        tap = self.depthwise(self.expand(x))
        y = self.project(tap)
        return x + y if self.skip else y, tap


class MobileNetV2(Encoder):
    """Gives, of each unit before a stride, the output of its depthwise conv (networks_to_feature_maps in
    research/deeplab/core/feature_extractor.py; that of stride 4 is layer_4's), and the last unit's output.

    Args:
        output_stride: 8, 16 or 32.
        width: multiplies every channel count.
        divisible_by: they are rounded to multiples of it.
    """

    normalization = INCEPTION

    def __init__(self, *, output_stride: int = 16, width: float = 1.0, divisible_by: int = 8) -> None:
        super().__init__()
        channels, current = wide(STEM, width, divisible_by), 2
        self.stem = conv_bn(Conv2d(3, channels, 3, stride=2))
        self.blocks = nn.ModuleList()
        units = [(t, wide(c, width, divisible_by), s if i == 0 else 1) for t, c, n, s in ROWS for i in range(n)]
        strides = [stride for _, _, stride in units]
        self.taps = tuple(after > 1 for after in (*strides[1:], 1))
        features = []
        plan = strides_and_rates(strides, output_stride, start=current)
        for (expansion, out, own_stride), (stride, rate), is_tapped in zip(units, plan, self.taps, strict=True):
            skip = own_stride == 1 and channels == out
            block = InvertedResidual(channels, out, expansion=expansion, stride=stride, rate=rate, skip=skip)
            self.blocks.append(block)
            channels, current = out, current * stride
            if is_tapped:
                features.append(Feature(block.expanded, current))
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
