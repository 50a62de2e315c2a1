"""Xception against timm's port of its author's, and published sizes."""

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from segapp.base.errors import UserError
from segapp.models.classifier import ClassifierConfig
from segapp.models.encoders.xception import UNITS, Activation, Xception, XceptionConfig
from segapp.models.flops import forward_flops
from segapp.weights.sources.timm_names import xception_names
from tests.models.exactness import assert_exact
from tests.networks import randomise


def peer_of(padding: int) -> Any:
    peer: Any = timm.create_model("legacy_xception").eval()
    randomise(peer)
    for module in peer.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3  # Keras'; timm's is PyTorch's
    peer.conv1.padding = peer.conv2.padding = padding, padding
    return peer


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        f"{ours}{name.removeprefix(theirs)}": tensor
        for ours, theirs in xception_names().items()
        for name, tensor in state.items()
        if name.startswith(f"{theirs}.")
    }


@torch.inference_mode()
def test_features_are_timms() -> None:
    peer = peer_of(1)
    ours = Xception(output_stride=32).eval()
    ours.load_state_dict(renamed(peer.state_dict()), strict=True)
    for size, memory_format in (((97, 129), torch.contiguous_format), ((90, 75), torch.channels_last)):
        x = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1
        expected = peer.forward_intermediates(x, intermediates_only=True)
        outputs = ours(x.to(memory_format=memory_format))
        assert [output.shape[1] for output in outputs] == [64, 128, 256, 728, 2048]
        # timm's are those behind the ReLU that the next module begins with.
        for output, wanted in zip(outputs, expected, strict=True):
            assert output.shape == wanted.shape
            assert (output.relu() - wanted).norm() / wanted.norm() < 1e-5
        assert outputs[1].min() < 0, "of stride 4, before the ReLU"


@torch.inference_mode()
def test_the_published_classifier_has_no_padding_in_its_stem() -> None:
    peer = peer_of(0)
    config = XceptionConfig(name="xception", padding="valid")
    ours = ClassifierConfig(encoder=config).build(1000).eval()
    ours.encoder.load_state_dict(renamed(peer.state_dict()))
    ours.fc.load_state_dict(peer.fc.state_dict())
    for side in (150, 71):
        x = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1
        expected = peer(x)
        assert (ours(x) - expected).norm() / expected.norm() < 1e-5


def test_without_padding_is_for_classifiers() -> None:
    config = XceptionConfig(name="xception", padding="valid", width=0.125)
    for output_stride in (8, 16):
        with pytest.raises(UserError, match=f"output stride {output_stride} needs padding=same"):
            config.build(output_stride)
    encoder = config.build(32).eval()
    with torch.inference_mode():
        assert encoder(torch.zeros(1, 3, 7, 9))[-1].shape == (1, 256, 1, 1)
        with pytest.raises(UserError, match="an image is 9 x 6; with padding=valid it has 7 pixels or more a side"):
            encoder(torch.zeros(1, 3, 6, 9))


def test_sizes_are_the_published_ones() -> None:
    """Table 3, and timm's multiply-adds at 299 pixels."""
    config = XceptionConfig(name="xception", padding="valid")
    with torch.device("meta"):
        network = ClassifierConfig(encoder=config).build(1000)
    assert sum(parameter.numel() for parameter in network.parameters()) == 22_855_952
    assert forward_flops(network, (1, 3, 299, 299)) / 2e6 == pytest.approx(8357.4, abs=0.05)
    assert forward_flops(network, (1, 3, 224, 224)) / 2e6 == pytest.approx(4552.9, abs=0.05)
    assert sum(isinstance(module, nn.BatchNorm2d) for module in network.modules()) == 40
    # 36 conv layers, Section 4: the stem's and the separable ones.
    assert 2 + sum(len(unit.channels) for unit in UNITS) == 36


@pytest.mark.parametrize(("activation", "residuals"), [*product(("none", "relu", "elu"), (True, False))])
def test_every_output_stride_is_exact(activation: Activation, residuals: bool) -> None:
    config = XceptionConfig(name="xception", activation=activation, residuals=residuals, width=0.125)
    assert_exact(config.build, sides=(128, 161))


@pytest.mark.parametrize("residuals", [True, False])
@pytest.mark.parametrize(
    ("activation", "function"), [("none", nn.Identity()), ("relu", torch.relu), ("elu", nn.functional.elu)]
)
@torch.inference_mode()
def test_ablations_by_hand(activation: Activation, function: Callable[[Tensor], Tensor], residuals: bool) -> None:
    """The first module of the entry flow, which has no ReLU in front."""
    config = XceptionConfig(name="xception", activation=activation, residuals=residuals, width=0.125)
    block: Any = config.build(32).blocks[0].eval()
    randomise(block)
    x = torch.rand(1, 8, 9, 9, generator=torch.Generator().manual_seed(1)) - 0.5
    first, second = block.convs
    y = first.bn(first.pointwise(function(first.depthwise(x)))).relu()
    y = second.bn(second.pointwise(function(second.depthwise(y))))
    y = nn.functional.max_pool2d(y, 3, 2, 1)
    if residuals:
        y = y + block.shortcut.bn(block.shortcut.conv(x))
    assert torch.allclose(block(x), y, atol=1e-6)
    assert bool(list(block.shortcut.parameters())) == residuals
