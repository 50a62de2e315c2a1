"""What the zoo says of its networks, counted anew."""

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn

from segapp.cli import run_tool
from segapp.models.classifier import ClassifierConfig
from segapp.models.deeplabv3plus import low_level_place
from segapp.models.encoders import EncoderConfig
from segapp.models.encoders.interface import Encoder
from segapp.models.flops import forward_flops
from segapp.weights.networks import CLASSES, NETWORKS, SIDE
from segapp.weights.zoo import ZOO

OF_TIMM = [name for name, each in NETWORKS.items() if each.encoder["name"] == "timm"]
CASES = [pytest.param(name, marks=[pytest.mark.slow] if name in OF_TIMM else []) for name in NETWORKS]


class Deepest(nn.Module):
    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder(images)[-1]  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", CASES)
def test_figures_are_counted(name: str) -> None:
    network = NETWORKS[name]
    config: EncoderConfig = TypeAdapter(EncoderConfig).validate_python(network.encoder)
    published = config.model_copy(update={"padding": "valid"}) if hasattr(config, "padding") else config
    with torch.device("meta"):
        classifier = ClassifierConfig(encoder=published).build(CLASSES)
        encoders = [config.build(output_stride) for output_stride in (16, 8)]
    assert sum(parameter.numel() for parameter in classifier.parameters()) == network.parameters
    side = network.side
    assert forward_flops(classifier, (1, 3, side, side)) / 2e6 == pytest.approx(network.million, abs=0.051)
    for encoder, billion in zip(encoders, network.billions, strict=True):
        assert forward_flops(Deepest(encoder), (1, 3, SIDE, SIDE)) / 2e9 == pytest.approx(billion, abs=0.0051)
    features = encoders[0].features
    assert features[low_level_place(features, 4)].channels == network.low_level[1]


def test_every_encoders_weights_are_of_a_network_that_is_listed() -> None:
    named = [name for network in NETWORKS.values() for name in network.weights]
    # timm's own MobileNetV2 is used for its weights alone.
    assert {name for name, entry in ZOO.items() if entry.kind == "encoder"} - {*named} == {"mobilenetv2_100.ra_in1k"}
    assert len({*named}) == len(named)


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_tool("zoo", ["list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in (*NETWORKS, *ZOO))
    assert "22,855,952" in listed
    for name in (*NETWORKS, *ZOO):
        assert run_tool("zoo", ["show", name]) == 0
        assert capsys.readouterr().out.startswith(name)
    assert run_tool("zoo", ["show", "xception"]) == 0
    shown = capsys.readouterr().out
    for fact in ("8,357.4 M", "128 channels", "legacy_xception.tf_in1k", "Apache-2.0", "top-1 79.06"):
        assert fact in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say what: "),
        (["show"], "say what: "),
        (["lists"], "say what: "),
        (["show", "xceptio"], "xceptio: no network or weights; did you mean xception?"),
        (["show", "?"], "list shows all"),
    ],
)
def test_mistakes(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_tool("zoo", arguments) == 2
    told = capsys.readouterr().err
    assert message in told
    assert len(told.splitlines()) == 1
