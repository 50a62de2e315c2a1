"""GoogLeNet against torchvision's, with the paper's kernels, biases and norms put in, and published sizes."""

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import GoogLeNet as Peer
from torchvision.models.googlenet import BasicConv2d, Inception, InceptionAux

from segapp.models.classifier import ClassifierConfig
from segapp.models.encoders.googlenet import UNITS, GoogLeNet, GoogLeNetConfig, TorchvisionGoogLeNetConfig
from segapp.models.encoders.interface import IMAGENET, INCEPTION
from segapp.models.flops import forward_flops
from segapp.weights.sources.timm_names import timm_name
from tests.models.exactness import assert_exact
from tests.networks import randomise


class Biased(nn.Module):
    """What torchvision's `blocks` take in the place of its convs with BN."""

    def __init__(self, in_channels: int, out_channels: int, **options: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, **options)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x))


class ResponseNorm(nn.Module):
    """AlexNet's formula (its Section 3.3) as Caffe has it: a sum over five channels, alpha / 5, and k of 1."""

    def forward(self, x: Tensor) -> Tensor:
        squares = F.pad(x.square(), (0, 0, 0, 0, 2, 2))
        sums = sum(squares[:, i : i + x.shape[1]] for i in range(5))
        return x / (1 + 1e-4 / 5 * sums) ** 0.75


def peer_of(batch_norm: bool) -> Any:
    """torchvision's, with 5x5 kernels, 3x3 pools that are padded on both sides, and without BN as in the paper."""
    conv = BasicConv2d if batch_norm else Biased
    blocks = [conv, partial(Inception, conv_block=conv), InceptionAux]
    peer: Any = Peer(aux_logits=False, init_weights=False, blocks=blocks)
    for unit in peer.modules():
        if isinstance(unit, Inception):
            wrong = unit.branch3[1].conv
            unit.branch3[1].conv = nn.Conv2d(
                wrong.in_channels, wrong.out_channels, 5, padding=2, bias=wrong.bias is not None
            )
    for i in range(1, 5):
        setattr(peer, f"maxpool{i}", nn.MaxPool2d(3, 2, 1))
    randomise(peer)
    return peer.eval()


def names(batch_norm: bool) -> dict[str, str]:
    """torchvision's, by ours."""
    places: dict[str, str] = {}
    units = [unit.name for unit in UNITS if not (batch_norm and unit.name.startswith("norm"))]
    for index, name in enumerate(units):
        if name.startswith("conv"):
            places[f"blocks.{index}."] = f"{name}."
        elif name.startswith("inception"):
            places[f"blocks.{index}.branch1.0."] = f"{name}.branch1."
            places |= {f"blocks.{index}.branch{i}.": f"{name}.branch{i}." for i in (2, 3, 4)}
    return places


@pytest.mark.parametrize("batch_norm", [False, True])
@torch.inference_mode()
def test_features_are_torchvisions(batch_norm: bool) -> None:
    peer = peer_of(batch_norm)
    ours = GoogLeNet(output_stride=32, batch_norm=batch_norm).eval()
    state = {
        mine + name.removeprefix(theirs): tensor
        for mine, theirs in names(batch_norm).items()
        for name, tensor in peer.state_dict().items()
        if name.startswith(theirs)
    }
    ours.load_state_dict(state, strict=True)
    norm = nn.Identity() if batch_norm else ResponseNorm()
    # As large as pixels that are not scaled: the response norm would do nothing otherwise.
    images = (torch.rand(1, 3, 97, 128, generator=torch.Generator().manual_seed(1)) * 2 - 1) * 128
    low = norm(peer.conv3(peer.conv2(norm(peer.maxpool1(first := peer.conv1(images))))))
    third = peer.inception3b(peer.inception3a(peer.maxpool2(low)))
    x = peer.maxpool3(third)
    for unit in "abcde":
        x = getattr(peer, f"inception4{unit}")(x)
    last = peer.inception5b(peer.inception5a(peer.maxpool4(x)))
    for output, wanted in zip(ours(images), (first, low, third, x, last), strict=True):
        assert output.shape == wanted.shape
        assert (output - wanted).norm() / wanted.norm() < 1e-5


def test_sizes_are_those_of_the_papers_network() -> None:
    """With biases and a classifier of 1000; torchvision's has BN, and 3x3 in the place of 5x5."""
    with torch.device("meta"):
        network = ClassifierConfig(encoder=GoogLeNetConfig(name="googlenet")).build(1000)
    assert sum(parameter.numel() for parameter in network.parameters()) == 6_998_552
    assert forward_flops(network, (1, 3, 224, 224)) / 2e6 == pytest.approx(1582.7, abs=0.05)


def test_channels_are_those_of_table_1() -> None:
    with torch.device("meta"):
        encoder = GoogLeNet(output_stride=32)
    assert encoder.features == ((64, 2), (192, 4), (480, 8), (832, 16), (1024, 32))


@pytest.mark.parametrize("batch_norm", [False, True])
def test_every_output_stride_is_exact(batch_norm: bool) -> None:
    assert_exact(GoogLeNetConfig(name="googlenet", batch_norm=batch_norm, width=0.125).build)


def test_torchvisions_every_output_stride_is_exact() -> None:
    assert_exact(TorchvisionGoogLeNetConfig(name="googlenet_torchvision", width=0.125).build)


def test_initial_values_are_caffes() -> None:
    encoder = GoogLeNet()
    weight, bias = encoder.get_parameter("blocks.4.conv.weight"), encoder.get_parameter("blocks.4.conv.bias")
    assert weight.shape == (192, 64, 3, 3)
    assert weight.std().item() == pytest.approx((1 / (64 * 9)) ** 0.5, rel=0.02)
    assert weight.abs().max() <= (3 / (64 * 9)) ** 0.5
    assert (bias == 0.2).all()


@torch.inference_mode()
def test_response_norm_is_not_infinite_in_half_precision() -> None:
    """The square of 1000 is no number of float16."""
    norm: Any = GoogLeNet(width=0.125).blocks[2]
    x = torch.linspace(-1000, 1000, 8 * 9).reshape(1, 8, 3, 3)
    expected = ResponseNorm()(x)
    assert torch.allclose(norm(x), expected, rtol=1e-5)
    for dtype, tolerance in ((torch.float16, 2e-3), (torch.bfloat16, 2e-2)):
        assert norm(x.to(dtype)).dtype == dtype
        assert torch.allclose(norm(x.to(dtype)).float(), expected, rtol=tolerance)


def auxiliary_names() -> dict[str, str]:
    """torchvision's, by ours: its fully connected layer over 4 x 4 places is a convolution here."""
    layers = {"layers.0.": "conv.conv.", "layers.1.": "conv.bn.", "layers.3.": "fc1.", "fc.": "fc2."}
    return {f"{i}.{ours}": f"aux{i + 1}.{theirs}" for i in range(2) for ours, theirs in layers.items()}


def test_auxiliary_heads_are_torchvisions() -> None:
    """Behind the pool, which is the paper's here: 14 x 14 places, of 224 px, by 5 x 5 and 3 to 4 x 4."""
    peer = Peer(aux_logits=True, init_weights=False)
    randomise(peer)
    encoder = GoogLeNetConfig(name="googlenet", batch_norm=True)
    network = ClassifierConfig(encoder=encoder, auxiliary="batch_norm").build(1000)
    heads: Any = network.auxiliary
    assert sum(parameter.numel() for parameter in heads.parameters()) == 6_379_984
    state = {
        ours + name.removeprefix(theirs): tensor
        for ours, theirs in auxiliary_names().items()
        for name, tensor in peer.state_dict().items()
        if name.startswith(theirs)
    }
    heads.load_state_dict({name: value.reshape(heads.state_dict()[name].shape) for name, value in state.items()})
    generator = torch.Generator().manual_seed(1)
    for own, theirs, channels in zip(heads.eval(), (peer.aux1, peer.aux2), (512, 528), strict=True):
        feature = torch.rand(2, channels, 14, 14, generator=generator)
        pooled = F.avg_pool2d(feature, 5, 3)
        assert pooled.shape[2:] == (4, 4)
        assert torch.allclose(own(feature), theirs.eval()(pooled), rtol=1e-4, atol=1e-5)
        assert own.layers[6].p == 0.7


def test_auxiliary_heads_stand_behind_4a_and_4d_in_training_alone() -> None:
    network = ClassifierConfig(encoder=GoogLeNetConfig(name="googlenet", width=0.125), auxiliary="plain").build(5)
    seen = {}
    names = [unit.name for unit in UNITS]
    for name in ("inception4a", "inception4d"):
        block: Any = network.get_submodule(f"encoder.blocks.{names.index(name)}")
        block.register_forward_hook(lambda module, inputs, output, name=name: seen.update({name: output}))
    images = torch.rand(2, 3, 64, 64)
    outputs = network.train()(images)
    assert [each.shape for each in outputs] == [(2, 5)] * 3
    heads: Any = network.auxiliary
    sum(each.sum() for each in outputs[1:]).backward()
    first, second = (heads[i].layers[0].in_channels for i in range(2))
    assert (first, second) == tuple(seen[name].shape[1] for name in ("inception4a", "inception4d"))
    gradients = [
        network.get_submodule(f"encoder.blocks.{names.index(name)}").parameters()
        for name in ("inception4d", "inception4e")
    ]
    assert all(parameter.grad is not None for parameter in gradients[0])
    assert all(parameter.grad is None for parameter in gradients[1]), "what lies behind is not the heads' own"
    assert network.eval()(images).shape == (2, 5)


@torch.inference_mode()
def test_torchvisions_is_torchvisions() -> None:
    """To the logits, given what its `transform_input` makes of the images that its transforms give."""
    peer = Peer(num_classes=10, aux_logits=False, init_weights=False, transform_input=True)
    randomise(peer)
    encoder = TorchvisionGoogLeNetConfig(name="googlenet_torchvision", padding="valid")
    ours = ClassifierConfig(encoder=encoder).build(10).eval()
    files = {name.removeprefix("encoder.") if "blocks" in name else f"head.{name}": name for name in ours.state_dict()}
    names = {timm_name(encoder.name, name): own for name, own in files.items()}
    ours.load_state_dict({names[name]: tensor for name, tensor in peer.state_dict().items()}, strict=True)
    pixels = torch.rand(2, 3, 97, 130, generator=torch.Generator().manual_seed(1))
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET.mean, IMAGENET.std))
    expected = peer.eval()((pixels - mean) / std)
    mean, std = (torch.tensor(values)[:, None, None] for values in (INCEPTION.mean, INCEPTION.std))
    found = ours((pixels - mean) / std)
    assert (found - expected).norm() < 1e-5 * expected.norm()
    assert ours.encoder.normalization == INCEPTION
