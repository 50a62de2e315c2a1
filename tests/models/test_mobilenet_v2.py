"""MobileNetV2 against timm's and published sizes."""

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from segapp.models.encoders.mobilenet_v2 import ROWS, MobileNetV2, MobileNetV2Config
from tests.networks import randomise


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """timm's tensors by our names, without the 1x1 conv behind the encoder. Its first unit has no expansion."""
    units = [f"blocks.{row}.{unit}." for row, (_, _, number, _) in enumerate(ROWS) for unit in range(number)]
    places = {"conv_stem.": "stem.conv.", "bn1.": "stem.bn."}
    for index, unit in enumerate(units):
        layers = {"conv_pw": "expand.conv", "bn1": "expand.bn", "conv_dw": "depthwise.conv", "bn2": "depthwise.bn"}
        layers |= {"conv_pwl": "project.conv", "bn3": "project.bn"}
        if index == 0:
            layers = {"conv_dw": "depthwise.conv", "bn1": "depthwise.bn", "conv_pw": "project.conv"}
            layers["bn2"] = "project.bn"
        places |= {f"{unit}{theirs}.": f"blocks.{index}.{ours}." for theirs, ours in layers.items()}
    return {
        ours + name.removeprefix(theirs): tensor
        for theirs, ours in places.items()
        for name, tensor in state.items()
        if name.startswith(theirs)
    }


@pytest.mark.parametrize("output_stride", [32, 16, 8])
@torch.inference_mode()
def test_features_are_timms(output_stride: int) -> None:
    peer: Any = timm.create_model("mobilenetv2_100", num_classes=0, output_stride=output_stride).eval()
    randomise(peer)
    for module in peer.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 1e-3  # slim's; timm's is PyTorch's
    ours = MobileNetV2(output_stride=output_stride).eval()
    ours.load_state_dict(renamed(peer.state_dict()))
    expected: list[Tensor] = []
    projections = [peer.blocks[0][0].conv_pw, *(peer.blocks[row][-1].conv_pwl for row in (1, 2, 4))]
    for projection in projections:
        projection.register_forward_pre_hook(lambda module, args: expected.append(args[0].clone()))
    peer.blocks[-1].register_forward_hook(lambda module, args, output: expected.append(output.clone()))
    for size, memory_format in (((97, 129), torch.contiguous_format), ((90, 75), torch.channels_last)):
        x = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(1)) * 2 - 1
        expected.clear()
        peer(x)
        outputs = ours(x.to(memory_format=memory_format))
        assert [output.shape[1] for output in outputs] == [32, 144, 192, 576, 320]
        for output, wanted in zip(outputs, expected, strict=True):
            assert output.shape == wanted.shape
            assert (output - wanted).norm() / wanted.norm() < 1e-5


@pytest.mark.parametrize(
    ("width", "name", "published"), [(1, "100", 3_504_872), (0.5, "050", 1_968_680), (1.4, "140", 6_108_776)]
)
def test_sizes_are_timms_and_the_published_ones(width: float, name: str, published: int) -> None:
    with torch.device("meta"):
        peer: Any = timm.create_model(f"mobilenetv2_{name}")
        ours = MobileNetV2Config(name="mobilenet_v2", width=width).build(16)
    behind = [peer.conv_head, peer.bn2, peer.classifier]
    whole, rest, of_it = (
        sum(parameter.numel() for module in modules for parameter in module.parameters())
        for modules in ([peer], behind, [ours])
    )
    assert whole == published
    assert of_it == whole - rest
    theirs = renamed(peer.state_dict())
    assert {key: each.shape for key, each in ours.state_dict().items()} == {
        key: each.shape for key, each in theirs.items()
    }


def test_constants_of_the_released_code() -> None:
    """slim's epsilon of BN, and normal weights cut at two standard deviations (slim's mobilenet.py)."""
    encoder = MobileNetV2()
    assert {module.eps for module in encoder.modules() if isinstance(module, nn.BatchNorm2d)} == {1e-3}
    for name in ("stem.conv", "blocks.16.expand.conv", "blocks.16.depthwise.conv", "blocks.16.project.conv"):
        weight = encoder.get_parameter(f"{name}.weight")
        # A normal cut there keeps 0.8796 of its standard deviation.
        assert weight.std().item() == pytest.approx(0.09 * 0.8796, rel=0.06)
        assert weight.abs().max() <= 0.18
