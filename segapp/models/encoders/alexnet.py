"""AlexNet, as two groups of channels (Krizhevsky et al., NeurIPS 2012, Section 3.5), up to its last max pool; and
torchvision's, in one, with fewer of them and without response normalization (arXiv:1404.5997, footnote 1).

Padding is symmetric, 5 around the first conv and 1 around the pools, where the authors have none: places of every
stride then stand over one grid of pixels. The fully connected layers behind belong to a classifier of 227 x 227.
"""

from collections import OrderedDict
from typing import Literal, NamedTuple

from pydantic import Field
from torch import Tensor, nn

from segapp.models.encoders.inception import ResponseNorm
from segapp.models.encoders.interface import IMAGENET, Encoder, EncoderOptions, Feature, Normalization
from segapp.models.encoders.pools import MaxPool2d
from segapp.models.layers import scaled
from segapp.models.strides import strides_and_rates


class Layer(NamedTuple):
    """A convolution. `pools`: a max pool stands before it, and in the network of 2012 response normalization before
    that."""

    channels: int
    kernel: int
    stride: int
    groups: int
    bias: float
    pools: bool


LAYERS = (
    Layer(96, 11, 4, 1, 0.0, False),
    Layer(256, 5, 1, 2, 1.0, True),
    Layer(384, 3, 1, 1, 0.0, True),
    Layer(384, 3, 1, 2, 1.0, False),
    Layer(256, 3, 1, 2, 1.0, False),
)
"""Sections 3.5 and 5, with the initial biases."""
TORCHVISIONS = tuple(
    layer._replace(channels=channels, groups=1)
    for layer, channels in zip(LAYERS, (64, 192, 384, 256, 256), strict=True)
)
"""torchvision/models/alexnet.py."""


class AlexNetConfig(EncoderOptions):
    """See conf/model/encoder/alexnet.yaml. `width` multiplies every channel count, rounded to multiples of 8."""

    name: Literal["alexnet", "alexnet_torchvision"]
    width: float = Field(default=1.0, gt=0, le=4)

    def build(self, output_stride: int) -> "AlexNet":
        is_torchvisions = self.name == "alexnet_torchvision"
        return AlexNet(output_stride=output_stride, width=self.width, is_torchvisions=is_torchvisions)


class AlexNet(Encoder):
    """Gives the convolutions before a max pool, of strides 4, 8 and 16, and the last pool.

    Args:
        output_stride: 8, 16 or 32.
        width: multiplies every channel count, rounded to multiples of 8.
        is_torchvisions: see TORCHVISIONS.
    """

    normalization = Normalization(mean=IMAGENET.mean, std=(1 / 255, 1 / 255, 1 / 255))
    """Pixels of 0 to 255 about their mean, and not scaled (Section 2): the response normalization's k is of that."""

    def __init__(self, *, output_stride: int = 16, width: float = 1.0, is_torchvisions: bool = False) -> None:
        super().__init__()
        self.layers = TORCHVISIONS if is_torchvisions else LAYERS
        if is_torchvisions:
            self.normalization = IMAGENET
        strides = [stride for layer in self.layers for stride in ([2] if layer.pools else []) + [layer.stride]] + [2]
        plan = strides_and_rates(strides, output_stride)
        channels, current = 3, 1
        features = []
        self.blocks = nn.ModuleList()
        for layer in self.layers:
            parts = OrderedDict[str, nn.Module]()
            if layer.pools:
                features.append(Feature(channels, current))
                stride, rate = next(plan)
                if not is_torchvisions:
                    # PyTorch divides alpha by the number of channels that it sums, and Section 3.3 does not.
                    parts["norm"] = ResponseNorm(5, alpha=5 * 1e-4, beta=0.75, k=2.0)
                parts["pool"] = MaxPool2d(3, stride, rate)
                current *= stride
            stride, rate = next(plan)
            wide, padding = scaled(layer.channels, width), rate * (layer.kernel - 1) // 2
            conv = nn.Conv2d(channels, wide, layer.kernel, stride, padding, rate, layer.groups)
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.constant_(conv.bias, layer.bias)  # type: ignore[arg-type]
            self.blocks.append(nn.Sequential(parts | {"conv": conv, "act": nn.ReLU()}))
            channels, current = wide, current * stride
        stride, rate = next(plan)
        self.pool = MaxPool2d(3, stride, rate)
        self.features = (*features, Feature(channels, current), Feature(channels, current * stride))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        x, features = images, []
        for layer, block in zip(self.layers, self.blocks, strict=True):
            if layer.pools:
                features.append(x)
            x = block(x)
        return (*features, x, self.pool(x))
