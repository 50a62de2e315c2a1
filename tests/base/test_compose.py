"""Keys of version 0.1, keys that take text, and configs that it has kept."""

import copy
import logging
from pathlib import Path
from typing import Any

import pytest
import yaml

from segapp.base.compose import RENAMED, read_config, upgraded, validate
from segapp.base.config import Config
from segapp.base.errors import UserError
from segapp.base.paths import CONF, as_invoked, runs_folder
from segapp.commands.import_weights import ImportConfig
from segapp.commands.predict import PredictConfig
from segapp.evaluation.config import EvalToolConfig
from segapp.models.deeplabv3plus import DeepLabV3PlusConfig
from segapp.training.config import TrainConfig


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("model.encoder.weights=null", "encoder_weights", None),
        ("model.encoder.weights=runs/my run", "encoder_weights", "runs/my run"),
        ("++model.bn_momentum=0.1", "bn_momentum", 0.1),
        ("model.activation_checkpointing=true", "activation_checkpointing", True),
    ],
)
def test_old_keys_still_work_and_the_new_one_is_named(
    override: str, key: str, value: object, caplog: pytest.LogCaptureFixture
) -> None:
    assert getattr(read_config("train", [override], TrainConfig), key) == value
    old = override.lstrip("+").partition("=")[0]
    assert f"{old} is now {RENAMED[old]}" in caplog.text


def test_an_old_key_of_the_import(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert read_config("import_weights", ["splits_seen=[a, b]"], ImportConfig).trained_on == ("a", "b")
    assert "splits_seen is now trained_on" in caplog.text


@pytest.mark.parametrize("number", ["", "41", "71"])
def test_old_models_are_choices_of_an_encoder(number: str) -> None:
    old = read_config("train", [f"model=deeplabv3plus_xception{number}"], TrainConfig)
    assert old == read_config("train", [f"model/encoder=xception{number or 65}"], TrainConfig)
    assert old == read_config("train", [f"model.encoder.name=xception{number or 65}"], TrainConfig)


def test_an_old_key_in_a_file_is_named() -> None:
    values = read_config("train", [], TrainConfig).model_dump(mode="json")
    values["model"]["bn_momentum"] = 0.1
    with pytest.raises(UserError, match=r"model\.bn_momentum is now bn_momentum"):
        validate(values, TrainConfig)


def test_a_config_of_version_0_1_is_upgraded() -> None:
    now: dict[str, Any] = read_config("train", ["experiment=demo"], TrainConfig).model_dump(mode="json")
    then = copy.deepcopy(now)
    then["model"]["name"] = "deeplabv3plus"
    del then["model"]["kind"], then["model"]["decoder"]["low_level_stride"]
    for old, new in RENAMED.items():
        if new in then:
            *parents, last = old.split(".")
            place = then
            for parent in parents:
                place = place[parent]
            place[last] = then.pop(new)
    assert then["model"]["encoder"]["weights"] is None
    assert validate(upgraded(then), TrainConfig) == validate(now, TrainConfig)


@pytest.mark.parametrize(
    ("tool", "kind", "override", "key"),
    [
        # those that a list of keys named by hand until version 0.1
        *(("train", TrainConfig, f"{key}=a,b (1)={{x}}", key) for key in ("output", "checkpoint", "resume", "name")),
        *(("train", TrainConfig, f"data.{key}=a [1]", f"data.{key}") for key in ("root", "train", "val")),
        *(("eval", EvalToolConfig, f"{key}=a$b", key) for key in ("predictions", "against")),
        ("predict", PredictConfig, "labels=é & è", "labels"),
        ("import_weights", ImportConfig, "licence=MIT, or (so)", "licence"),
        ("import_weights", ImportConfig, "classes=[x].yaml", "classes"),
        ("train", TrainConfig, "encoder_weights=my, own.safetensors", "encoder_weights"),
    ],
)
def test_what_takes_text_is_taken_as_it_is_typed(tool: str, kind: type[Config], override: str, key: str) -> None:
    value: Any = read_config(tool, [override], kind)
    for part in key.split("."):
        value = getattr(value, part)
    assert str(value) == override.partition("=")[2]


def test_a_mapping_is_one_where_a_key_takes_it() -> None:
    """data.classes is a file of data=folder and a mapping of data=coco."""
    config: Any = read_config("train", ["data=coco", "data.classes={pet: [cat, dog]}"], TrainConfig)
    assert config.data.classes == {"pet": ("cat", "dog")}
    config = read_config("train", ["data=folder", "data.classes=my (1) classes.yaml"], TrainConfig)
    assert config.data.classes == Path("my (1) classes.yaml")


def test_every_encoder_file_is_a_choice() -> None:
    with pytest.raises(UserError, match="model/encoder/resnet: no such choice; there are: .*xception65"):
        read_config("train", ["model/encoder=resnet"], TrainConfig)
    for path in (CONF / "model" / "encoder").glob("*.yaml"):
        name = yaml.safe_load(path.read_text())["name"]
        assert read_config("train", [f"model/encoder={path.stem}"], TrainConfig).model.encoder.name == name


def test_runs_go_to_the_working_directory_or_where_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGAPP_RUNS", str(tmp_path / "elsewhere"))
    assert runs_folder() == tmp_path / "elsewhere"
    monkeypatch.delenv("SEGAPP_RUNS")
    monkeypatch.chdir(tmp_path)
    assert runs_folder() == tmp_path / "runs"


def test_commands_are_told_as_they_can_be_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "uv run python tools/train.py x; python tools/eval.py, tools/import_weights.py list"
    assert as_invoked(text) == text, "in a clone"
    monkeypatch.setattr("segapp.base.paths.IN_CLONE", False)
    assert as_invoked(text) == "segapp train x; segapp eval, segapp import_weights list"


@pytest.mark.parametrize("encoder", [path.stem for path in (CONF / "model" / "encoder").glob("*.yaml")])
def test_an_experiment_goes_with_every_encoder(encoder: str) -> None:
    """The demo sets its encoder's width, and not every one has such a key."""
    config = read_config("train", ["experiment=demo", f"model/encoder={encoder}"], TrainConfig)
    assert config.model.encoder.name == encoder
    assert getattr(config.model.encoder, "width", 0.25) == 0.25
    assert isinstance(config.model, DeepLabV3PlusConfig)
    assert config.model.aspp.channels == 64


def test_what_an_experiment_sets_of_another_choice_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        read_config("train", ["experiment=demo", "model/encoder=timm"], TrainConfig)
    assert "model.encoder.width is left out: what is chosen has no such key" in caplog.text
    typed = ["experiment=demo", "model/encoder=timm", "model.encoder.width=0.5"]
    with pytest.raises(UserError, match=r"model\.encoder\.width is no key of this config"):
        read_config("train", typed, TrainConfig)
    with pytest.raises(UserError, match="is no key of this config"):
        read_config("train", ["model/encoder=timm", "model.encoder.width=0.5"], TrainConfig)
