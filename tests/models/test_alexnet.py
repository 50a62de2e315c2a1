"""AlexNet against one that is written out, and its published number of parameters."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segapp.models.encoders.alexnet import AlexNet, AlexNetConfig
from segapp.models.encoders.interface import IMAGENET
from segapp.weights.sources.timm_names import timm_name
from tests.models.exactness import assert_exact
from tests.networks import randomise


def conv(x: Tensor, state: dict[str, Tensor], at: int, *, stride: int = 1, groups: int = 1) -> Tensor:
    """Each group's channels by themselves, then ReLU."""
    weight, bias = state[f"blocks.{at}.conv.weight"], state[f"blocks.{at}.conv.bias"]
    padding = weight.shape[-1] // 2
    parts = zip(x.chunk(groups, 1), weight.chunk(groups), bias.chunk(groups), strict=True)
    return torch.cat([F.conv2d(*part, stride=stride, padding=padding) for part in parts], 1).relu()


def normalized(x: Tensor) -> Tensor:
    """Section 3.3: over 5 channels of each place, k = 2, alpha = 1e-4, beta = 0.75."""
    channels = x.shape[1]
    sums = [x[:, max(0, at - 2) : min(channels, at + 3)].square().sum(1) for at in range(channels)]
    return x / (2 + 1e-4 * torch.stack(sums, 1)) ** 0.75


def pool(x: Tensor) -> Tensor:
    """Windows of 3, every second place."""
    n, c, height, width = x.shape
    windows = F.unfold(F.pad(x, (1, 1, 1, 1), value=-1.0), 3, stride=2)  # ReLU leaves nothing below 0
    return windows.view(n, c, 9, (height + 1) // 2, (width + 1) // 2).amax(2)


@torch.inference_mode()
def test_features_are_those_written_out() -> None:
    ours = AlexNet(output_stride=32).double().eval()
    randomise(ours)
    state = ours.state_dict()
    images = (torch.rand(1, 3, 90, 75, generator=torch.Generator().manual_seed(1), dtype=torch.float64) - 0.5) * 255
    first = conv(images, state, 0, stride=4)
    second = conv(pool(normalized(first)), state, 1, groups=2)
    third = conv(pool(normalized(second)), state, 2)
    fifth = conv(conv(third, state, 3, groups=2), state, 4, groups=2)
    for output, wanted in zip(ours(images), (first, second, fifth, pool(fifth)), strict=True):
        assert output.shape == wanted.shape
        assert torch.allclose(output, wanted, rtol=1e-12)


def test_sizes_are_the_published_ones() -> None:
    """With the three fully connected layers, which 6 x 6 places enter (Figure 2)."""
    with torch.device("meta"):
        encoder = AlexNet()
    convolutional = sum(parameter.numel() for parameter in encoder.parameters())
    connected = sum(inputs * outputs + outputs for inputs, outputs in ((9216, 4096), (4096, 4096), (4096, 1000)))
    assert convolutional + connected == 60_965_224
    assert [feature.channels for feature in encoder.features] == [96, 256, 256, 256]


def test_strides_given_up_change_no_value() -> None:
    assert_exact(AlexNetConfig(name="alexnet", width=0.25).build)


@pytest.mark.parametrize(("at", "alone"), [(1, True), (2, False), (3, True), (4, True)])
def test_two_groups_know_each_other_in_the_third_conv_alone(at: int, alone: bool) -> None:
    layer = AlexNet(width=0.25).blocks[at].get_submodule("conv")
    assert isinstance(layer, nn.Conv2d)
    randomise(layer)
    x = torch.rand(1, layer.in_channels, 9, 9, requires_grad=True)
    layer(x)[:, : layer.out_channels // 2].square().sum().backward()
    assert x.grad is not None
    near, far = x.grad.chunk(2, 1)
    assert near.any()
    assert bool(far.any()) is not alone


def test_initial_values() -> None:
    """Section 5: Gaussian weights of standard deviation 0.01; biases 1 in the second, fourth and fifth conv."""
    encoder = AlexNet()
    for at, bias in enumerate((0, 1, 0, 1, 1)):
        assert encoder.get_parameter(f"blocks.{at}.conv.weight").std().item() == pytest.approx(0.01, rel=0.05)
        assert (encoder.get_parameter(f"blocks.{at}.conv.bias") == bias).all()


@torch.inference_mode()
def test_half_precision_holds_squares_of_pixels() -> None:
    """255 squared is more than float16 holds."""
    encoder = AlexNet(output_stride=32, width=0.25).eval()
    randomise(encoder)
    images = torch.rand(1, 3, 65, 65) * 255 - 120
    expected = encoder(images)[-1]
    output = encoder.half()(images.half())[-1]
    assert output.isfinite().all()
    assert (output.float() - expected).norm() / expected.norm() < 0.02


@torch.inference_mode()
def test_torchvisions_is_torchvisions() -> None:
    """With the padding of ours put in."""
    from torchvision.models import AlexNet as Peer

    with torch.device("meta"):
        peer = Peer()
    assert sum(parameter.numel() for parameter in peer.parameters()) == 61_100_840
    theirs: Any = peer.features.to_empty(device="cpu").eval()
    randomise(theirs)
    theirs[0].padding = (5, 5)
    for module in theirs:
        if isinstance(module, nn.MaxPool2d):
            module.padding = 1
    config = AlexNetConfig(name="alexnet_torchvision")
    ours = config.build(32).eval()
    state = {timm_name("alexnet_torchvision", name).removeprefix("features."): name for name in ours.state_dict()}
    ours.load_state_dict({state[name]: tensor for name, tensor in theirs.state_dict().items()}, strict=True)
    images = torch.rand(2, 3, 90, 75, generator=torch.Generator().manual_seed(1)) * 4 - 2
    for output, at in zip(ours(images), (2, 5, 12, 13), strict=True):
        wanted = theirs[:at](images)
        assert output.shape == wanted.shape
        assert (output - wanted).norm() <= 1e-6 * wanted.norm()
    assert ours.normalization == IMAGENET
    assert_exact(config.model_copy(update={"width": 0.25}).build)
