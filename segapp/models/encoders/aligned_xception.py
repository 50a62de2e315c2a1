"""The modified aligned Xception 41, 65 and 71 (arXiv:1802.02611, Fig. 4; 71: research/deeplab/core/xception.py).

Parameter names are timm's.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from segapp.models.layers import Conv2d, ConvBN, SeparableConv, trunc_normal

EPS = 1e-3


@dataclass(frozen=True)
class Unit:
    """One module: three separable convs (the last with the stride) and a skip."""

    channels: tuple[int, int, int]
    stride: int
    skip: Literal["conv", "sum", "none"]
    relu_inside: bool = False


@dataclass(frozen=True)
class Blocks:
    """`low_level`: index of the unit in which the stride-4 feature is tapped."""

    units: tuple[Unit, ...]
    low_level: int


ENTRY_65 = (
    Unit((128, 128, 128), 2, "conv"),
    Unit((256, 256, 256), 2, "conv"),
    Unit((728, 728, 728), 2, "conv"),
)
ENTRY_71 = (
    Unit((128, 128, 128), 2, "conv"),
    Unit((256, 256, 256), 1, "conv"),
    Unit((256, 256, 256), 2, "conv"),
    Unit((728, 728, 728), 1, "conv"),
    Unit((728, 728, 728), 2, "conv"),
)
MIDDLE = Unit((728, 728, 728), 1, "sum")
EXIT = (
    Unit((728, 1024, 1024), 2, "conv"),
    Unit((1536, 1536, 2048), 1, "none", relu_inside=True),
)

XCEPTIONS = {
    "xception41": Blocks((*ENTRY_65, *[MIDDLE] * 8, *EXIT), low_level=1),
    "xception65": Blocks((*ENTRY_65, *[MIDDLE] * 16, *EXIT), low_level=1),
    "xception71": Blocks((*ENTRY_71, *[MIDDLE] * 16, *EXIT), low_level=2),
}


def strides_and_rates(units: tuple[Unit, ...], output_stride: int) -> Iterator[tuple[int, int]]:
    """Each unit's (stride, atrous rate) after a stem of stride 2.

    A unit met once the output stride is reached keeps its resolution, runs at the current rate, and only then
    multiplies the rate by the stride it gave up.
    """
    current, rate = 2, 1
    for unit in units:
        if current == output_stride:
            yield 1, rate
            rate *= unit.stride
        else:
            yield unit.stride, 1
            current *= unit.stride


class XceptionModule(nn.Module):
    def __init__(self, in_channels: int, unit: Unit, stride: int, rate: int, momentum: float) -> None:
        super().__init__()
        self.stack = nn.ModuleDict()
        channels = in_channels
        for i, out_channels in enumerate(unit.channels, start=1):
            self.stack[f"conv{i}"] = SeparableConv(
                channels,
                out_channels,
                eps=EPS,
                momentum=momentum,
                stride=stride if i == 3 else 1,
                dilation=rate,
                relu=unit.relu_inside,
            )
            channels = out_channels
        # Never in place: the raw input feeds the skip, and conv2's raw output may be the low-level feature.
        self.act = nn.Identity() if unit.relu_inside else nn.ReLU()
        self.skip = unit.skip
        if unit.skip == "conv":
            self.shortcut = ConvBN(in_channels, channels, eps=EPS, momentum=momentum, stride=stride, relu=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the module's output and that of its second separable conv, before any ReLU."""
        y = self.stack["conv1"](self.act(x))
        tap = self.stack["conv2"](self.act(y))
        y = self.stack["conv3"](self.act(tap))
        if self.skip == "conv":
            y = y + self.shortcut(x)
        elif self.skip == "sum":
            y = y + x
        return y, tap


class AlignedXception(nn.Module):
    """N x 3 x H x W in [-1, 1] to (stride-4 low-level feature, feature at the output stride).

    Args:
        blocks: a block table, as in `XCEPTIONS`.
        output_stride: 8, 16 or 32; the weights do not depend on it.
        width: multiplies every channel count, rounded to multiples of 8.
        momentum: PyTorch's BN momentum, 1 - TensorFlow's decay.
        activation_checkpointing: recompute each module in the backward pass, for memory.
    """

    def __init__(
        self,
        blocks: Blocks,
        *,
        output_stride: int = 16,
        width: float = 1.0,
        momentum: float = 3e-4,
        activation_checkpointing: bool = False,
    ) -> None:
        super().__init__()

        def wide(channels: int) -> int:
            return max(8, round(channels * width / 8) * 8)

        stem = wide(32), wide(64)
        self.stem = nn.Sequential(
            ConvBN(3, stem[0], 3, stride=2, eps=EPS, momentum=momentum),
            ConvBN(stem[0], stem[1], 3, eps=EPS, momentum=momentum),
        )
        self.blocks = nn.ModuleList()
        channels = stem[1]
        for unit, (stride, rate) in zip(blocks.units, strides_and_rates(blocks.units, output_stride), strict=True):
            first, second, third = unit.channels
            unit = Unit((wide(first), wide(second), wide(third)), unit.stride, unit.skip, unit.relu_inside)
            self.blocks.append(XceptionModule(channels, unit, stride, rate, momentum))
            channels = unit.channels[2]
        self.low_level = blocks.low_level
        self.low_level_channels = wide(blocks.units[blocks.low_level].channels[1])
        self.out_channels = channels
        self.activation_checkpointing = activation_checkpointing
        for module in self.modules():
            if isinstance(module, Conv2d):
                trunc_normal(module.weight, 0.09)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        for i, block in enumerate(self.blocks):
            if not (self.activation_checkpointing and self.training):
                x, tap = block(x)
            elif torch.compiler.is_compiling():  # counts a batch once by itself, and knows no such contexts
                x, tap = checkpoint(block, x, use_reentrant=False)
            else:
                contexts = partial(_recompute_contexts, block)
                x, tap = checkpoint(block, x, use_reentrant=False, context_fn=contexts)
            if i == self.low_level:
                low_level = tap
        return low_level, x


def _recompute_contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _still(block)


@contextmanager
def _still(block: nn.Module) -> Iterator[None]:
    """Keeps the recomputation of a checkpointed block from counting its batch into the BN statistics twice."""
    norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d | nn.SyncBatchNorm)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, (_, tracked) in zip(norms, before, strict=True):
        norm.momentum, norm.num_batches_tracked = 0.0, None if tracked is None else tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked
