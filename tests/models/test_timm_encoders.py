"""Networks of timm as encoders: the values are timm's, whatever the output stride."""

import subprocess
import sys
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from segapp.base.errors import UserError
from segapp.models.encoders.interface import Encoder
from segapp.models.encoders.timm import TimmConfig, TimmEncoder
from segapp.models.surgery import checkpoint_activations
from tests.models.exactness import assert_exact
from tests.networks import randomise

GATES = {"SqueezeExcite", "SEModule"}
"""Of squeeze-and-excitation, whose mean is over another grid at another output stride."""


def build(model: str, output_stride: int = 32) -> TimmEncoder:
    torch.manual_seed(0)
    return TimmConfig(name="timm", model=model).build(output_stride).eval()


def image(*size: int) -> Tensor:
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1


def hold_gates(encoder: Encoder) -> None:
    for parent in list(encoder.modules()):
        for name, child in list(parent.named_children()):
            if type(child).__name__ in GATES:
                setattr(parent, name, nn.Identity())


@pytest.mark.parametrize(
    "model", ["test_resnet", "test_nfnet", "test_convnext", "test_efficientnet", "legacy_seresnet18", "mixnet_s"]
)
def test_strides_given_up_change_no_value(model: str) -> None:
    assert_exact(lambda output_stride: build(model, output_stride), hold=hold_gates)


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        "resnet50",
        "resnet101",
        "resnet50d",
        "resnext50_32x4d",
        "seresnet50",
        "seresnext50_32x4d",
        "vgg16",
        "densenet121",
    ],
)
def test_strides_given_up_change_no_value_of_published_networks(model: str) -> None:
    assert_exact(lambda output_stride: build(model, output_stride), hold=hold_gates)


@pytest.mark.parametrize(
    ("model", "parameters", "classifier"),
    [
        ("resnet50", 25_557_032, 2048 * 1000 + 1000),
        ("resnet101", 44_549_160, 2048 * 1000 + 1000),
        ("resnext50_32x4d", 25_028_904, 2048 * 1000 + 1000),
        ("seresnet50", 28_088_024, 2048 * 1000 + 1000),
        ("seresnext50_32x4d", 27_559_896, 2048 * 1000 + 1000),
        ("vgg16", 138_357_544, 25088 * 4096 + 4096 + 4096 * 4096 + 4096 + 4096 * 1000 + 1000),
        ("densenet121", 7_978_856, 1024 * 1000 + 1000),
    ],
)
def test_sizes_are_the_published_ones(model: str, parameters: int, classifier: int) -> None:
    with torch.device("meta"):
        encoder = TimmConfig(name="timm", model=model).build(16)
    assert sum(parameter.numel() for parameter in encoder.parameters()) + classifier == parameters


@pytest.mark.parametrize(
    ("model", "size"),
    [
        ("test_resnet", (97, 129)),
        ("resnet18", (90, 75)),
        ("legacy_seresnet18", (90, 75)),
        ("vgg11_bn", (32, 64)),  # whose pools, and those of DenseNet, leave out an odd row
        ("densenet121", (64, 96)),
        ("test_convnext", (64, 96)),
        ("test_efficientnet", (90, 75)),
        ("tf_mobilenetv3_small_minimal_100", (65, 97)),  # TensorFlow's padding is symmetric at these sizes
        ("mambaout_femto", (64, 96)),  # channels last
    ],
)
@torch.inference_mode()
def test_features_are_timms(model: str, size: tuple[int, int]) -> None:
    ours = build(model)
    peer: Any = timm.create_model(model, features_only=True).eval()
    if model.startswith("legacy"):
        peer.pool0 = nn.MaxPool2d(3, 2, 1)  # theirs starts a place further
    randomise(ours)
    peer.load_state_dict(ours.network.state_dict())
    for output, wanted in zip(ours(image(*size)), peer(image(*size)), strict=True):
        wanted = wanted.permute(0, 3, 1, 2) if model == "mambaout_femto" else wanted
        assert output.shape == wanted.shape
        assert (output - wanted).norm() / wanted.norm() < 1e-5


@pytest.mark.parametrize("model", ["resnet18", "regnetx_002", "mobilenetv2_050"])
@pytest.mark.parametrize("output_stride", [16, 8])
@torch.inference_mode()
def test_features_are_timms_where_it_gives_up_strides(model: str, output_stride: int) -> None:
    ours = build(model, output_stride)
    peer: Any = timm.create_model(model, features_only=True, output_stride=output_stride)
    randomise(ours)
    peer.eval().load_state_dict(ours.network.state_dict())
    assert [feature.stride for feature in ours.features] == peer.feature_info.reduction()
    for output, wanted in zip(ours(image(90, 75)), peer(image(90, 75)), strict=True):
        assert (output - wanted).norm() / wanted.norm() < 1e-5


@pytest.mark.parametrize(
    ("model", "output_stride"), [("hrnet_w18_small", 32), ("swin_tiny_patch4_window7_224", 32), ("test_convnext", 8)]
)
@pytest.mark.parametrize("size", [(65, 97), (37, 101)])
@torch.inference_mode()
def test_images_of_any_size(model: str, output_stride: int, size: tuple[int, int]) -> None:
    encoder = build(model, output_stride)
    for output, (channels, stride) in zip(encoder(image(*size)), encoder.features, strict=True):
        assert output.shape == (1, channels, *(-(-length // stride) for length in size))


@torch.inference_mode()
def test_images_that_fit_are_not_padded() -> None:
    encoder = build("swin_tiny_patch4_window7_224")
    peer: Any = timm.create_model("swin_tiny_patch4_window7_224", features_only=True, dynamic_img_size=True).eval()
    peer.load_state_dict(encoder.network.state_dict())
    for output, wanted in zip(encoder(image(96, 64)), peer(image(96, 64)), strict=True):
        assert torch.allclose(output, wanted.permute(0, 3, 1, 2), atol=1e-5)


@pytest.mark.parametrize(
    ("model", "output_stride", "reason"),
    [
        ("vit_tiny_patch16_224", 16, "has features of strides 16, 16, 16; needed are 4 and model.output_stride=16"),
        ("nest_tiny", 32, "has features of strides 4, 8, 16; needed are 4 and model.output_stride=32"),
        ("swin_tiny_patch4_window7_224", 16, "cannot give up strides for model.output_stride=16, 32 is its own"),
        ("hrnet_w18_small", 8, "cannot give up strides for model.output_stride=8, 32 is its own"),
        ("coat_tiny", 32, "takes images of some sizes alone"),
        ("resnet5O", 16, "timm has no such network; did you mean resnet5"),
        ("", 16, "timm has no such network"),
        ("resnet50.nope", 16, "timm refuses it: "),
        ("hf_hub:timm/resnet18", 16, "timm has no such network"),
        ("local-dir:/tmp", 16, "timm has no such network"),
    ],
)
def test_what_cannot_be_an_encoder_is_refused_in_one_line(model: str, output_stride: int, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        build(model, output_stride)
    line = str(caught.value)
    assert line.startswith(f"model.encoder.model={model}")
    assert reason in line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("model", "mean", "std"),
    [
        ("resnet18", 0.485, 0.229),
        ("tf_mobilenetv3_small_minimal_100", 0.5, 0.5),
        ("mobilenetv3_large_100.miil_in21k_ft_in1k", 0.0, 1.0),
        ("mobilenetv3_large_100.ra_in1k", 0.485, 0.229),
    ],
)
def test_normalisation_is_the_networks(model: str, mean: float, std: float) -> None:
    with torch.device("meta"):
        normalization = TimmConfig(name="timm", model=model).build(32).normalization
    assert (normalization.mean[0], normalization.std[0]) == (mean, std)


@pytest.mark.parametrize(
    ("model", "kind", "number"),
    [("resnet18", "BasicBlock", 8), ("convnext_atto", "ConvNeXtBlock", 12), ("densenet121", "DenseBlock", 4)],
)
def test_blocks_are_what_it_repeats(model: str, kind: str, number: int) -> None:
    with torch.device("meta"):
        blocks = TimmConfig(name="timm", model=model).build(32).blocks
    assert [type(block).__name__ for block in blocks] == [kind] * number


@pytest.mark.parametrize("model", ["vgg11", "densenet121", "test_convnext", "test_efficientnet"])
def test_blocks_can_be_checkpointed(model: str) -> None:
    """Whatever they are: layers, modules that are given lists, modules with hooks."""
    gradients = []
    for checkpointed in (False, True):
        encoder = build(model).train()
        if checkpointed:
            checkpoint_activations(encoder.blocks)
        encoder(torch.cat([image(32, 32)] * 2))[-1].square().mean().backward()
        gradients.append(encoder.get_parameter(next(name for name, _ in encoder.named_parameters())).grad)
    assert gradients[0] is not None
    assert torch.equal(*gradients)  # type: ignore[arg-type]


@pytest.mark.slow
def test_tools_start_without_timm() -> None:
    code = "import sys, segapp.commands.train, segapp.commands.predict; sys.exit('timm' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
