"""ShuffleNet against pytorchcv's, and published sizes."""

from typing import Any

import pytest
import torch
from pytorchcv.models import shufflenet as peers
from torch import nn

from segapp.models.classifier import ClassifierConfig
from segapp.models.encoders.shufflenet import CHANNELS, ShuffleNet, ShuffleNetConfig
from segapp.models.flops import forward_flops
from tests.models.exactness import assert_exact
from tests.networks import randomise


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("groups", CHANNELS)
@torch.inference_mode()
def test_features_are_pytorchcvs(groups: int, shuffle: bool) -> None:
    peer: Any = getattr(peers, f"shufflenet_g{groups}_w1")().features.eval()
    randomise(peer)
    if not shuffle:
        for unit in peer.modules():
            if isinstance(unit, peers.ShuffleUnit):
                unit.c_shuffle = nn.Identity()
    ours = ShuffleNet(output_stride=32, groups=groups, shuffle=shuffle).eval()
    ours.load_state_dict(dict(zip(ours.state_dict(), peer.state_dict().values(), strict=True)))
    for size in ((97, 129), (64, 75)):
        images = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1
        expected = [peer.init_block.activ(peer.init_block.bn(peer.init_block.conv(images)))]
        x = images
        for part in list(peer)[:-1]:
            expected.append(x := part(x))
        for output, wanted in zip(ours(images), expected, strict=True):
            assert output.shape == wanted.shape
            assert (output - wanted).norm() / wanted.norm() < 1e-5


@pytest.mark.parametrize(
    ("groups", "parameters", "million"),
    [
        (1, 1_531_936, 143.1),
        (2, 1_733_848, 140.8),
        (3, 1_865_728, 137.5),
        (4, 1_968_344, 134.3),
        (8, 2_434_768, 138.4),
    ],
)
def test_sizes_are_the_published_ones(groups: Any, parameters: int, million: float) -> None:
    config = ShuffleNetConfig(name="shufflenet", groups=groups)
    with torch.device("meta"):
        network = ClassifierConfig(encoder=config).build(1000)
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters
    assert forward_flops(network, (1, 3, 224, 224)) / 2e6 == pytest.approx(million, abs=0.06)


@pytest.mark.parametrize(("width", "name"), [(0.75, "w3d4"), (0.5, "wd2"), (0.25, "wd4")])
def test_narrow_ones_are_pytorchcvs(width: float, name: str) -> None:
    with torch.device("meta"):
        peer: Any = getattr(peers, f"shufflenet_g3_{name}")().features
        ours = ShuffleNetConfig(name="shufflenet", width=width).build(16)
    assert [each.shape for each in ours.parameters()] == [each.shape for each in peer.parameters()]


@pytest.mark.parametrize("groups", CHANNELS)
def test_strides_given_up_change_no_value(groups: Any) -> None:
    assert_exact(ShuffleNetConfig(name="shufflenet", groups=groups, width=0.25).build)


@pytest.mark.parametrize("shuffle", [True, False])
def test_without_shuffle_a_group_knows_itself_alone(shuffle: bool) -> None:
    """In a unit without a stride an output of the first group depends on its third of the inputs."""
    unit = ShuffleNet(output_stride=32, shuffle=shuffle).eval().blocks[1]
    x = torch.rand(1, 240, 5, 5, requires_grad=True)
    unit(x)[:, :80].sum().backward()
    assert x.grad is not None
    assert x.grad[:, :80].any()
    assert bool(x.grad[:, 80:].any()) is shuffle
