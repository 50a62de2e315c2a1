"""The ten ideas of docs/ideas.md: for each the arithmetic and what it does, on the block that is used here."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segapp.models.deformable import DeformableConv2d
from segapp.models.encoders import googlenet, inception_v3
from segapp.models.encoders.alexnet import LAYERS, AlexNet
from segapp.models.encoders.inception import Conv, Style, built
from segapp.models.encoders.shufflenet import ShuffleUnit
from segapp.models.encoders.timm import TimmConfig
from segapp.models.encoders.xception import Unit, XceptionUnit
from segapp.models.layers import Conv2d, DepthwiseConv2d, SeparableConv
from tests.models.exactness import assert_exact
from tests.models.test_encoders import config

STYLE = Style(eps=1e-3, width=1.0)


def weights(module: nn.Module) -> int:
    """Of its convolutions and fully connected layers, without biases."""
    return sum(each.weight.numel() for each in module.modules() if isinstance(each, nn.Conv2d | nn.Linear))


def positive(module: nn.Module) -> nn.Module:
    """With weights that let no effect vanish."""
    for each in module.modules():
        if isinstance(each, nn.Conv2d):
            nn.init.uniform_(each.weight, 0.5, 1)
    return module.double().eval()


def support(run: Callable[[Tensor], Tensor], channels: int, side: int = 15) -> tuple[int, int]:
    """Rows and columns of the input on which the place in the middle depends."""
    x = torch.rand(1, channels, side, side, dtype=torch.float64, requires_grad=True)
    torch.autograd.backward(run(x)[0, :, side // 2, side // 2].sum())
    assert x.grad is not None
    seen = x.grad[0].abs().sum(0) > 0
    return int(seen.any(1).sum()), int(seen.any(0).sum())


def jacobian(run: Callable[[Tensor], Tensor], channels: int) -> Tensor:
    """Which outputs, by channel, depend on which inputs: outputs x inputs."""
    x = torch.rand(1, channels, 3, 3, dtype=torch.float64)
    full = torch.autograd.functional.jacobian(run, x)  # type: ignore[no-untyped-call]
    return full[0, :, 1, 1, 0].abs().sum((2, 3)) > 0  # type: ignore[no-any-return]


@pytest.mark.parametrize(("groups", "count"), [(1, 589_824), (2, 294_912), (32, 18_432)])
def test_group_convolution_keeps_groups_apart(groups: int, count: int) -> None:
    conv = positive(Conv2d(256, 256, 3, groups=groups))
    assert weights(conv) == count
    share = 256 // groups
    x = torch.rand(1, 256, 5, 5, dtype=torch.float64)
    less = x.clone()
    less[:, :share] = 0
    changed = (conv(x) != conv(less)).flatten(2).any(2)[0]
    assert changed[:share].all()
    assert not changed[share:].any()


def test_alexnets_groups_save_what_they_should() -> None:
    """60,965,224 parameters in place of 62,378,344."""
    blocks = AlexNet(output_stride=32).blocks
    grouped = sum(weights(block) * (layer.groups - 1) for layer, block in zip(LAYERS, blocks, strict=True))
    assert grouped == 62_378_344 - 60_965_224


@pytest.mark.parametrize(
    ("number", "kernel", "few", "many"), [(2, 5, 1_179_648, 1_638_400), (3, 7, 1_769_472, 3_211_264)]
)
def test_small_kernels_see_as_far_with_less(number: int, kernel: int, few: int, many: int) -> None:
    small = positive(nn.Sequential(*[Conv2d(256, 256, 3) for _ in range(number)]))
    large = positive(Conv2d(256, 256, kernel))
    assert (weights(small), weights(large)) == (few, many)
    assert support(small, 256) == support(large, 256) == (kernel, kernel)


def test_kernels_of_several_sizes_stand_side_by_side() -> None:
    """GoogLeNet's inception 3a: 64 + 128 + 32 + 32 channels of windows of 1, 3, 5 and 3."""
    unit = next(unit for unit in googlenet.UNITS if not isinstance(unit.step, Conv | str))
    block, channels = built(unit.step, 192, STYLE, stride=1, rate=1)
    positive(block)
    assert channels == 256
    x = torch.rand(1, 192, 15, 15, dtype=torch.float64)
    outputs = [branch(x) for branch in block.values()]  # type: ignore[operator]
    assert [output.shape[1] for output in outputs] == [64, 128, 32, 32]
    assert torch.equal(block(x), torch.cat(outputs, 1))
    sizes = [support(branch, 192) for branch in [*block.values()][:3]]  # type: ignore[operator]
    assert sizes == [(1, 1), (3, 3), (5, 5)]


def test_factors_of_a_kernel_see_as_far_with_two_sevenths() -> None:
    steps: Any = inception_v3.factorised_7x7(192)["branch7x7"]  # type: ignore[index,call-overload]
    assert [step.kernel for step in steps] == [(1, 1), (1, 7), (7, 1)]
    layers = [built(step, 192, STYLE, stride=1, rate=1)[0] for step in steps[1:]]
    factors = positive(nn.Sequential(*layers))
    assert weights(factors) == 516_096
    assert 7 * weights(factors) == 2 * 1_806_336
    assert support(factors, 192) == (7, 7)


def test_a_bottleneck_costs_an_eighth() -> None:
    with torch.device("meta"):
        encoder: Any = TimmConfig(name="timm", model="resnet50").build(32)
    block = encoder.network.layer1[1]
    assert [conv.kernel_size[0] for conv in (block.conv1, block.conv2, block.conv3)] == [1, 3, 1]
    assert weights(block) == 256 * 64 + 64 * 9 * 64 + 64 * 256 == 69_632
    assert weights(Conv2d(256, 256, 3)) == 589_824


def test_a_residual_module_is_the_identity_where_its_convs_are_silent() -> None:
    module = XceptionUnit(16, Unit((16, 16, 16)), 1, 1, "none", "same").eval()
    last: Any = module.convs[-1]
    nn.init.zeros_(last.bn.weight)
    x = torch.randn(1, 16, 5, 5, requires_grad=True)
    assert torch.equal(module(x), x)
    module(x).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))  # type: ignore[arg-type]


def test_a_separable_convolution_costs_a_ninth() -> None:
    module = SeparableConv(256, 256, eps=1e-3)
    assert (weights(module.conv_dw), weights(module.conv_pw)) == (2_304, 65_536)
    assert weights(module) == 67_840
    assert torch.equal(jacobian(positive(DepthwiseConv2d(6)), 6), torch.eye(6, dtype=torch.bool))


def test_shuffled_channels_reach_every_group() -> None:
    unit = ShuffleUnit(12, 12, groups=3, first_groups=3, shuffle=True, pools=False, stride=1, rate=1)
    shuffle = unit.shuffle
    order = shuffle(torch.arange(12.0).view(1, 12, 1, 1)).flatten().tolist()
    assert order == [0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11]
    back = nn.ChannelShuffle(4)(shuffle(torch.arange(12.0).view(1, 12, 1, 1))).flatten()
    assert torch.equal(back, torch.arange(12.0))
    first, second = (positive(Conv2d(12, 12, groups=3)) for _ in range(2))
    group = torch.arange(12) // 4
    mixed = jacobian(lambda x: second(shuffle(first(x))), 12)
    apart = jacobian(lambda x: second(first(x)), 12)
    assert all(mixed[:, group == each].any(1).all() for each in range(3))
    assert torch.equal(apart, group[:, None] == group)


@torch.inference_mode()
def test_channels_are_weighed_alike_at_all_places() -> None:
    with torch.device("meta"):
        counts = [
            sum(parameter.numel() for parameter in TimmConfig(name="timm", model=model).build(32).parameters())
            for model in ("seresnet50", "resnet50")
        ]
    assert counts[0] - counts[1] == 2_530_992
    encoder: Any = TimmConfig(name="timm", model="seresnet50").build(32)
    gate = encoder.network.layer1[0].se
    assert weights(gate) == 8_192
    assert sum(parameter.numel() for parameter in gate.parameters()) - weights(gate) == 272
    x = torch.rand(1, 256, 5, 5) + 0.1
    share = gate(x) / x
    assert torch.allclose(share, share[..., :1, :1].expand_as(share), atol=1e-6)
    assert 0 < share.min() <= share.max() < 1


@pytest.mark.parametrize("rate", [1, 2, 4])
def test_dilation_sees_further_with_the_same_weights(rate: int) -> None:
    conv = positive(Conv2d(4, 4, 3, dilation=rate))
    assert weights(conv) == 4 * 4 * 9
    x = torch.rand(1, 4, 15, 15, dtype=torch.float64, requires_grad=True)
    conv(x)[0, :, 7, 7].sum().backward()
    rows = x.grad[0].abs().sum((0, 2)).nonzero().flatten()  # type: ignore[index]
    assert rows[-1] - rows[0] + 1 == 2 * rate + 1
    assert len(rows) == 3


def test_dilation_makes_up_for_strides() -> None:
    assert_exact(config("xception").build, sides=(129,))


@torch.inference_mode()
def test_a_deformable_convolution_moves_its_taps() -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 4, 3, padding=1, bias=False).double()
    conv = DeformableConv2d(plain, "v2")
    x = torch.randn(1, 4, 9, 9, dtype=torch.float64)
    assert torch.equal(conv(x), plain(x)), "nothing is moved at first"
    bias = conv.offset.bias
    assert bias is not None
    bias[:18:2] = 1  # each tap a row down
    shifted = F.pad(x, (0, 0, 0, 1))[:, :, 1:]
    assert torch.allclose(conv(x)[:, :, 1:-1], plain(shifted)[:, :, 1:-1], atol=1e-12)
    nn.init.zeros_(bias)
    bias[18:] = torch.tensor(0.25).logit()  # weights of 2 * 0.25
    assert torch.allclose(conv(x), plain(x) / 2, atol=1e-6)
