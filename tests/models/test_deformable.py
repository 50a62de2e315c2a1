"""Deformable convolutions: plain ones at first, and then what their formula says, tap by tap."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from segapp.base.errors import UserError
from segapp.models.deformable import DeformableConv2d, OffsetConv2d, Version
from segapp.models.encoders.interface import INCEPTION
from segapp.models.flops import forward_flops
from segapp.weights.checkpoint import (
    CheckpointInfo,
    load_model,
    save_checkpoint,
    start_encoder_from,
    start_from,
)
from tests.models.test_encoders import CASES
from tests.networks import config, randomise, small

versions = pytest.mark.parametrize("version", ["v1", "v2"])
CLASSES = ("a", "b", "c")


def network(name: str, version: Version | None, output_stride: int = 16, **aspp: object) -> nn.Module:
    chosen = small(encoder={"name": name} | CASES[name], deformable=version, output_stride=output_stride)
    chosen = chosen.model_copy(update={"aspp": chosen.aspp.model_copy(update=aspp)})
    return chosen.build(3).eval()


def deformables(model: nn.Module) -> dict[str, DeformableConv2d]:
    return {name: module for name, module in model.named_modules() if isinstance(module, DeformableConv2d)}


def deform(model: nn.Module, scale: float = 0.5) -> None:
    """Gives the offsets values of some size."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, OffsetConv2d):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0, scale * fan_in**-0.5, generator=generator)
                module.bias.normal_(0, scale, generator=generator)  # type: ignore[union-attr]


@pytest.mark.parametrize(("version", "output_stride"), [("v1", 8), ("v2", 16)])
@pytest.mark.parametrize("name", CASES)
@torch.inference_mode()
def test_it_starts_as_the_network_without(name: str, output_stride: int, version: Version) -> None:
    plain, deformable = (network(name, each, output_stride).double() for each in (None, version))
    randomise(plain)
    unused = deformable.load_state_dict(plain.state_dict(), strict=False)
    assert not unused.unexpected_keys
    assert {key.rpartition(".offset.")[0] for key in unused.missing_keys} == deformables(deformable).keys()
    images = torch.rand(1, 3, 65, 49, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = plain(images)
    assert (deformable(images) - expected).abs().max() <= 1e-12 * expected.abs().max()
    deform(deformable)
    assert (deformable(images) - expected).abs().max() > 1e-6 * expected.abs().max()


@pytest.mark.parametrize(
    ("name", "number"),
    [  # those of stride 32; AlexNet has none there, but the three before its last pool
        ("xception41", 4),
        ("xception", 2),
        ("mobilenet_v2", 4),
        ("shufflenet", 4),
        ("channelnet_v1", 2),
        ("googlenet", 2),
        ("inception_v3", 4),
        ("alexnet", 3),
    ],
)
def test_which_convolutions_are_the_last_stages(name: str, number: int) -> None:
    assert len(deformables(network(name, "v1"))) == number


def test_resnets_are_the_papers_three() -> None:
    with torch.device("meta"):
        encoder = config(encoder={"name": "timm", "model": "resnet50"}, deformable="v2").build_encoder()
    found = deformables(encoder)
    assert [*found] == [f"network.layer4.{i}.conv2" for i in range(3)]
    assert [conv.dilation for conv in found.values()] == [(1, 1), (2, 2), (2, 2)]
    assert sum(p.numel() for p in found["network.layer4.0.conv2"].offset.parameters()) == 124_443


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        ("convnext_atto", "no last stage of 3x3 convolutions"),
        ("test_nfnet", "is a ScaledStdConv2d, in whose place none can stand"),
    ],
)
def test_what_cannot_be_deformed_is_told_in_a_line(model: str, reason: str) -> None:
    with pytest.raises(UserError, match=reason) as caught, torch.device("meta"):
        config(encoder={"name": "timm", "model": model}, deformable="v1").build_encoder()
    assert str(caught.value).startswith("model.deformable")


@versions
@pytest.mark.parametrize("separable", [True, False])
@torch.inference_mode()
def test_in_the_aspp(separable: bool, version: Version) -> None:
    changes = {"separable": separable}
    plain, deformable = (
        network("xception41", None, **changes),
        network("xception41", None, deformable=version, **changes),
    )
    randomise(plain)
    deformable.load_state_dict(plain.state_dict(), strict=False)
    assert [conv.dilation[0] for conv in deformables(deformable).values()] == [6, 12, 18]
    images = torch.rand(1, 3, 65, 65)
    assert torch.allclose(deformable(images), plain(images), atol=1e-4)


def taps(kernel: int) -> Iterator[tuple[int, int, int]]:
    for tap, (down, across) in enumerate(itertools.product(range(kernel), range(kernel))):
        yield tap, down, across


def read(plane: Tensor, y: float, x: float) -> float:
    """Bilinear; zeros around."""
    total = 0.0
    top, left = int(y // 1), int(x // 1)
    for row, column in itertools.product((top, top + 1), (left, left + 1)):
        if 0 <= row < plane.shape[0] and 0 <= column < plane.shape[1]:
            total += (1 - abs(y - row)) * (1 - abs(x - column)) * plane[row, column].item()
    return total


@versions
@pytest.mark.parametrize(
    ("groups", "stride", "rate", "bias"), [(1, 1, 1, True), (2, 2, 1, False), (4, 1, 2, False), (4, 2, 2, True)]
)
@torch.inference_mode()
def test_moved_and_weighed_taps_by_hand(groups: int, stride: int, rate: int, bias: bool, version: Version) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 4, 3, stride, rate, rate, groups, bias=bias).double()
    conv = DeformableConv2d(plain, version)
    deform(conv, 1.5)
    x = torch.randn(1, 4, 5, 6, dtype=torch.float64)
    moves = conv.offset(x)[0]
    output = conv(x)[0]
    inputs = 4 // groups
    for place in itertools.product(range(output.shape[1]), range(output.shape[2])):
        row, column = place
        for out in range(4):
            total = 0.0 if plain.bias is None else plain.bias[out].item()
            for tap, down, across in taps(3):
                dy, dx = moves[2 * tap, row, column].item(), moves[2 * tap + 1, row, column].item()
                y, at = row * stride + (down - 1) * rate + dy, column * stride + (across - 1) * rate + dx
                weight = 1.0 if version == "v1" else 2 * moves[18 + tap, row, column].sigmoid().item()
                for i in range(inputs):
                    value = read(x[0, out // (4 // groups) * inputs + i], y, at)
                    total += weight * plain.weight[out, i, down, across].item() * value
            assert output[out, row, column].item() == pytest.approx(total, rel=1e-9, abs=1e-9)


@versions
def test_gradients_are_those_of_differences(version: Version) -> None:
    torch.manual_seed(0)
    conv = DeformableConv2d(nn.Conv2d(2, 2, 3, padding=1, groups=2).double(), version)
    deform(conv)
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    parameters = [*conv.parameters()]
    names = [name for name, _ in conv.named_parameters()]

    def run(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(conv, dict(zip(names, values, strict=True)), (x,))  # type: ignore[no-any-return]

    assert torch.autograd.gradcheck(run, (x, *parameters))


@versions
def test_offsets_learn_from_the_first_step(version: Version) -> None:
    model = network("xception41", version, deformable=version).train()
    randomise(model)
    for module in model.modules():
        if isinstance(module, OffsetConv2d):
            module.reset_parameters()
    model(torch.rand(2, 3, 65, 65)).square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        if ".offset." in name:
            assert parameter.grad.any(), name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_in_half_precision_and_under_autocast(dtype: torch.dtype) -> None:
    conv = DeformableConv2d(nn.Conv2d(4, 4, 3, padding=1), "v2")
    deform(conv)
    x = torch.randn(1, 4, 8, 8)
    expected = conv(x)
    with torch.autocast("cpu", dtype):
        output = conv(x)
    assert output.dtype == dtype
    assert torch.allclose(output.float(), expected, atol=0.1)
    output = conv.to(dtype)(x.to(dtype))
    assert output.dtype == dtype
    assert torch.allclose(output.float(), expected, atol=0.1)


@versions
def test_a_checkpoint_comes_back_and_a_plain_one_is_started_from(version: Version, tmp_path: Path) -> None:
    chosen = small(deformable=version)
    model = chosen.build(3).eval()
    randomise(model)
    info = CheckpointInfo(network=chosen, classes=CLASSES, normalization=INCEPTION, trained_on=())
    save_checkpoint(tmp_path / "deformed.safetensors", model, info)
    again, _ = load_model(tmp_path / "deformed.safetensors", output_stride=8)
    assert all(torch.equal(tensor, again.state_dict()[name]) for name, tensor in model.state_dict().items())

    plain = small().build(3).eval()
    randomise(plain)
    info = info.model_copy(update={"network": small()})
    save_checkpoint(tmp_path / "plain.safetensors", plain, info)
    images = torch.rand(1, 3, 65, 65)
    started, encoder = chosen.build(3).eval(), chosen.build_encoder().eval()
    start_from(tmp_path / "plain.safetensors", started, CLASSES)
    start_encoder_from(tmp_path / "plain.safetensors", encoder)
    with torch.inference_mode():
        for output, expected in ((started(images), plain(images)), (encoder(images)[-1], plain.encoder(images)[-1])):
            assert (output - expected).norm() / expected.norm() < 1e-5
    start_encoder_from(tmp_path / "deformed.safetensors", encoder)
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, model.encoder.state_dict()[name])
    with pytest.raises(UserError, match="also holds"):
        start_from(tmp_path / "deformed.safetensors", small().build(3), CLASSES)


def test_its_operations_are_counted() -> None:
    """The offsets' own convolution, of 18 or 27 channels, and the taps."""
    for version, channels in (("v1", 18), ("v2", 27)):
        conv = DeformableConv2d(nn.Conv2d(64, 32, 3, padding=1, groups=2), version)  # type: ignore[arg-type]
        assert forward_flops(conv, (1, 64, 10, 10)) == 2 * 100 * 9 * (64 * channels + 32 * 32)


@pytest.mark.slow
def test_export() -> None:
    conv = DeformableConv2d(nn.Conv2d(4, 4, 3, padding=1), "v2")
    deform(conv)
    x = torch.randn(1, 4, 8, 8)
    assert torch.allclose(torch.export.export(conv, (x,)).module()(x), conv(x), atol=1e-5)
