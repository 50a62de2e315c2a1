"""The classifier against timm's."""

from typing import Any

import pytest
import timm
import torch

from segapp.models.classifier import ClassifierConfig
from segapp.models.encoders.aligned_xception import AlignedXceptionConfig
from tests.networks import randomise


@pytest.mark.slow
@pytest.mark.parametrize("name", ["xception41", "xception71"])
@torch.inference_mode()
def test_logits_are_timms(name: Any) -> None:
    peer: Any = timm.create_model(name, num_classes=10).eval()
    randomise(peer)
    ours = ClassifierConfig(encoder=AlignedXceptionConfig(name=name, width=1)).build(10).eval()
    state = peer.state_dict()
    ours.fc.load_state_dict({part: state.pop(f"head.fc.{part}") for part in ("weight", "bias")})
    ours.encoder.load_state_dict(state)
    x = torch.rand(2, 3, 97, 129, generator=torch.Generator().manual_seed(1)) * 2 - 1
    expected = peer(x)
    assert (ours(x) - expected).norm() / expected.norm() < 1e-5


def test_an_encoder_alone_has_no_layer() -> None:
    network = ClassifierConfig(encoder=AlignedXceptionConfig(name="xception41", width=0.125)).build(0)
    assert {name.split(".")[0] for name, _ in network.named_parameters()} == {"encoder"}
