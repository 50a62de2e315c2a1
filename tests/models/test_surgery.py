"""BN folded into convolutions: in float64 the network computes the same."""

from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from segapp.models.deformable import replace
from segapp.models.surgery import fold_bn
from tests.networks import randomise, small

IMAGES = torch.randn(2, 3, 65, 49, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def folded(network: nn.Module) -> tuple[int, int]:
    """How many BNs it has before and after; that it computes the same is checked."""
    network = network.double().eval()
    randomise(network)
    with torch.no_grad():
        expected = network(IMAGES)
        before = _number_of_bn(network)
        fold_bn(network)
        found = network(IMAGES)
    assert (found - expected).abs().max() <= 1e-12 * expected.abs().max()
    return before, _number_of_bn(network)


def _number_of_bn(network: nn.Module) -> int:
    return sum(isinstance(each, _BatchNorm) for each in network.modules())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"output_stride": 8},
        {"deformable": "v1"},
        {"deformable": "v2"},
        {"decoder": {"channels": 16, "low_level_channels": 8, "separable": False}},
        {"decoder": None},
    ],
)
def test_every_bn_of_ours_goes(changes: dict[str, Any]) -> None:
    before, after = folded(small(**changes).build(3))
    assert before > 50
    assert after == 0


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_byobnet"])
def test_every_bn_of_timms_goes_and_its_activation_stays(name: str) -> None:
    before, after = folded(timm.create_model(name))
    assert before > 5
    assert after == 0


def test_what_cannot_be_told_stays() -> None:
    assert folded(Unfoldable()) == (5, 5)
    network = timm.create_model("test_nfnet").eval()
    before = [each.clone() for each in network.parameters()]
    fold_bn(network)
    assert all(map(torch.equal, before, network.parameters())), "its weights are standardised"


class Unfoldable(nn.Module):
    """A convolution whose output two take, one run twice, one of changed weights, one changed in place, and a BN that
    is none of a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 3, 3, padding=1) for _ in range(4))
        self.norms = nn.ModuleList(nn.BatchNorm2d(3) for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.convs[0](x)
        y = self.norms[0](y) + y
        y = self.norms[1](self.convs[1](self.convs[1](y)))
        weight = self.get_parameter("convs.2.weight").abs()
        y = self.norms[2](F.conv2d(y, weight, padding=1))
        y = self.norms[3](self.convs[3](y).relu_())
        return self.norms[4](y)  # type: ignore[no-any-return]


def test_a_bias_and_a_bn_without_parameters() -> None:
    network = nn.Sequential(nn.Conv2d(3, 6, 3, bias=True), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 3, groups=3))
    assert folded(network) == (1, 0)
    network = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6, affine=False)).double()
    network(IMAGES)  # its statistics follow
    expected = network.eval()(IMAGES)
    fold_bn(network)
    assert torch.allclose(network(IMAGES), expected, rtol=0, atol=1e-12)
    assert not isinstance(network[1], _BatchNorm)


def test_deformed_with_offsets_that_move() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4))
    replace(network, "0", "v2")
    deformed = network.get_submodule("0.offset")
    assert isinstance(deformed, nn.Conv2d)
    nn.init.normal_(deformed.weight, std=0.1)
    assert folded(network) == (1, 0)
