"""Networks published without some of their padding, and the padding that a decoder needs."""

from typing import Literal

from torch import Tensor

from segapp.base.errors import UserError

Padding = Literal["same", "valid"]
"""Same: features of stride s have ceil(side / s) places, over one grid of pixels. Valid: fewer, as published: such a
network serves a classifier, which takes their mean, and no decoder."""


def check_padding(padding: str, output_stride: int) -> None:
    """Raises:
    UserError: without its padding the network is asked for another output stride than a classifier's, 32.
    """
    if padding != "same" and output_stride != 32:
        raise UserError(f"padding={padding} is for a classifier; output stride {output_stride} needs padding=same")


def check_size(images: Tensor, smallest: int) -> None:
    """Raises:
    UserError: a side has fewer pixels than `smallest`; 1 allows any, without a look at them.
    """
    if smallest > 1 and min(images.shape[2:]) < smallest:
        height, width = images.shape[2:]
        raise UserError(f"an image is {width} x {height}; with padding=valid it has {smallest} pixels or more a side")
