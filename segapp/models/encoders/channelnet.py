"""ChannelNets v1, v2 and v3 (arXiv:1809.01330), and as an option the layout of the released code, which is another.

The paper's: BN and ReLU6 behind each 1x1 conv and the first conv, neither behind a depthwise conv; the group
channel-wise conv behind the group convs; an identity skip around all three group modules. The code's
(github.com/HongyangGao/ChannelNets): no ReLU6 behind the first conv; the input of units 2, 4 and 6 put before their
output; the channel-wise conv before the group convs; a skip around the first and the third group module alone. The
dropout of 1 in 10,000 values is left out. Padding is symmetric, as PyTorch's.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from segapp.base.errors import UserError
from segapp.models.encoders.interface import IMAGENET, Encoder, EncoderOptions, Feature
from segapp.models.layers import BatchNorm2d, Conv2d, DepthwiseConv2d, scaled, trunc_normal
from segapp.models.strides import strides_and_rates

EPS = 1e-3
"""The released code's (utils/ops.py)."""
GROUPS = 2
GROUP_LENGTH = 8
"""Channels under the kernel of a group channel-wise conv (Section 4.2)."""
LENGTH = 64
"""And under that of the channel-wise conv in the place of a 1x1 conv."""

STEM = 32
Mix = Literal["before", "after"] | None


class Unit(NamedTuple):
    """One row of the table; the code's layout alone has `joins`, which puts the input before the output."""

    channels: int
    stride: int = 1
    kind: Literal["separable", "channelwise", "group"] = "separable"
    joins: bool = False
    mix: Mix = None
    skip: bool = True


def units(version: int, layout: Literal["paper", "code"]) -> tuple[Unit, ...]:
    """All rows but the first conv."""
    code = layout == "code"
    group = Unit(512, kind="group")
    if code:
        groups = group, group._replace(mix="before", skip=False), group._replace(mix="before")
    else:
        groups = group._replace(mix="after"), group._replace(mix="after"), group
    return (
        Unit(64, joins=code),
        Unit(128, stride=2),
        Unit(128, joins=code),
        Unit(256, stride=2),
        Unit(256, joins=code),
        Unit(512, stride=2),
        *groups,
        Unit(1024, stride=2),
        Unit(1024, kind="separable" if version == 1 else "channelwise"),
    )


class ChannelNetConfig(EncoderOptions):
    """See conf/model/encoder/channelnet_v1.yaml. `width` multiplies every channel count, rounded to multiples of 8."""

    name: Literal["channelnet_v1", "channelnet_v2", "channelnet_v3"]
    layout: Literal["paper", "code"] = "paper"
    width: float = Field(default=1.0, gt=0, le=4)

    def build(self, output_stride: int) -> "ChannelNet":
        """Raises:
        UserError: for the code's layout of v2 and v3.
        """
        version = int(self.name[-1])
        if self.layout == "code" and version > 1:
            raise UserError(
                f"model.encoder.layout=code is of channelnet_v1 alone: the released code's {self.name} has a layer "
                "for 7 x 7 places, of images of 224 x 224 pixels; model.encoder.layout=paper takes any"
            )
        return ChannelNet(units(version, self.layout), output_stride=output_stride, width=self.width)


class ChannelWiseConv(nn.Module):
    """A convolution along the channels, the same at every place: each of `maps` kernels gives 1/maps of the channels,
    by steps of `maps`, padded as TensorFlow's SAME.

    Args:
        length: channels under a kernel.
        maps: 1, or the number of groups, for the group channel-wise conv (Section 3.2).
    """

    def __init__(self, length: int, maps: int = 1) -> None:
        super().__init__()
        self.before = (length - maps) // 2
        self.after = length - maps - self.before
        self.conv = nn.Conv2d(1, maps, (length, 1), (maps, 1), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        lines = F.pad(x.flatten(2), (0, 0, self.before, self.after)).unsqueeze(1)
        return self.conv(lines).reshape(x.shape)  # type: ignore[no-any-return]


class Separable(nn.Module):
    """3x3 depthwise, then `mixing` over the channels, a 1x1 conv or a channel-wise one; BN and ReLU6."""

    def __init__(
        self, in_channels: int, mixing: nn.Module, out_channels: int, *, stride: int, rate: int, joins: bool = False
    ) -> None:
        super().__init__()
        self.depthwise = DepthwiseConv2d(in_channels, stride, rate)
        self.mixing = mixing
        self.bn = BatchNorm2d(out_channels, EPS)
        self.act = nn.ReLU6()
        self.joins = joins

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.bn(self.mixing(self.depthwise(x))))
        return torch.cat((x, y), 1) if self.joins else y


class GroupModule(nn.Module):
    """Two depthwise separable convs in groups and, if any, a group channel-wise conv, which mixes the groups."""

    def __init__(self, channels: int, *, rate: int, mix: Mix, skip: bool) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            Separable(channels, Conv2d(channels, channels, groups=GROUPS), channels, stride=1, rate=rate)
            for _ in range(2)
        ]
        if mix is not None:
            layers.insert(0 if mix == "before" else 2, ChannelWiseConv(GROUP_LENGTH, GROUPS))
        self.layers = nn.Sequential(*layers)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.skip else y


class ChannelNet(Encoder):
    """Gives the last unit of each stride.

    Args:
        table: rows, as of `units`.
        output_stride: 8, 16 or 32.
        width: multiplies every channel count, rounded to multiples of 8.
    """

    normalization = IMAGENET

    def __init__(self, table: tuple[Unit, ...], *, output_stride: int = 16, width: float = 1.0) -> None:
        super().__init__()
        channels, current = scaled(STEM, width), 2
        self.stem = nn.Sequential(Conv2d(3, channels, 3, stride=2), BatchNorm2d(channels, EPS))
        if not table[0].joins:
            self.stem.append(nn.ReLU6())
        self.blocks = nn.ModuleList()
        strides = [unit.stride for unit in table]
        self.taps = tuple(after > 1 for after in (*strides[1:], 2))
        features = []
        plan = strides_and_rates(strides, output_stride, start=current)
        for unit, (stride, rate), is_tapped in zip(table, plan, self.taps, strict=True):
            wide = scaled(unit.channels, width)
            if unit.kind == "group":
                self.blocks.append(GroupModule(wide, rate=rate, mix=unit.mix, skip=unit.skip))
            else:
                mixing = Conv2d(channels, wide) if unit.kind == "separable" else ChannelWiseConv(LENGTH)
                self.blocks.append(Separable(channels, mixing, wide, stride=stride, rate=rate, joins=unit.joins))
            channels, current = wide + (channels if unit.joins else 0), current * stride
            if is_tapped:
                features.append(Feature(channels, current))
        self.features = tuple(features)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                trunc_normal(module.weight, 0.09)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x = self.stem(images)
        features = []
        for block, is_tapped in zip(self.blocks, self.taps, strict=True):
            x = block(x)
            if is_tapped:
                features.append(x)
        return tuple(features)


class ConvolutionalClassification(nn.Module):
    """v3's classification layer (Section 3.4): N x C x `size` x `size`, which is 7 for images of 224, to N x K logits.

    One kernel of (C - K + 1) x `size` x `size` moves along the channels; it takes the place of pooling and of a fully
    connected layer.

    Args:
        channels: C.
        num_classes: K, at most C.
        size: of the feature.

    Raises:
        ValueError: more classes than channels.
    """

    def __init__(self, channels: int, num_classes: int, size: int = 7) -> None:
        super().__init__()
        if num_classes > channels:
            raise ValueError(f"{num_classes} classes are more than the {channels} channels")
        self.conv = nn.Conv3d(1, 1, (channels - num_classes + 1, size, size), bias=False)
        trunc_normal(self.conv.weight, 0.09)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.unsqueeze(1)).flatten(1)  # type: ignore[no-any-return]
