"""Pools that follow an output stride as convolutions do: N x C x H x W to ceil(H / stride) x ceil(W / stride) places.

PyTorch's own cannot: its max pool refuses the padding that an atrous one needs, and its average pool knows no rate. A
window of k reaches (k - 1) // 2 places to the left and up, the others to the right and down.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Pool(nn.Module):
    def __init__(self, kernel: int, stride: int, dilation: int = 1) -> None:
        super().__init__()
        self.kernel, self.stride, self.dilation = kernel, stride, dilation

    def extra_repr(self) -> str:
        return f"{self.kernel}, stride={self.stride}, dilation={self.dilation}"

    def padded(self, x: Tensor, value: float) -> Tensor:
        before, after = ((self.kernel - 1) // 2 * self.dilation, self.kernel // 2 * self.dilation)
        return F.pad(x, (before, after, before, after), value=value)


class MaxPool2d(_Pool):
    """The largest value of those of the window that lie inside."""

    def forward(self, x: Tensor) -> Tensor:
        if self.dilation == 1 and self.kernel % 2:  # keeps no padded copy for the backward pass
            return F.max_pool2d(x, self.kernel, self.stride, self.kernel // 2)
        return F.max_pool2d(self.padded(x, -torch.inf), self.kernel, self.stride, dilation=self.dilation)


class TensorFlowMaxPool2d(MaxPool2d):
    """With TensorFlow's "SAME" padding: where an odd number of places is missing, one more after than before."""

    def forward(self, x: Tensor) -> Tensor:
        amounts: list[int] = []
        for side in (x.shape[3], x.shape[2]):
            missing = max((-(-side // self.stride) - 1) * self.stride + self.kernel - side, 0)
            amounts += [missing // 2, missing - missing // 2]
        return F.max_pool2d(F.pad(x, amounts, value=-torch.inf), self.kernel, self.stride)


class AvgPool2d(_Pool):
    """The mean over the window.

    Args:
        kernel: its side.
        stride: of its places.
        dilation: its atrous rate.
        counts_padding: places outside count as zeros; otherwise the mean is of those inside.
    """

    def __init__(self, kernel: int, stride: int, dilation: int = 1, *, counts_padding: bool) -> None:
        super().__init__(kernel, stride, dilation)
        self.counts_padding = counts_padding

    def forward(self, x: Tensor) -> Tensor:
        sums = self._sums(x)
        return sums / (self.kernel**2 if self.counts_padding else self._sums(torch.ones_like(x[:1, :1])))

    def _sums(self, x: Tensor) -> Tensor:
        x = self.padded(x, 0.0)
        if self.dilation == 1:
            return F.avg_pool2d(x, self.kernel, self.stride, divisor_override=1)
        ones = x.new_ones(x.shape[1], 1, self.kernel, self.kernel)
        return F.conv2d(x, ones, None, self.stride, 0, self.dilation, x.shape[1])
