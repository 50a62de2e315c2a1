"""One test suite over every encoder of the registry: a new one is a line in CASES."""

import copy
import io
from typing import Any

import pytest
import torch
import yaml
from pydantic import TypeAdapter
from torch import Tensor, nn

from segapp.base.paths import CONF
from segapp.models.classifier import ClassifierConfig
from segapp.models.encoders import EncoderConfig
from segapp.models.encoders.interface import Encoder
from segapp.models.encoders.mobilenet_v2 import MobileNetV2Config
from segapp.models.surgery import checkpoint_activations, freeze_bn
from tests.models.exactness import assert_exact
from tests.networks import randomise, small

CASES: dict[str, dict[str, Any]] = {
    "xception41": {"width": 0.125},
    "xception65": {"width": 0.125},
    "xception71": {"width": 0.125},
    "mobilenet_v2": {"width": 0.25},
    "mobilenet_v2_dm05": {"width": 0.25},
    "xception": {"width": 0.125},
    "inception_v3": {"width": 0.125},
    "googlenet": {"width": 0.125},
    "googlenet_torchvision": {"width": 0.125},
    "shufflenet": {"width": 0.25},
    "channelnet_v1": {"width": 0.125},
    "channelnet_v2": {"width": 0.125},
    "channelnet_v3": {"width": 0.125},
    "alexnet": {"width": 0.25},
    "alexnet_torchvision": {"width": 0.25},
    "timm": {"model": "test_resnet"},
}
"""Every file of conf/model/encoder, with what makes it small: these tests are of behaviour, not of values."""
STRIDES = (8, 16, 32)

every = pytest.mark.parametrize("name", CASES)


def written(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONF / "model" / "encoder" / f"{name}.yaml").read_text())  # type: ignore[no-any-return]


def config(name: str) -> EncoderConfig:
    return TypeAdapter(EncoderConfig).validate_python(written(name) | CASES[name])


def build(name: str, output_stride: int = 16) -> Encoder:
    torch.manual_seed(0)
    encoder = config(name).build(output_stride)
    randomise(encoder)
    return encoder.eval()


def images(height: int = 65, width: int = 97, number: int = 2) -> Tensor:
    return torch.rand(number, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_every_encoder_is_tested() -> None:
    assert {path.stem for path in (CONF / "model" / "encoder").glob("*.yaml")} == CASES.keys()
    for name in CASES:
        assert config(name).name == name


@every
def test_its_config_says_whether_it_is_as_published(name: str) -> None:
    """And a file of weights that says no more than the name means that."""
    published = TypeAdapter(EncoderConfig).validate_python(written(name))
    assert published.is_as_published
    assert TypeAdapter(EncoderConfig).validate_python({"name": name}) == published
    assert not config(name).is_as_published
    assert config(name).describe().startswith(f"{name} of ")


def test_a_config_in_words() -> None:
    assert MobileNetV2Config(name="mobilenet_v2", width=0.35).describe() == "mobilenet_v2 of width 0.35"
    assert MobileNetV2Config(name="mobilenet_v2").describe() == "mobilenet_v2 of width 1"


@every
@pytest.mark.parametrize("output_stride", STRIDES)
@pytest.mark.parametrize("size", [(65, 97), (64, 48), (37, 101), (1, 1)])
@torch.inference_mode()
def test_features_are_as_described_at_any_size(name: str, output_stride: int, size: tuple[int, int]) -> None:
    encoder = build(name, output_stride)
    outputs = encoder(images(*size))
    assert len(outputs) == len(encoder.features)
    for output, feature in zip(outputs, encoder.features, strict=True):
        places = tuple(-(-length // feature.stride) for length in size)
        assert output.shape == (2, feature.channels, *places)
    strides = [feature.stride for feature in encoder.features]
    assert strides == sorted(strides), "shallow to deep"
    assert strides[-1] == output_stride
    assert 4 in strides[:-1], "a low-level feature for the decoder"


@every
@torch.inference_mode()
def test_each_output_stride_gives_the_others_values_where_both_have_one(name: str) -> None:
    """Rates make up for the strides given up: at every second or fourth place stands what output stride 32 gives."""
    weights = build(name).state_dict()
    deepest = {}
    for output_stride in STRIDES:
        encoder = config(name).build(output_stride).eval()
        encoder.load_state_dict(weights)
        deepest[output_stride] = encoder(images(65, 97))[-1]
    for output_stride in (8, 16):
        step = 32 // output_stride
        subsampled = deepest[output_stride][:, :, ::step, ::step]
        assert (subsampled - deepest[32]).norm() / deepest[32].norm() < 1e-5


@every
def test_rates_make_up_for_strides_to_the_last_digits(name: str) -> None:
    assert_exact(config(name).build)


@every
def test_every_parameter_learns_and_no_feature_is_written_over(name: str) -> None:
    encoder = build(name).train()
    outputs = encoder(images())
    before = [output.detach().clone() for output in outputs]
    sum(output.square().mean() for output in outputs).backward()
    for parameter_name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.any(), parameter_name
    for output, then in zip(outputs, before, strict=True):
        assert torch.equal(output, then), "an in-place activation has changed it"


@every
@torch.inference_mode()
def test_channels_last_and_a_batch_agree_with_one_image(name: str) -> None:
    encoder = build(name)
    expected = encoder(images())
    last = copy.deepcopy(encoder).to(memory_format=torch.channels_last)
    for outputs in (last(images().to(memory_format=torch.channels_last)), encoder(images()[:1])):
        for output, wanted in zip(outputs, expected, strict=True):
            assert (output - wanted[: len(output)]).norm() / wanted[: len(output)].norm() < 1e-5


@pytest.mark.slow
@every
def test_state_dict_round_trip(name: str) -> None:
    encoder, file = build(name), io.BytesIO()
    torch.save(encoder.state_dict(), file)
    file.seek(0)
    other = config(name).build(8).eval()
    other.load_state_dict(torch.load(file, weights_only=True), strict=True)
    for key, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[key])


@pytest.mark.slow
@every
def test_export(name: str) -> None:
    encoder = build(name)
    program = torch.export.export(encoder, (images(),))
    with torch.inference_mode():
        for output, expected in zip(program.module()(images()), encoder(images()), strict=True):
            assert torch.allclose(output, expected, atol=1e-5 * expected.abs().max().item())


@every
def test_blocks_can_be_checkpointed_to_the_same_bits(name: str) -> None:
    results = []
    for checkpointed in (False, True):
        encoder = build(name).train()
        if checkpointed:
            checkpoint_activations(encoder.blocks)
        encoder(images())[-1].square().mean().backward()
        results.append((encoder.state_dict(), [parameter.grad for parameter in encoder.parameters()]))
    (state, gradients), (state_checkpointed, gradients_checkpointed) = results
    assert state.keys() == state_checkpointed.keys()
    assert all(torch.equal(state[key], state_checkpointed[key]) for key in state)
    for one, other in zip(gradients, gradients_checkpointed, strict=True):
        assert (one is None) == (other is None)
        assert one is None or torch.equal(one, other)  # type: ignore[arg-type]


@every
def test_blocks_are_most_of_it(name: str) -> None:
    encoder = build(name)
    inside = {id(parameter) for block in encoder.blocks for parameter in block.parameters()}
    assert inside <= {id(parameter) for parameter in encoder.parameters()}
    assert sum(id(parameter) in inside for parameter in encoder.parameters()) > 0.5 * len(list(encoder.parameters()))


@every
def test_frozen_bn_stays_whatever_train_says(name: str) -> None:
    encoder = build(name)
    freeze_bn(encoder)
    copied = copy.deepcopy(encoder).train()
    before = {key: tensor.clone() for key, tensor in copied.state_dict().items()}
    copied(images())
    assert all(torch.equal(tensor, before[key]) for key, tensor in copied.state_dict().items())
    assert copied.training


@every
@torch.inference_mode()
def test_it_serves_the_decoder_and_the_classifier(name: str) -> None:
    network = small().model_copy(update={"encoder": config(name)}).build(5).eval()
    assert network(images(65, 97)).shape == (2, 5, 17, 25)
    classifier = ClassifierConfig(encoder=config(name)).build(7).eval()
    assert classifier(images(97, 65)).shape == (2, 7)


@every
def test_normalisation_is_known(name: str) -> None:
    normalization = build(name).normalization
    assert all(0 <= mean <= 1 for mean in normalization.mean)
    assert all(0 < std <= 1 for std in normalization.std)


def test_bn_of_any_kind_is_frozen() -> None:
    """Not our own class alone: a network from elsewhere has PyTorch's."""
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.SyncBatchNorm(4)).eval()
    freeze_bn(network)
    network.train()
    assert [module.training for module in network] == [True, False, False]
