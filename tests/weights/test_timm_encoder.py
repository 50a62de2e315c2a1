"""Weights of any network of timm's, from files as they are on its hub."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from segapp.base.errors import UserError
from segapp.cli import run_tool
from segapp.models.encoders.timm import TimmConfig
from segapp.weights.checkpoint import read_info, start_encoder_from
from segapp.weights.find import find_encoder
from segapp.weights.sources import timm_encoder
from segapp.weights.sources.common import WeightsMetadata
from segapp.weights.zoo import ZOO
from tests.networks import randomise


def published(path: Path, model: str, classes: int = 1000) -> Any:
    torch.manual_seed(0)
    network: Any = timm.create_model(model, num_classes=classes).eval()
    randomise(network)
    save_file({name: tensor.clone() for name, tensor in network.state_dict().items()}, path)
    return network


@pytest.mark.parametrize(
    ("model", "classes"),
    [("test_resnet", 1000), ("resnet18", 7), ("test_convnext", 1000), ("mobilenetv3_large_100.miil_in21k_ft_in1k", 9)],
)
def test_the_encoder_is_timms_with_its_normalisation(model: str, classes: int, tmp_path: Path) -> None:
    theirs = published(tmp_path / "model.safetensors", model, classes)
    ours = tmp_path / "ours.safetensors"
    arguments = [str(tmp_path / "model.safetensors"), f"timm={model}", f"output={ours}", "trained_on=[imagenet]"]
    assert run_tool("import_weights", arguments) == 0
    info = read_info(ours)
    cfg = theirs.pretrained_cfg
    assert (info.normalization.mean, info.normalization.std) == (cfg["mean"], cfg["std"])
    assert info.trained_on == ("imagenet",)
    config = TimmConfig(name="timm", model=model)
    encoder = config.build(32).eval()
    start_encoder_from(find_encoder(str(ours), config), encoder)
    images = torch.rand(1, 3, 64, 96)
    features: Any = timm.create_model(model, features_only=True).eval()
    # By order: where timm renames a layer, it keeps its place.
    kept = {name: each for name, each in theirs.state_dict().items() if each.numel()}
    by_value = {float(each.double().sum()) for each in kept.values()}
    assert {float(each.double().sum()) for each in encoder.state_dict().values()} <= by_value
    features.load_state_dict(encoder.network.state_dict())
    with torch.inference_mode():
        for output, wanted in zip(encoder(images), features(images), strict=True):
            assert torch.allclose(output, wanted, atol=1e-4 * wanted.abs().max().item())


def test_strict(tmp_path: Path) -> None:
    state = dict(published(tmp_path / "a.safetensors", "test_resnet").state_dict())
    path = tmp_path / "b.safetensors"
    for damaged, message in (
        ({name: each for name, each in state.items() if name != "conv1.0.weight"}, "it lacks conv1.0.weight"),
        (state | {"more": torch.zeros(1)}, "it also holds more"),
        (state | {"conv1.0.weight": torch.zeros(8)}, "conv1.0.weight is 8, "),
        (state | {"conv1.0.weight": state["conv1.0.weight"] * torch.nan}, "not finite"),
    ):
        save_file({name: each.clone() for name, each in damaged.items()}, path)
        with pytest.raises(UserError, match=message):
            timm_encoder.read(path, "test_resnet", WeightsMetadata("x", "unknown", (), None, 16, None))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.safetensors", "timm=resnet5O"], "timm has no such network"),
        (["a.safetensors", "timm=resnet18"], "no resnet18 of timm's: it "),
        (["a.pth", "timm=test_resnet"], "a.pth: no such safetensors file"),
        (["a.safetensors"], "timm=NAME says which other network of timm's it is"),
    ],
)
def test_mistakes(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    save_file({"a": torch.zeros(1)}, "a.safetensors")
    Path("a.pth").write_bytes(b"nothing")
    assert run_tool("import_weights", [*arguments, "output=b.safetensors", "trained_on=[imagenet]"]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert len(told.splitlines()) == 1
    assert not Path("b.safetensors").exists()


def test_the_zoo_knows_timms_by_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted: list[str] = []

    def noted(name: str, *, offline: bool) -> Path:
        wanted.append(name)
        return Path(name)

    monkeypatch.setattr("segapp.weights.find.published", noted)
    for model in ("resnet50", "resnet50.a1_in1k", "resnet50.tv2_in1k"):
        find_encoder("auto", TimmConfig(name="timm", model=model))
    assert wanted == ["resnet50.tv2_in1k"] * 3
    with pytest.raises(UserError, match="none are published for resnet18; null"):
        find_encoder("auto", TimmConfig(name="timm", model="resnet18"))
    with pytest.raises(UserError, match=r"vgg16\.tv_in1k is not for timm of model resnet50"):
        find_encoder("vgg16.tv_in1k", TimmConfig(name="timm", model="resnet50"))
    for entry in ZOO.values():
        assert (entry.timm is not None) == (entry.encoder == "timm")
        assert entry.timm is None or timm.get_pretrained_cfg(entry.timm) is not None
