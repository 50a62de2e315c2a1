"""Files of timm's and torchvision's whose tensors have other names here."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models import AlexNet, GoogLeNet, Inception3

from segapp.base.errors import UserError
from segapp.cli import run_tool
from segapp.models.classifier import ClassifierConfig
from segapp.models.encoders.interface import IMAGENET, INCEPTION
from segapp.weights.checkpoint import CheckpointInfo, read_info, shapes_of
from segapp.weights.sources.common import WeightsMetadata
from segapp.weights.sources.convert import convert, write_timm
from segapp.weights.sources.timm import RENAMED
from segapp.weights.sources.timm_names import timm_name

NOTHING = WeightsMetadata("x", "unknown", (), None, 16, None)
PEERS = {"xception": "legacy_xception", "inception_v3": "inception_v3"}
"""timm's names, by ours."""


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Random values in the place of those that a model without memory has not."""
    state = {key: torch.empty(tensor.shape, dtype=tensor.dtype) for key, tensor in model.state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    for key, tensor in state.items():
        tensor.uniform_(generator=generator) if tensor.is_floating_point() else tensor.fill_(len(key))
    return state


def timm_state(name: str) -> dict[str, Tensor]:
    with torch.device("meta"):
        model = timm.create_model(PEERS[name])
    return state_of(model)


def torchvision_state() -> dict[str, Tensor]:
    with torch.device("meta"):
        model = Inception3(init_weights=False)
    return state_of(model)


@pytest.mark.parametrize("name", PEERS)
def test_each_name_of_ours_has_one_of_theirs(name: str) -> None:
    encoder = next(each for each in RENAMED if each.name == name)
    with torch.device("meta"):
        theirs = timm.create_model(PEERS[name]).state_dict()
    ours = shapes_of(
        CheckpointInfo(
            network=ClassifierConfig(encoder=encoder),
            classes=tuple(map(str, range(1000))),
            normalization=encoder.build(32).normalization,
            trained_on=(),
        )
    )
    renamed = {timm_name(name, key): tensor.shape for key, tensor in ours.items()}
    assert len(renamed) == len(ours)
    assert renamed == {key: tensor.shape for key, tensor in theirs.items()}


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("name", PEERS)
def test_theirs_to_ours_to_theirs_is_the_same_bits(name: str, suffix: str, tmp_path: Path) -> None:
    state = timm_state(name)
    theirs, ours, back = (tmp_path / file for file in (f"a{suffix}", "b.safetensors", "c.safetensors"))
    save_file(state, theirs) if suffix == ".safetensors" else torch.save({"state_dict": state}, theirs)
    assert run_tool("import_weights", [str(theirs), f"output={ours}"]) == 0
    assert run_tool("import_weights", [str(ours), f"output={back}", "format=timm"]) == 0
    info = read_info(ours)
    assert (info.network.encoder.name, len(info.classes)) == (name, 1000)
    returned = load_file(back)
    assert returned.keys() == state.keys()
    assert all(torch.equal(returned[key], tensor) for key, tensor in state.items())


@pytest.mark.slow
def test_torchvisions_auxiliary_classifier_is_left_out(tmp_path: Path) -> None:
    state = torchvision_state()
    save_file(state, tmp_path / "a.safetensors")
    info, weights = convert(tmp_path / "a.safetensors", NOTHING, tmp_path)
    write_timm(tmp_path / "b.safetensors", info, weights)
    returned = load_file(tmp_path / "b.safetensors")
    assert returned.keys() == {key for key in state if not key.startswith("AuxLogits.")}
    assert all(torch.equal(tensor, state[key]) for key, tensor in returned.items())


@pytest.mark.slow
@pytest.mark.parametrize("name", PEERS)
def test_strict_both_ways(name: str, tmp_path: Path) -> None:
    """In the file's own names."""
    state = timm_state(name)
    first = next(iter(state))
    for damaged, message in (
        ({key: tensor for key, tensor in state.items() if key != first}, f"no {name} of timm's: it lacks {first}$"),
        (state | {"more": torch.zeros(1)}, "also holds more"),
        (state | {first: torch.zeros(8)}, f"{first} is 8, 32x3x3x3 is needed"),
        (state | {"fc.bias": torch.zeros(8)}, "fc.bias is 8, 1000 is needed"),
    ):
        save_file(damaged, tmp_path / "a.safetensors")
        with pytest.raises(UserError, match=message):
            convert(tmp_path / "a.safetensors", NOTHING, tmp_path)


def test_a_file_of_another_network_is_told_in_a_line(tmp_path: Path) -> None:
    for state, message in (
        ({"a": torch.zeros(1)}, "none of their tensors, but a; nor is it a legacy_xception or"),
        # A ResNet's stem has the names of legacy_xception's.
        ({"conv1.weight": torch.zeros(64, 3, 7, 7), "layer1.0.conv1.weight": torch.zeros(1)}, "no xception of timm's"),
    ):
        save_file(state, tmp_path / "a.safetensors")
        with pytest.raises(UserError, match=message):
            convert(tmp_path / "a.safetensors", NOTHING, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["googlenet_torchvision", "alexnet_torchvision"])
def test_torchvisions_files(name: str, tmp_path: Path) -> None:
    """As torch.save wrote them before 2020, too: what is no part of ours is left out, and the rest strict."""
    with torch.device("meta"):
        peer = GoogLeNet(init_weights=False) if name == "googlenet_torchvision" else AlexNet()
    large = {f"classifier.{layer}.weight" for layer in (1, 4, 6)}
    state = {key: tensor for key, tensor in state_of(peer).items() if key not in large}
    torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    info, weights = convert(tmp_path / "a.pth", NOTHING, tmp_path)
    assert info.network.encoder.name == name
    assert info.normalization == (INCEPTION if name == "googlenet_torchvision" else IMAGENET)
    assert len(info.classes) == (1000 if name == "googlenet_torchvision" else 0)
    write_timm(tmp_path / "b.safetensors", info, weights)
    returned = load_file(tmp_path / "b.safetensors")
    assert returned.keys() == {key for key in state if not key.startswith(("aux", "classifier."))}
    assert all(torch.equal(tensor, state[key]) for key, tensor in returned.items())
    first = next(iter(state))
    del state[first]
    save_file(state, tmp_path / "c.safetensors")
    with pytest.raises(UserError, match=f"no {name}: it lacks {first}$"):
        convert(tmp_path / "c.safetensors", NOTHING, tmp_path)


def test_code_in_an_old_file_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"conv1.weight": Evil()}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(UserError, match="more than plain tensors, which is not loaded"):
        convert(tmp_path / "a.pth", NOTHING, tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.slow
def test_gluons_inception_v3_wants_other_images(tmp_path: Path) -> None:
    state = timm_state("inception_v3")
    for tag, normalization in (("inception_v3.gluon_in1k", IMAGENET), ("inception_v3.tf_in1k", INCEPTION)):
        (tmp_path / tag).mkdir()
        save_file(state, tmp_path / tag / "model.safetensors")  # as the hub's folders have it
        info, _ = convert(tmp_path / tag / "model.safetensors", NOTHING, tmp_path)
        assert info.normalization == normalization
        cfg: Any = timm.get_pretrained_cfg(tag)
        assert (cfg.mean, cfg.std) == (normalization.mean, normalization.std)
