"""Deformable convolution (arXiv:1703.06211), and its second version, which also weighs each tap (arXiv:1811.11168).

A 3x3 convolution looks at nine places about each of its own; a deformable one learns how far from there, and reads
between the places by bilinear interpolation. It starts as the plain convolution in whose place it stands, with that
one's weight under its name; what it adds is called "offset".
"""

from typing import Literal

import torch
from torch import Tensor, nn

from segapp.base.errors import UserError
from segapp.models.layers import DepthwiseConv2d

Version = Literal["v1", "v2"]
"""v1: taps are moved. v2: they are moved and weighed."""
OFFSET = ".offset."
"""What stands in the name of each tensor that a plain convolution has not."""
PROBE = 64
"""The side of an image by which stages are told."""
SHALLOW = 8
"""A stage of this stride or less is no last one."""


class OffsetConv2d(nn.Conv2d):
    """From what a deformable convolution sees to how far each of its taps is moved: zero everywhere at first."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)  # type: ignore[arg-type]


class DeformableConv2d(nn.Conv2d):
    """A 3x3 convolution whose taps are moved, by pixels of its input, and in the second version weighed.

    The weights of taps are 2 * sigmoid, 1 at first, where the paper's are half of that: so published weights of the
    plain convolution fit. Computed in float32 at least, as torchvision has it.

    Args:
        conv: the plain convolution that it stands for, whose weight it takes over; of any groups.
        version: see `Version`.
    """

    def __init__(self, conv: nn.Conv2d, version: Version) -> None:
        stride, padding, dilation = conv.stride, conv.padding, conv.dilation
        super().__init__(  # its own weight is never allocated
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # type: ignore[arg-type]
            stride,  # type: ignore[arg-type]
            padding,  # type: ignore[arg-type]
            dilation,  # type: ignore[arg-type]
            conv.groups,
            bias=False,
            device="meta",
        )
        self.weight, self.bias = conv.weight, conv.bias
        self.taps = conv.kernel_size[0] * conv.kernel_size[1]
        self.offset = OffsetConv2d(
            conv.in_channels,
            self.taps * (2 if version == "v1" else 3),
            conv.kernel_size,  # type: ignore[arg-type]
            stride,  # type: ignore[arg-type]
            padding,  # type: ignore[arg-type]
            dilation,  # type: ignore[arg-type]
            device=conv.weight.device,
            dtype=conv.weight.dtype,
        )
        _count_flops()

    def forward(self, x: Tensor) -> Tensor:
        from torchvision.ops import deform_conv2d  # a second of import that few need

        moves = self.offset(x)
        wide = torch.promote_types(moves.dtype, torch.float32)
        offset, weights = moves.to(wide).split([2 * self.taps, moves.shape[1] - 2 * self.taps], 1)
        y = deform_conv2d(
            x.to(wide),
            offset,
            self.weight.to(wide),
            None if self.bias is None else self.bias.to(wide),
            self.stride,
            self.padding,
            self.dilation,
            2 * weights.sigmoid() if weights.shape[1] else None,
        )
        return y.to(moves.dtype)  # type: ignore[no-any-return]


def deform_last_stage(encoder: nn.Module, reference: nn.Module, version: Version) -> None:
    """Puts deformable convolutions in the place of the 3x3 ones of the encoder's last stage (arXiv:1703.06211,
    Section 3.2; Table 1: 75.2 mIoU on VOC with three of them, 69.7 without).

    Args:
        encoder: is changed.
        reference: the same network with the strides that are its own, on the meta device, by which stages are told.
        version: see `Version`.

    Raises:
        UserError: it has no such convolutions, or some that are more than a convolution.
    """
    names = last_3x3s(reference)
    if not names:
        raise UserError("model.deformable: this encoder has no last stage of 3x3 convolutions; set it to null")
    for name in names:
        replace(encoder, name, version)


def last_3x3s(encoder: nn.Module) -> list[str]:
    """The names of the 3x3 convolutions that give the deepest of the strides at which there are some."""
    sides: dict[str, int] = {}
    handles = []
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):

            def note(_: nn.Module, inputs: object, output: Tensor, name: str = name) -> None:
                sides[name] = output.shape[-1]

            handles.append(module.register_forward_hook(note))
    device, training = next(encoder.parameters()).device, encoder.training
    with torch.no_grad():
        encoder.eval()(torch.zeros(1, 3, PROBE, PROBE, device=device))
    encoder.train(training)
    for handle in handles:
        handle.remove()
    least = min(sides.values(), default=PROBE)
    return [name for name, side in sides.items() if side == least < PROBE // SHALLOW]


def replace(network: nn.Module, name: str, version: Version) -> None:
    """Puts a deformable convolution in the place of that of this name.

    Raises:
        UserError: it is more than a convolution, such as one that standardises its weight.
    """
    conv = network.get_submodule(name)
    assert isinstance(conv, nn.Conv2d)
    is_plain = type(conv).forward in (nn.Conv2d.forward, DepthwiseConv2d.forward)
    if not is_plain or conv._forward_pre_hooks or conv.padding_mode != "zeros" or isinstance(conv.padding, str):
        kind = type(conv).__name__
        raise UserError(f"model.deformable: {name} of this encoder is a {kind}, in whose place none can stand")
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, DeformableConv2d(conv, version))


def _count_flops() -> None:
    """Tells `segapp.models.flops` of the operator, of which PyTorch's counter knows nothing."""
    import torchvision.ops  # noqa: F401  registers it
    from torch.utils.flop_counter import flop_registry, register_flop_formula  # a tenth of all imports

    operator = torch.ops.torchvision.deform_conv2d
    if operator not in flop_registry:

        @register_flop_formula(operator)
        def flops(_x: torch.Size, weight: torch.Size, *_: object, out_shape: torch.Size, **__: object) -> int:
            return 2 * out_shape.numel() * weight[1:].numel()
