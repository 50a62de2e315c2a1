"""What GoogLeNet and Inception-v3 are made of: tables of convolutions, pools, and branches of them side by side."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from segapp.models.encoders.interface import Encoder, Feature
from segapp.models.encoders.padding import Padding, check_size
from segapp.models.encoders.pools import AvgPool2d, MaxPool2d
from segapp.models.layers import BatchNorm2d, scaled
from segapp.models.strides import strides_and_rates


class Conv(NamedTuple):
    """A convolution of `kernel` rows and columns, BN or a bias, and ReLU."""

    channels: int
    kernel: tuple[int, int] = (1, 1)


Plain = Conv | Literal["maximum", "maximum of all", "maximum of 2x2", "average", "response norm"]
"""A convolution, a 3x3 pool if nothing else is said, or local response normalization. Without padding, "maximum"
leaves out places that fill no window, and the next two do not."""
Step = Plain | Mapping[str, Sequence[Plain | Mapping[str, Sequence[Plain]]]]
"""Or branches by name, which take the same input, and whose outputs are concatenated."""


@dataclass(frozen=True)
class Unit:
    """One of what a network does one after another.

    Attributes:
        name: in the networks of torchvision.
        step: what it does.
        stride: its own: that of its step, of branches that of the last step of each.
        unpadded: what has the stride has no padding in the published network.
    """

    name: str
    step: Step
    stride: int = 1
    unpadded: bool = False


@dataclass(frozen=True)
class Style:
    """What the layers of a network have in common.

    `eps`: BN's; None for biases in its place. `counts_padding`: average pools count the zeros around.
    """

    eps: float | None
    width: float
    counts_padding: bool = True


class ResponseNorm(nn.LocalResponseNorm):
    """In float32 at least: squares of what pixels give that are not scaled are too large for float16."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(torch.promote_types(x.dtype, torch.float32))).to(x.dtype)


class Branches(nn.ModuleDict):
    """Side by side on the same input, outputs concatenated."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.values()], 1)


def built(
    step: Step, channels: int, style: Style, *, stride: int, rate: int, padded: bool = True
) -> tuple[nn.Module, int]:
    """Returns the module of a step that is given `channels` channels, and how many it gives."""
    match step:
        case Conv(out_channels, kernel):
            out_channels = scaled(out_channels, style.width)
            down, across = (rate * (k - 1) // 2 if padded else 0 for k in kernel)
            bias = style.eps is None
            conv = nn.Conv2d(channels, out_channels, kernel, stride, (down, across), rate, bias=bias)
            layers = OrderedDict[str, nn.Module](conv=conv)
            if style.eps is not None:
                layers["bn"] = BatchNorm2d(out_channels, style.eps)
            return nn.Sequential(layers | {"act": nn.ReLU()}), out_channels
        case "maximum":
            return MaxPool2d(3, stride, rate) if padded else nn.MaxPool2d(3, stride), channels
        case "maximum of all" | "maximum of 2x2":
            side = 2 if step == "maximum of 2x2" else 3
            pool = MaxPool2d(side, stride, rate) if padded else nn.MaxPool2d(side, stride, ceil_mode=True)
            return pool, channels
        case "average":
            return AvgPool2d(3, stride, rate, counts_padding=style.counts_padding), channels
        case "response norm":
            return ResponseNorm(5), channels
    branches, total = Branches(), 0
    for name, steps in step.items():
        modules, last = [], channels
        for i, each in enumerate(steps, start=1):
            # All run at the unit's rate; its stride is the last one's.
            own = {"stride": stride, "padded": padded} if i == len(steps) else {"stride": 1, "padded": True}
            module, last = built(each, last, style, rate=rate, **own)  # type: ignore[arg-type]
            modules.append(module)
        branches[name] = nn.Sequential(*modules)
        total += last
    return branches, total


class Inception(Encoder):
    """Gives, of each unit before a stride, the output, and the last unit's.

    Args:
        units: a table of them.
        output_stride: 8, 16 or 32.
        style: of its layers.
        padding: see `Padding`.
        smallest: the side of which a place is left without padding.

    Attributes:
        channels: of each unit's output.
    """

    def __init__(
        self, units: Sequence[Unit], *, output_stride: int, style: Style, padding: Padding = "same", smallest: int = 1
    ) -> None:
        super().__init__()
        self.smallest = 1 if padding == "same" else smallest
        self.blocks = nn.ModuleList()
        self.channels: list[int] = []
        channels, current = 3, 1
        features: list[Feature] = []
        self.taps = tuple(unit.stride > 1 for unit in (*units[1:], units[0]))
        plan = strides_and_rates([unit.stride for unit in units], output_stride)
        for unit, (stride, rate), is_tapped in zip(units, plan, self.taps, strict=True):
            padded = padding == "same" or not unit.unpadded
            block, channels = built(unit.step, channels, style, stride=stride, rate=rate, padded=padded)
            self.blocks.append(block)
            self.channels.append(channels)
            current *= stride
            if is_tapped:
                features.append(Feature(channels, current))
        self.features = tuple(features)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return self.outputs(images, self.taps)

    def outputs(self, images: Tensor, wanted: Sequence[bool]) -> tuple[Tensor, ...]:
        """Of the units that are `wanted`, of all in order."""
        check_size(images, self.smallest)
        x = images
        outputs = []
        for block, is_wanted in zip(self.blocks, wanted, strict=True):
            x = block(x)
            if is_wanted:
                outputs.append(x)
        return tuple(outputs)
