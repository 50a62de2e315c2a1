"""Atrous spatial pyramid pooling and the decoder (arXiv:1802.02611, Fig. 2), and the dense prediction cell."""

import torch
from torch import Tensor, nn

from segapp.base.errors import UserError
from segapp.models.deformable import Version, replace
from segapp.models.layers import ConvBN, SeparableConv, init_head, resize

EPS = 1.001e-5
"""The released code asks for 1e-5, which TensorFlow's fused batch norm raises to cuDNN's least (nn_impl.py)."""

ATROUS_RATES = {32: (3, 6, 9), 16: (6, 12, 18), 8: (12, 24, 36)}
"""Output stride to the rates of the three atrous branches."""

CELL = ((-1, (1, 6)), (0, (18, 15)), (1, (6, 3)), (0, (1, 1)), (0, (6, 21)))
"""The published cell's branches: which one's output each takes, -1 for the encoder's feature, and its rates of rows
and columns at output stride 16 (research/deeplab/core/dense_prediction_cell_branch5_top1_cityscapes.json)."""


def conv3x3(in_channels: int, out_channels: int, *, separable: bool, dilation: int = 1) -> SeparableConv | ConvBN:
    if separable:
        return SeparableConv(in_channels, out_channels, eps=EPS, dilation=dilation)
    return ConvBN(in_channels, out_channels, 3, eps=EPS, dilation=dilation)


class ASPP(nn.Module):
    """Image pooling, 1x1 and three atrous 3x3 branches, concatenated in this order and projected.

    Without the atrous ones it is what Google's small networks have.

    Args:
        in_channels: of the encoder's feature.
        channels: of every branch and of the output.
        output_stride: at which the encoder runs; sets the rates.
        separable: atrous separable convs; dense ones otherwise.
        image_pooling: leave out for Cityscapes, as the paper does.
        atrous: with the atrous branches.
        dropout: after the projection.
        deformable: of the atrous branches' 3x3 convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int = 256,
        *,
        output_stride: int = 16,
        separable: bool = True,
        image_pooling: bool = True,
        atrous: bool = True,
        dropout: float = 0.1,
        deformable: Version | None = None,
    ) -> None:
        super().__init__()
        self.image_pooling: ConvBN | None = None
        if image_pooling:
            self.image_pooling = ConvBN(in_channels, channels, eps=EPS)
        self.branches = nn.ModuleList([ConvBN(in_channels, channels, eps=EPS)])
        for rate in ATROUS_RATES[output_stride] if atrous else ():
            self.branches.append(conv3x3(in_channels, channels, separable=separable, dilation=rate))
        joined = channels * (len(self.branches) + image_pooling)
        self.projection = ConvBN(joined, channels, eps=EPS)
        self.dropout = nn.Dropout(dropout)
        init_head(self.modules())
        if deformable is not None:
            for name, module in list(self.named_modules()):
                if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
                    replace(self, name, deformable)

    def forward(self, x: Tensor) -> Tensor:
        branches = [branch(x) for branch in self.branches]
        if self.image_pooling is not None:
            pooled = self.image_pooling(x.mean((2, 3), keepdim=True))
            branches.insert(0, pooled.expand_as(branches[0]))  # bilinear from 1x1
        return self.dropout(self.projection(torch.cat(branches, 1)))  # type: ignore[no-any-return]


class DensePredictionCell(nn.Module):
    """The published dense prediction cell (arXiv:1809.04184, Fig. 5): atrous separable convs, some behind others.

    All of them are concatenated, dropped out and projected (research/deeplab/core/dense_prediction_cell.py).

    Args:
        in_channels: of the encoder's feature.
        channels: of every branch and of the output.
        output_stride: 16, or 8, at which the rates are twice those of `CELL`.
        dropout: before the projection.
    """

    def __init__(self, in_channels: int, channels: int = 256, *, output_stride: int, dropout: float = 0.1) -> None:
        super().__init__()
        scale = 16 // output_stride
        self.branches = nn.ModuleList()
        for source, (down, across) in CELL:
            rates = (down * scale, across * scale)
            self.branches.append(
                SeparableConv(in_channels if source < 0 else channels, channels, eps=EPS, dilation=rates)
            )
        self.dropout = nn.Dropout(dropout)
        self.projection = ConvBN(channels * len(CELL), channels, eps=EPS)
        init_head(self.modules())

    def forward(self, x: Tensor) -> Tensor:
        outputs: list[Tensor] = []
        for branch, (source, _) in zip(self.branches, CELL, strict=True):
            outputs.append(branch(x if source < 0 else outputs[source]))
        return self.projection(self.dropout(torch.cat(outputs, 1)))  # type: ignore[no-any-return]


class Decoder(nn.Module):
    """Joins the ASPP's output with the low-level feature, reduced by a 1x1 conv, at the latter's size."""

    def __init__(
        self,
        in_channels: int,
        low_level_in_channels: int,
        channels: int = 256,
        *,
        low_level_channels: int = 48,
        separable: bool = True,
    ) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.reduce = ConvBN(low_level_in_channels, low_level_channels, eps=EPS)
        self.conv0 = conv3x3(in_channels + low_level_channels, channels, separable=separable)
        self.conv1 = conv3x3(channels, channels, separable=separable)
        init_head(self.modules())

    @torch.no_grad()
    def start_as_identity(self) -> None:
        """Has it give the ASPP's output as it is, at the low-level feature's size, by its running statistics: a
        network that had no decoder computes what it did, and learns from there (arXiv:1511.05641, function-preserving
        initialisation). The ReLUs let that pass, which has been through one.

        Raises:
            UserError: it has other channels than the ASPP.
        """
        if self.conv0.out_channels != self.in_channels:
            raise UserError(
                f"model.decoder.channels={self.conv0.out_channels}: what the checkpoint, which has no decoder, "
                f"computes is kept by one of model.aspp.channels={self.in_channels}"
            )
        for conv in (self.conv0, self.conv1):
            conv.start_as_identity()
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d) and module.running_var is not None:
                module.running_var.fill_(1 - module.eps)

    def forward(self, x: Tensor, low_level: Tensor) -> Tensor:
        low_level = self.reduce(low_level)
        x = resize(x, (low_level.shape[2], low_level.shape[3]))
        return self.conv1(self.conv0(torch.cat([x, low_level], 1)))  # type: ignore[no-any-return]
