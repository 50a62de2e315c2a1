"""Inception-v3 against torchvision's, and published sizes."""

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models import Inception3
from torchvision.models.inception import InceptionB, InceptionD

from segapp.base.errors import UserError
from segapp.models.classifier import ClassifierConfig
from segapp.models.encoders.inception import Style, built
from segapp.models.encoders.inception_v3 import InceptionV3, InceptionV3Config
from segapp.models.flops import forward_flops
from segapp.weights.sources.timm_names import inception_v3_names
from tests.networks import randomise

TAPS = ("Conv2d_2b_3x3", "Conv2d_4a_3x3", "Mixed_5d", "Mixed_6e", "Mixed_7c")


def peer_of() -> Any:
    peer: Any = Inception3(aux_logits=False, init_weights=False).eval()
    randomise(peer)
    return peer


def pad(peer: Any) -> None:
    """What it has without padding gets some, without an edit of how it computes."""
    convs = [peer.Conv2d_1a_3x3, peer.Conv2d_2a_3x3, peer.Conv2d_4a_3x3]
    convs += [peer.Mixed_6a.branch3x3, peer.Mixed_6a.branch3x3dbl_3]
    convs += [peer.Mixed_7a.branch3x3_2, peer.Mixed_7a.branch7x7x3_4]
    for conv in convs:
        assert conv.conv.padding == (0, 0)
        conv.conv.padding = 1, 1
    peer.maxpool1.padding = peer.maxpool2.padding = 1
    for unit in (peer.Mixed_6a, peer.Mixed_7a):
        unit.forward = lambda x, unit=unit: torch.cat(
            [*padded_branches(unit, x), nn.functional.max_pool2d(x, 3, 2, 1)], 1
        )


def padded_branches(unit: Any, x: Tensor) -> list[Tensor]:
    if isinstance(unit, InceptionB):
        return [unit.branch3x3(x), unit.branch3x3dbl_3(unit.branch3x3dbl_2(unit.branch3x3dbl_1(x)))]
    assert isinstance(unit, InceptionD)
    third = unit.branch7x7x3_3(unit.branch7x7x3_2(unit.branch7x7x3_1(x)))
    return [unit.branch3x3_2(unit.branch3x3_1(x)), unit.branch7x7x3_4(third)]


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        f"{ours}{name.removeprefix(theirs)}": tensor
        for ours, theirs in inception_v3_names().items()
        for name, tensor in state.items()
        if name.startswith(f"{theirs}.")
    }


@torch.inference_mode()
def test_features_are_torchvisions_with_padding() -> None:
    peer = peer_of()
    pad(peer)
    expected: list[Tensor] = []
    for tap in TAPS:
        getattr(peer, tap).register_forward_hook(lambda module, args, output: expected.append(output.clone()))
    ours = InceptionV3(output_stride=32).eval()
    ours.load_state_dict(renamed(peer.state_dict()), strict=True)
    for size, memory_format in (((97, 129), torch.contiguous_format), ((90, 75), torch.channels_last)):
        x = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1
        expected.clear()
        peer(x)
        outputs = ours(x.to(memory_format=memory_format))
        assert [output.shape[1] for output in outputs] == [64, 192, 288, 768, 2048]
        for output, wanted in zip(outputs, expected, strict=True):
            assert output.shape == wanted.shape
            assert (output - wanted).norm() / wanted.norm() < 1e-5


@torch.inference_mode()
def test_the_published_classifier_has_less_padding() -> None:
    peer = peer_of()
    ours = ClassifierConfig(encoder=InceptionV3Config(name="inception_v3", padding="valid")).build(1000).eval()
    ours.encoder.load_state_dict(renamed(peer.state_dict()), strict=True)
    ours.fc.load_state_dict(peer.fc.state_dict())
    for side in (150, 75):
        x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1
        expected = peer(x)
        assert (ours(x) - expected).norm() / expected.norm() < 1e-5


def test_without_padding_is_for_classifiers() -> None:
    config = InceptionV3Config(name="inception_v3", padding="valid", width=0.125)
    for output_stride in (8, 16):
        with pytest.raises(UserError, match=f"output stride {output_stride} needs padding=same"):
            config.build(output_stride)
    encoder = config.build(32).eval()
    with torch.inference_mode():
        assert encoder(torch.zeros(1, 3, 75, 80))[-1].shape[2:] == (1, 1)
        with pytest.raises(UserError, match="an image is 80 x 74; with padding=valid it has 75 pixels or more a side"):
            encoder(torch.zeros(1, 3, 74, 80))


def test_sizes_are_the_published_ones() -> None:
    config = InceptionV3Config(name="inception_v3", padding="valid")
    with torch.device("meta"):
        network = ClassifierConfig(encoder=config).build(1000)
    assert sum(parameter.numel() for parameter in network.parameters()) == 23_834_568
    assert forward_flops(network, (1, 3, 299, 299)) / 2e6 == pytest.approx(5713.2, abs=0.05)
    assert forward_flops(network, (1, 3, 224, 224)) / 2e6 == pytest.approx(2837.9, abs=0.05)


def test_rates_of_each_output_stride() -> None:
    """How many convs and pools have which: 36 up to Mixed_6a, 51 behind it up to Mixed_7a, 20 in Mixed_7b and 7c."""
    expected = {32: {1: 107}, 16: {1: 87, 2: 20}, 8: {1: 36, 2: 51, 4: 20}}
    for output_stride, rates in expected.items():
        with torch.device("meta"):
            encoder = InceptionV3(output_stride=output_stride)
        found = Counter(
            module.dilation if isinstance(module.dilation, int) else module.dilation[0]  # type: ignore[index]
            for module in encoder.modules()
            if hasattr(module, "dilation")
        )
        assert found == rates


def test_constants_of_the_released_code() -> None:
    """slim's epsilon of BN, and its weights by fan in, cut at two standard deviations."""
    encoder = InceptionV3()
    assert {module.eps for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)} == {1e-3}
    for convs in (module for module in encoder.modules() if isinstance(module, nn.Conv2d)):
        std = (2.6 / convs.weight[0].numel()) ** 0.5
        assert convs.weight.abs().max() <= 2 * std
        if convs.weight.numel() > 100_000:
            # A normal cut there keeps 0.8796 of its standard deviation.
            assert convs.weight.std().item() == pytest.approx(std * 0.8796, rel=0.01)


@torch.inference_mode()
def test_averages_leave_out_what_is_around_where_it_is_said() -> None:
    """As TensorFlow's: of ones the mean is one at a border, too."""
    ones = torch.ones(1, 1, 5, 5)
    for counts, corner in ((True, 4 / 9), (False, 1.0)):
        pool, _ = built("average", 1, Style(None, 1.0, counts), stride=1, rate=1)
        assert pool(ones)[0, 0, 0, 0] == pytest.approx(corner)
    outputs = []
    for counts in (True, False):
        encoder = InceptionV3Config(name="inception_v3", width=0.125, counts_padding=counts).build(16).eval()
        randomise(encoder)
        outputs.append(encoder(torch.rand(1, 3, 65, 65, generator=torch.Generator().manual_seed(0)))[-1])
    assert not torch.allclose(*outputs)
    assert InceptionV3Config(name="inception_v3", counts_padding=False).is_as_published
