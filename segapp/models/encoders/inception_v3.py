"""Inception-v3 (arXiv:1512.00567) as it was released (research/slim/nets/inception_v3.py), and as torchvision has it.

The released network is not the paper's Table 1: it has four units of 7x7 factors behind Mixed_6a, not five, and 1x1
convs of 80 and 3x3 of 192 in the stem. Average pools count the zeros around, as torchvision's and timm's do;
TensorFlow's do not.
"""

from typing import Literal

from pydantic import Field
from torch import nn

from segapp.models.encoders.inception import Conv, Inception, Step, Style, Unit
from segapp.models.encoders.interface import INCEPTION, EncoderOptions
from segapp.models.encoders.padding import Padding, check_padding
from segapp.models.layers import trunc_normal

EPS = 1e-3
"""research/slim/nets/inception_utils.py."""
SMALLEST = 75
"""The side of which a network without padding leaves a place."""


def double_3x3(pooled: int) -> Step:
    """The paper's Figure 5, beside a 5x5. `pooled`: channels of the branch with the pool."""
    return {
        "branch1x1": [Conv(64)],
        "branch5x5": [Conv(48), Conv(64, (5, 5))],
        "branch3x3dbl": [Conv(64), Conv(96, (3, 3)), Conv(96, (3, 3))],
        "branch_pool": ["average", Conv(pooled)],
    }


def factorised_7x7(narrow: int) -> Step:
    """The paper's Figure 6. `narrow`: channels between the factors."""
    row, column = (1, 7), (7, 1)
    double = [Conv(narrow), Conv(narrow, column), Conv(narrow, row), Conv(narrow, column), Conv(192, row)]
    return {
        "branch1x1": [Conv(192)],
        "branch7x7": [Conv(narrow), Conv(narrow, row), Conv(192, column)],
        "branch7x7dbl": double,
        "branch_pool": ["average", Conv(192)],
    }


EXPANDED: Step = {
    "branch1x1": [Conv(320)],
    "branch3x3": [Conv(384), {"a": [Conv(384, (1, 3))], "b": [Conv(384, (3, 1))]}],
    "branch3x3dbl": [Conv(448), Conv(384, (3, 3)), {"a": [Conv(384, (1, 3))], "b": [Conv(384, (3, 1))]}],
    "branch_pool": ["average", Conv(192)],
}
"""The paper's Figure 7."""

UNITS = (
    Unit("Conv2d_1a_3x3", Conv(32, (3, 3)), 2, unpadded=True),
    Unit("Conv2d_2a_3x3", Conv(32, (3, 3)), unpadded=True),
    Unit("Conv2d_2b_3x3", Conv(64, (3, 3))),
    Unit("maxpool1", "maximum", 2, unpadded=True),
    Unit("Conv2d_3b_1x1", Conv(80)),
    Unit("Conv2d_4a_3x3", Conv(192, (3, 3)), unpadded=True),
    Unit("maxpool2", "maximum", 2, unpadded=True),
    Unit("Mixed_5b", double_3x3(32)),
    Unit("Mixed_5c", double_3x3(64)),
    Unit("Mixed_5d", double_3x3(64)),
    Unit(
        "Mixed_6a",
        {
            "branch3x3": [Conv(384, (3, 3))],
            "branch3x3dbl": [Conv(64), Conv(96, (3, 3)), Conv(96, (3, 3))],
            "branch_pool": ["maximum"],
        },
        2,
        unpadded=True,
    ),
    Unit("Mixed_6b", factorised_7x7(128)),
    Unit("Mixed_6c", factorised_7x7(160)),
    Unit("Mixed_6d", factorised_7x7(160)),
    Unit("Mixed_6e", factorised_7x7(192)),
    Unit(
        "Mixed_7a",
        {
            "branch3x3": [Conv(192), Conv(320, (3, 3))],
            "branch7x7x3": [Conv(192), Conv(192, (1, 7)), Conv(192, (7, 1)), Conv(192, (3, 3))],
            "branch_pool": ["maximum"],
        },
        2,
        unpadded=True,
    ),
    Unit("Mixed_7b", EXPANDED),
    Unit("Mixed_7c", EXPANDED),
)


class InceptionV3Config(EncoderOptions):
    """See conf/model/encoder/inception_v3.yaml. `width` multiplies every channel count, rounded to multiples of 8;
    `counts_padding`: average pools count the zeros around."""

    name: Literal["inception_v3"]
    padding: Padding = "same"
    counts_padding: bool = True
    width: float = Field(default=1.0, gt=0, le=4)

    def build(self, output_stride: int) -> "InceptionV3":
        check_padding(self.padding, output_stride)
        return InceptionV3(
            output_stride=output_stride, padding=self.padding, width=self.width, counts_padding=self.counts_padding
        )


class InceptionV3(Inception):
    """Gives Conv2d_2b_3x3, Conv2d_4a_3x3 of stride 4, Mixed_5d, Mixed_6e and Mixed_7c.

    Args:
        output_stride: 8, 16 or 32.
        padding: see `Padding`.
        width: multiplies every channel count, rounded to multiples of 8.
        counts_padding: average pools count the zeros around.
    """

    normalization = INCEPTION

    def __init__(
        self,
        *,
        output_stride: int = 16,
        padding: Padding = "same",
        width: float = 1.0,
        counts_padding: bool = True,
    ) -> None:
        style = Style(EPS, width, counts_padding)
        super().__init__(UNITS, output_stride=output_stride, style=style, padding=padding, smallest=SMALLEST)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # slim.variance_scaling_initializer, which makes up for what is cut off
                trunc_normal(module.weight, (1.3 * 2 / module.weight[0].numel()) ** 0.5)
