"""ChannelNets against pytorchcv's, against one that is written out, and sizes."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pytorchcv.models.channelnet import channelnet
from torch import Tensor, nn

from segapp.base.errors import UserError
from segapp.models.classifier import ClassifierConfig
from segapp.models.encoders.channelnet import ChannelNetConfig, ChannelWiseConv, ConvolutionalClassification
from segapp.models.flops import forward_flops
from tests.models.exactness import assert_exact
from tests.networks import randomise

NAMES: list[Any] = ["channelnet_v1", "channelnet_v2", "channelnet_v3"]


def image(*size: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1), dtype=dtype) * 2 - 1


@torch.inference_mode()
def test_the_codes_layout_is_pytorchcvs() -> None:
    peer: Any = channelnet().features.eval()
    randomise(peer)
    for module in peer.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3  # the released code's
    ours = ChannelNetConfig(name="channelnet_v1", layout="code").build(32).eval()
    theirs = peer.state_dict()
    state = {}
    for (name, mine), tensor in zip(ours.state_dict().items(), theirs.values(), strict=True):
        state[name] = tensor.reshape(mine.shape)  # a channel-wise conv of theirs has three dimensions
    ours.load_state_dict(state)
    for size in ((97, 129), (64, 75)):
        x, expected = image(*size), []
        first, second, third, fourth, fifth = list(peer)[:-1]
        for stage in (first, second, third, fourth, fifth):
            expected.append(x := stage(x))
        for output, wanted in zip(ours(image(*size)), expected, strict=True):
            assert output.shape == wanted.shape
            assert (output - wanted).norm() / wanted.norm() < 1e-5


def written_out(state: dict[str, Tensor], x: Tensor, version: int) -> Tensor:
    """The paper's layout, by names of ours, layer for layer."""

    def norm(x: Tensor, at: str) -> Tensor:
        parts = (state[f"{at}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias"))
        mean, variance, weight, bias = parts
        return (((x - mean) / (variance + 1e-3).sqrt()) * weight + bias).clamp(0, 6)

    def depthwise(x: Tensor, at: str, stride: int) -> Tensor:
        return F.conv2d(x, state[f"{at}.depthwise.weight"], stride=stride, padding=1, groups=x.shape[1])

    def along_channels(x: Tensor, weight: Tensor, step: int) -> Tensor:
        """Each kernel's weights as rows of a matrix of all channels, whose far ends fall off."""
        maps, length, channels = len(weight), weight.shape[2], x.shape[1]
        matrix = x.new_zeros(channels, channels)
        before = (length - step) // 2
        for kernel in range(maps):
            for place in range(channels // step):
                for tap in range(length):
                    if 0 <= (source := place * step + tap - before) < channels:
                        matrix[kernel * (channels // step) + place, source] = weight[kernel, 0, tap, 0]
        return torch.einsum("oc,nchw->nohw", matrix, x)

    def separable(x: Tensor, at: str, stride: int = 1, groups: int = 1) -> Tensor:
        y = depthwise(x, at, stride)
        parts = zip(y.chunk(groups, 1), state[f"{at}.mixing.weight"].chunk(groups), strict=True)
        return norm(torch.cat([F.conv2d(*part) for part in parts], 1), f"{at}.bn")

    x = norm(F.conv2d(x, state["stem.0.weight"], stride=2, padding=1), "stem.1")
    for at, stride in enumerate((1, 2, 1, 2, 1, 2)):
        x = separable(x, f"blocks.{at}", stride)
    for at in (6, 7, 8):
        y = separable(separable(x, f"blocks.{at}.layers.0", groups=2), f"blocks.{at}.layers.1", groups=2)
        if at < 8:
            y = along_channels(y, state[f"blocks.{at}.layers.2.conv.weight"], 2)
        x = x + y
    x = separable(x, "blocks.9", 2)
    if version == 1:
        return separable(x, "blocks.10")
    mixed = along_channels(depthwise(x, "blocks.10", 1), state["blocks.10.mixing.conv.weight"], 1)
    return norm(mixed, "blocks.10.bn")


@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_the_papers_layout_is_that_written_out(name: Any) -> None:
    encoder = ChannelNetConfig(name=name, width=0.125).build(32).double().eval()
    randomise(encoder)
    x = image(70, 45, dtype=torch.float64)
    expected = written_out(encoder.state_dict(), x, int(name[-1]))
    assert (encoder(x)[-1] - expected).norm() / expected.norm() < 1e-12


@pytest.mark.parametrize(
    ("name", "layout", "width", "parameters", "million"),
    [
        ("channelnet_v1", "paper", 1, 3_703_432, 468.5),
        ("channelnet_v1", "paper", 0.75, 2_287_464, 269.5),
        ("channelnet_v1", "paper", 0.5, 1_198_408, 125.1),
        ("channelnet_v1", "code", 1, 3_875_112, 535.0),
        ("channelnet_v2", "paper", 1, 2_654_920, 420.3),
    ],
)
def test_sizes(name: Any, layout: Any, width: float, parameters: int, million: float) -> None:
    config = ChannelNetConfig(name=name, layout=layout, width=width)
    with torch.device("meta"):
        network = ClassifierConfig(encoder=config).build(1000)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert forward_flops(network, (1, 3, 224, 224)) / 2e6 == pytest.approx(million, abs=0.06)


def test_v3_classifies_with_1225_weights() -> None:
    with torch.device("meta"):
        encoder = ChannelNetConfig(name="channelnet_v3").build(32)
        layer = ConvolutionalClassification(1024, 1000)
        logits = layer(encoder(torch.empty(2, 3, 224, 224))[-1])
    assert logits.shape == (2, 1000)
    counts = [sum(parameter.numel() for parameter in module.parameters()) for module in (encoder, layer)]
    assert counts == [1_631_145 - 1225, 1225]


@torch.inference_mode()
def test_convolutional_classification_by_hand() -> None:
    """A class's logit is a sum over its own run of channels; the next class's run starts a channel later."""
    layer, x = ConvolutionalClassification(5, 3, size=2).double(), torch.rand(2, 5, 2, 2, dtype=torch.float64)
    expected = torch.stack([(x[:, k : k + 3] * layer.conv.weight[0, 0]).sum((1, 2, 3)) for k in range(3)], 1)
    assert torch.allclose(layer(x), expected, rtol=1e-12)


def test_more_classes_than_channels_are_refused() -> None:
    with pytest.raises(ValueError, match="8 classes are more than the 7 channels"):
        ConvolutionalClassification(7, 8)


@torch.inference_mode()
def test_group_channel_wise_conv_by_hand() -> None:
    """Four channels, two kernels of length 4: each steps by two, and its maps stand side by side."""
    layer = ChannelWiseConv(4, 2)
    layer.conv.weight.copy_(torch.tensor([[1, 2, 3, 4], [0, 0, 1, 0]], dtype=torch.float32).view(2, 1, 4, 1))
    x = torch.tensor([1.0, 10, 100, 1000]).view(1, 4, 1, 1)
    # One place before the first channel and one behind the last.
    expected = [0 + 2 + 30 + 400, 10 + 200 + 3000 + 0, 10, 1000]
    assert layer(x).flatten().tolist() == expected


@pytest.mark.parametrize(("name", "layout"), [*((name, "paper") for name in NAMES), ("channelnet_v1", "code")])
def test_strides_given_up_change_no_value(name: Any, layout: Any) -> None:
    assert_exact(ChannelNetConfig(name=name, layout=layout, width=0.125).build)


@pytest.mark.parametrize("name", NAMES[1:])
def test_the_codes_layout_is_refused_where_it_has_one_size_alone(name: Any) -> None:
    with pytest.raises(UserError, match=r"model\.encoder\.layout=paper takes any") as caught:
        ChannelNetConfig(name=name, layout="code").build(16)
    assert "\n" not in str(caught.value)
