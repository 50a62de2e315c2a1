"""GoogLeNet, with the 5x5 convs that it has in the paper (arXiv:1409.4842, Table 1 and Figure 3), and torchvision's.

Left open by the paper: what its response normalization divides by and its initial values, which are those of Caffe's
(models/bvlc_googlenet); padding, which is symmetric; and the scale of the pixels, which are Caffe's too.

torchvision's has BN, 3x3 convs in the place of 5x5, a last pool of 2x2, and pools that are padded at the end alone, so
that places of different strides do not stand over one grid of pixels: padding=valid; with padding=same they do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field
from torch import nn

from segapp.models.encoders.inception import Conv, Inception, Step, Style, Unit
from segapp.models.encoders.interface import INCEPTION, EncoderOptions, Normalization
from segapp.models.encoders.padding import Padding, check_padding
from segapp.models.layers import trunc_normal

EPS = 1e-3


def mixed(number: str, ones: int, reduced_3: int, threes: int, reduced_5: int, fives: int, pooled: int) -> Unit:
    """A row of Table 1 from "#1x1" on: 1x1, 3x3, 5x5 and a pool side by side (Figure 2b)."""
    step: Step = {
        "branch1": [Conv(ones)],
        "branch2": [Conv(reduced_3), Conv(threes, (3, 3))],
        "branch3": [Conv(reduced_5), Conv(fives, (5, 5))],
        "branch4": ["maximum", Conv(pooled)],
    }
    return Unit(f"inception{number}", step)


UNITS = (
    Unit("conv1", Conv(64, (7, 7)), 2),
    Unit("maxpool1", "maximum", 2),
    Unit("norm1", "response norm"),
    Unit("conv2", Conv(64)),
    Unit("conv3", Conv(192, (3, 3))),
    Unit("norm2", "response norm"),
    Unit("maxpool2", "maximum", 2),
    mixed("3a", 64, 96, 128, 16, 32, 32),
    mixed("3b", 128, 128, 192, 32, 96, 64),
    Unit("maxpool3", "maximum", 2),
    mixed("4a", 192, 96, 208, 16, 48, 64),
    mixed("4b", 160, 112, 224, 24, 64, 64),
    mixed("4c", 128, 128, 256, 24, 64, 64),
    mixed("4d", 112, 144, 288, 32, 64, 64),
    mixed("4e", 256, 160, 320, 32, 128, 128),
    Unit("maxpool4", "maximum", 2),
    mixed("5a", 256, 160, 320, 32, 128, 128),
    mixed("5b", 384, 192, 384, 48, 128, 128),
)


def _torchvisions(unit: Unit) -> Unit:
    """A unit as it is in torchvision/models/googlenet.py."""
    if unit.step == "maximum":
        return replace(unit, step="maximum of 2x2" if unit.name == "maxpool4" else "maximum of all", unpadded=True)
    if not isinstance(unit.step, Mapping):
        return unit
    reduced, fives = unit.step["branch3"]
    assert isinstance(fives, Conv)
    return replace(unit, step={**unit.step, "branch3": [reduced, fives._replace(kernel=(3, 3))]})


TORCHVISIONS = tuple(_torchvisions(unit) for unit in UNITS if unit.step != "response norm")

AUXILIARY = ("inception4a", "inception4d")
"""Behind which a classifier has another head in training (Section 5)."""


class GoogLeNetConfig(EncoderOptions):
    """See conf/model/encoder/googlenet.yaml.

    `batch_norm`: behind each conv, in the place of biases and response normalization; `width` multiplies every channel
    count, rounded to multiples of 8.
    """

    name: Literal["googlenet"]
    batch_norm: bool = False
    width: float = Field(default=1.0, gt=0, le=4)

    def build(self, output_stride: int) -> "GoogLeNet":
        return GoogLeNet(output_stride=output_stride, batch_norm=self.batch_norm, width=self.width)


class TorchvisionGoogLeNetConfig(EncoderOptions):
    """See conf/model/encoder/googlenet_torchvision.yaml. `width` as above."""

    name: Literal["googlenet_torchvision"]
    padding: Padding = "same"
    width: float = Field(default=1.0, gt=0, le=4)

    def build(self, output_stride: int) -> "TorchvisionGoogLeNet":
        check_padding(self.padding, output_stride)
        return TorchvisionGoogLeNet(output_stride=output_stride, padding=self.padding, width=self.width)


class GoogLeNetBase(Inception):
    """Gives the first conv, what enters the second pool, of stride 4, and Inception 3b, 4e and 5b.

    Args:
        units: of UNITS, or as many.
        output_stride: 8, 16 or 32.
        style: of its layers.
        padding: see `Padding`.

    Attributes:
        auxiliary: for each unit, whether a classifier has another head behind it in training.
    """

    def __init__(self, units: Sequence[Unit], *, output_stride: int, style: Style, padding: Padding = "same") -> None:
        self.auxiliary = [unit.name in AUXILIARY for unit in units]
        super().__init__(units, output_stride=output_stride, style=style, padding=padding)


class GoogLeNet(GoogLeNetBase):
    """The paper's.

    Args:
        output_stride: 8, 16 or 32.
        batch_norm: behind each conv, in the place of biases and response normalization.
        width: multiplies every channel count, rounded to multiples of 8.
    """

    normalization = Normalization(mean=(123 / 255, 117 / 255, 104 / 255), std=(1 / 255, 1 / 255, 1 / 255))
    """Pixels of 0 to 255 about their mean (Section 5), and not scaled."""

    def __init__(self, *, output_stride: int = 16, batch_norm: bool = False, width: float = 1.0) -> None:
        units = [unit for unit in UNITS if not (batch_norm and unit.step == "response norm")]
        super().__init__(units, output_stride=output_stride, style=Style(EPS if batch_norm else None, width))
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # Caffe's "xavier": uniform, of variance 1 / fan in
                nn.init.kaiming_uniform_(module.weight, nonlinearity="linear")
                if module.bias is not None:
                    nn.init.constant_(module.bias, 0.2)


class TorchvisionGoogLeNet(GoogLeNetBase):
    """torchvision's, whose weights are published.

    Args:
        output_stride: 8, 16 or 32.
        padding: see `Padding`.
        width: multiplies every channel count, rounded to multiples of 8.
    """

    normalization = INCEPTION
    """Its `transform_input` brings images to that, whatever torchvision's transforms have done to them before."""

    def __init__(self, *, output_stride: int = 16, padding: Padding = "same", width: float = 1.0) -> None:
        super().__init__(TORCHVISIONS, output_stride=output_stride, style=Style(EPS, width), padding=padding)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                trunc_normal(module.weight, 0.01)
