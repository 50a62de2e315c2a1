"""Gives the convolutions and pools of a network of timm another output stride, with the weights that it has.

The rule is that of `strides_and_rates`: an op whose stride is given up keeps the rate that it has, and what follows it
multiplies its own by that stride. So values stay at every place that the network's own output stride has, but for what
mixes all places, such as squeeze-and-excitation, which sees more of them.
"""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from segapp.models.encoders.pools import AvgPool2d, MaxPool2d

Op = nn.Conv2d | MaxPool2d | AvgPool2d


def fill_places(network: nn.Module) -> list[Op]:
    """Pads the network's convolutions and pools so that each gives ceil(side / stride) places, for any side.

    Odd kernels are padded symmetrically, even ones as they are and, to the right and down, as far as that takes. Those
    that had no padding, or TensorFlow's, thereby get one with which the places of all strides stand over one grid.

    Returns:
        Its convolutions and pools, for `set_output_stride`.
    """
    from timm.layers.conv2d_same import Conv2dSame  # its networks alone come here

    ops: list[Op] = []
    for parent in list(network.modules()):
        for name, op in list(parent.named_children()):
            if isinstance(op, nn.MaxPool2d | nn.AvgPool2d):
                op = _pool(op)
            elif isinstance(op, nn.ConstantPad2d):
                op = nn.Identity()  # what stands behind has padding of its own now
            elif isinstance(op, nn.Conv2d):
                if isinstance(op, Conv2dSame):
                    op = _plain(op)
                elif hasattr(op, "same_pad"):  # those with standardised weights
                    op.same_pad = False  # type: ignore[assignment]
                _pad(op)
            setattr(parent, name, op)
            if isinstance(op, Op) and op not in ops:
                ops.append(op)
    return ops


def set_output_stride(ops: dict[Op, int], output_stride: int) -> None:
    """Gives up the strides beyond `output_stride`.

    Args:
        ops: what `fill_places` returned, with the stride of each one's input in the network as it is.
        output_stride: of the whole.
    """
    for op, stride_before in ops.items():
        own = op.stride[0] if isinstance(op, nn.Conv2d) else op.stride
        before = min(stride_before, output_stride)
        stride, rate = min(stride_before * own, output_stride) // before, stride_before // before
        if isinstance(op, nn.Conv2d):
            op.stride = stride, stride
            op.padding = tuple(int(places) * rate for places in op.padding)
            op.dilation = tuple(own_rate * rate for own_rate in op.dilation)
        else:
            op.stride, op.dilation = stride, rate


def _plain(conv: nn.Conv2d) -> nn.Conv2d:
    """The same, with PyTorch's padding in the place of TensorFlow's."""
    kernel, stride, dilation = conv.kernel_size, conv.stride, conv.dilation
    plain = nn.Conv2d(
        conv.in_channels,
        conv.out_channels,
        (kernel[0], kernel[1]),
        (stride[0], stride[1]),
        dilation=(dilation[0], dilation[1]),
        groups=conv.groups,
        device="meta",
    )
    plain.weight, plain.bias = conv.weight, conv.bias
    return plain


def _pool(pool: nn.MaxPool2d | nn.AvgPool2d) -> MaxPool2d | AvgPool2d:
    kernel, stride, padding = (
        value if isinstance(value, int) else value[0] for value in (pool.kernel_size, pool.stride, pool.padding)
    )
    if isinstance(pool, nn.MaxPool2d):
        return MaxPool2d(kernel, stride)
    return AvgPool2d(kernel, stride, counts_padding=pool.count_include_pad and padding > 0)


def _pad(conv: nn.Conv2d) -> None:
    down, across = conv.kernel_size
    if down % 2 and across % 2:
        conv.padding = (down - 1) // 2 * conv.dilation[0], (across - 1) // 2 * conv.dilation[1]
        return
    before = ((down - 1) // 2, (across - 1) // 2) if isinstance(conv.padding, str) else conv.padding
    conv.padding = 0, 0
    conv.register_forward_pre_hook(partial(_pad_input, before=before))


def _pad_input(conv: nn.Conv2d, inputs: tuple[Tensor], *, before: tuple[int, ...]) -> Tensor:
    amounts: list[int] = []
    for axis in (1, 0):
        rate = conv.dilation[axis]
        amounts += [before[axis] * rate, (conv.kernel_size[axis] - 1 - before[axis]) * rate]
    return F.pad(inputs[0], amounts)
