"""ShuffleNet, the first one (arXiv:1707.01083, Section 3 and Table 1), at every number of groups.

Left open by the paper: padding is symmetric, zeros count in the average pool of a unit with a stride, and what that
pool gives is put behind what the convs give.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from segapp.models.encoders.interface import IMAGENET, Encoder, EncoderOptions, Feature
from segapp.models.encoders.pools import AvgPool2d, MaxPool2d
from segapp.models.layers import Conv2d, ConvBN, scaled
from segapp.models.strides import strides_and_rates

EPS = 1e-5
STEM = 24
CHANNELS = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}
"""Of stage 2 by the number of groups; each stage after it has twice as many (Table 1)."""
UNITS = (4, 8, 4)
"""Of stages 2 to 4; the first of each has stride 2."""


class ShuffleNetConfig(EncoderOptions):
    """See conf/model/encoder/shufflenet.yaml.

    `groups` of the 1x1 convs; `shuffle`: channels are shuffled between them (off: the paper's Table 3); `width`
    multiplies every channel count, to numbers that the groups divide.
    """

    name: Literal["shufflenet"]
    groups: Literal[1, 2, 3, 4, 8] = 3
    shuffle: bool = True
    width: float = Field(default=1.0, gt=0, le=4)

    def build(self, output_stride: int) -> "ShuffleNet":
        return ShuffleNet(output_stride=output_stride, groups=self.groups, shuffle=self.shuffle, width=self.width)


class ShuffleUnit(nn.Module):
    """1x1 to a quarter of the channels, shuffle, 3x3 depthwise, 1x1; then the input is added (Figure 2b), or, in a
    unit with a stride of its own, the pooled input is put behind that (Figure 2c).

    Args:
        in_channels: of the input.
        out_channels: of the output.
        groups: of the 1x1 convs.
        first_groups: of the first of them.
        shuffle: whether channels are shuffled behind it.
        pools: whether the unit has a stride of its own.
        stride: that it runs with.
        rate: of its depthwise conv and of its pool.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        groups: int,
        first_groups: int,
        shuffle: bool,
        pools: bool,
        stride: int,
        rate: int,
    ) -> None:
        super().__init__()
        narrow = out_channels // 4
        made = out_channels - in_channels if pools else out_channels
        self.compress = ConvBN(in_channels, narrow, eps=EPS, groups=first_groups)
        self.shuffle = nn.ChannelShuffle(groups) if shuffle else nn.Identity()
        self.depthwise = ConvBN(narrow, narrow, 3, eps=EPS, stride=stride, dilation=rate, groups=narrow, relu=False)
        self.expand = ConvBN(narrow, made, eps=EPS, groups=groups, relu=False)
        self.pool = AvgPool2d(3, stride, rate, counts_padding=True) if pools else None
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(self.depthwise(self.shuffle(self.compress(x))))
        return self.act(x + y if self.pool is None else torch.cat((y, self.pool(x)), 1))  # type: ignore[no-any-return]


class ShuffleNet(Encoder):
    """Gives the stem's conv, its max pool, which has stride 4, and the last unit of each stage.

    Args:
        output_stride: 8, 16 or 32.
        groups: of the 1x1 convs, but for the very first of them (Section 3.2).
        shuffle: whether channels are shuffled between groups.
        width: multiplies every channel count.
    """

    normalization = IMAGENET

    def __init__(self, *, output_stride: int = 16, groups: int = 3, shuffle: bool = True, width: float = 1.0) -> None:
        super().__init__()
        channels, current = scaled(STEM, width, groups), 4
        self.stem = ConvBN(3, channels, 3, stride=2, eps=EPS)
        self.pool = MaxPool2d(3, 2)
        self.blocks = nn.ModuleList()
        features = [Feature(channels, 2), Feature(channels, 4)]
        strides = [2 if i == 0 else 1 for number in UNITS for i in range(number)]
        self.taps = tuple(after > 1 for after in (*strides[1:], 2))
        wide = scaled(CHANNELS[groups], width, 4 * groups) // 2
        plan = strides_and_rates(strides, output_stride, start=current)
        for own_stride, (stride, rate), is_tapped in zip(strides, plan, self.taps, strict=True):
            wide *= own_stride
            block = ShuffleUnit(
                channels,
                wide,
                groups=groups,
                first_groups=groups if len(self.blocks) else 1,
                shuffle=shuffle,
                pools=own_stride > 1,
                stride=stride,
                rate=rate,
            )
            self.blocks.append(block)
            channels, current = wide, current * stride
            if is_tapped:
                features.append(Feature(channels, current))
        self.features = tuple(features)
        for module in self.modules():
            if isinstance(module, Conv2d):  # the paper trains as ResNeXt's authors do, who start so
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        features = [self.stem(images)]
        features.append(x := self.pool(features[0]))
        for block, is_tapped in zip(self.blocks, self.taps, strict=True):
            x = block(x)
            if is_tapped:
                features.append(x)
        return tuple(features)
