"""Convolutions of the encoder and the head. Tensors are N x C x H x W."""

import logging
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

log = logging.getLogger(__name__)

CACHED_CHANNELS = 128
"""Channels of a depthwise conv with a high rate that a CPU computes at once: padded, they stay in its cache."""


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear with align_corners=True, as every resize of the paper's code; sizes are k * output_stride + 1."""
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def trunc_normal(weight: Tensor, std: float) -> None:
    """TensorFlow's truncated normal: cut at two standard deviations."""
    nn.init.trunc_normal_(weight, std=std, a=-2 * std, b=2 * std)


def scaled(channels: int, width: float, multiple: int = 8) -> int:
    """`width` times the channels, as the nearest multiple, and never none."""
    return max(multiple, round(channels * width / multiple) * multiple)


class Conv2d(nn.Conv2d):
    """Square kernel, symmetric padding of dilation * (k - 1) / 2, no bias."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        stride: int = 1,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
    ) -> None:
        rates = (dilation, dilation) if isinstance(dilation, int) else dilation
        padding = rates[0] * (kernel - 1) // 2, rates[1] * (kernel - 1) // 2
        super().__init__(in_channels, out_channels, kernel, stride, padding, rates, groups, bias=False)


class DepthwiseConv2d(Conv2d):
    """3x3, one filter a channel. `dilation`: one for both axes, or the rows' and the columns'.

    Attributes:
        in_parts: whether one of high rates goes by CACHED_CHANNELS at a time, in evaluation on a CPU: faster by far.
    """

    in_parts = False

    def __init__(self, channels: int, stride: int = 1, dilation: int | tuple[int, int] = 1) -> None:
        super().__init__(channels, channels, 3, stride, dilation, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        # oneDNN leaves its fast path when a depthwise conv pads much: padded first it is several times faster, and the
        # same but for rounding. Not its backward pass, which only gets slower.
        if max(self.dilation) < 12 or x.device.type != "cpu" or self.training:
            return super().forward(x)
        if not self.in_parts or torch.compiler.is_compiling():
            return self._padded_first(x, self.weight, self.bias)
        # Taps as far away as the image is long see zeros alone.
        rows, columns = (
            slice(1, 2) if rate >= side else slice(3) for rate, side in zip(self.dilation, x.shape[2:], strict=True)
        )
        weights = torch.split(self.weight[:, :, rows, columns], CACHED_CHANNELS)
        biases = [None] * len(weights) if self.bias is None else torch.split(self.bias, CACHED_CHANNELS)
        parts = zip(torch.split(x, CACHED_CHANNELS, 1), weights, biases, strict=True)
        return torch.cat([self._padded_first(*part) for part in parts], 1)

    def _padded_first(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        down, across = (rate * (taps // 2) for rate, taps in zip(self.dilation, weight.shape[2:], strict=True))
        padded = F.pad(x, (across, across, down, down))
        return F.conv2d(padded, weight, bias, self.stride, 0, self.dilation, weight.shape[0])


def is_depthwise(module: nn.Module) -> bool:
    """Whether it is a convolution of one filter or several a channel, whoever's class it is."""
    return isinstance(module, nn.Conv2d) and module.groups == module.in_channels > 1


class BatchNorm2d(nn.BatchNorm2d):
    """One value a channel has no variance: it is normalised by the running statistics, logged once.

    So a batch of one image trains, with the image pooling's 1 x 1 map.
    """

    _told = False

    def forward(self, x: Tensor) -> Tensor:
        if self.training and x.numel() == x.shape[1]:
            if not BatchNorm2d._told:
                BatchNorm2d._told = True
                log.warning("a batch of one image: a BN with one value a channel uses its running statistics")
            return F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps)
        return super().forward(x)


class ConvBN(nn.Module):
    """Conv, BN and, if asked, ReLU."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int = 1,
        *,
        eps: float,
        stride: int = 1,
        dilation: int = 1,
        groups: int = 1,
        relu: bool = True,
    ) -> None:
        super().__init__()
        self.conv = Conv2d(in_channels, out_channels, kernel, stride, dilation, groups)
        self.bn = BatchNorm2d(out_channels, eps)
        self.act = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))  # type: ignore[no-any-return]

    @property
    def out_channels(self) -> int:
        return self.conv.out_channels

    def start_as_identity(self) -> None:
        """Each output is the input of its number, but for BN and ReLU."""
        nn.init.dirac_(self.conv.weight)


class SeparableConv(nn.Module):
    """Depthwise 3x3, BN, [ReLU], pointwise 1x1, BN, [ReLU]."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        eps: float,
        stride: int = 1,
        dilation: int | tuple[int, int] = 1,
        relu: bool = True,
    ) -> None:
        super().__init__()
        self.conv_dw = DepthwiseConv2d(in_channels, stride, dilation)
        self.bn_dw = BatchNorm2d(in_channels, eps)
        self.conv_pw = Conv2d(in_channels, out_channels)
        self.bn_pw = BatchNorm2d(out_channels, eps)
        self.act = nn.ReLU() if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.bn_dw(self.conv_dw(x)))
        return self.act(self.bn_pw(self.conv_pw(x)))  # type: ignore[no-any-return]

    @property
    def out_channels(self) -> int:
        return self.conv_pw.out_channels

    def start_as_identity(self) -> None:
        """Each output is the input of its number, but for BN and ReLU."""
        nn.init.dirac_(self.conv_dw.weight, groups=self.conv_dw.groups)
        nn.init.dirac_(self.conv_pw.weight)


def init_head(modules: Iterable[nn.Module]) -> None:
    """The released code's initial values: depthwise std 0.33, pointwise std 0.06, other convs Glorot uniform."""
    for module in modules:
        if isinstance(module, SeparableConv):
            trunc_normal(module.conv_dw.weight, 0.33)
            trunc_normal(module.conv_pw.weight, 0.06)
        elif isinstance(module, ConvBN):
            nn.init.xavier_uniform_(module.conv.weight)
