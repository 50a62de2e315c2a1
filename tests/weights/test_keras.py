"""Keras's Xception, in each form in which Keras writes it."""

import importlib.util
import json
import zipfile
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import Tensor

from segapp.base.errors import UserError
from segapp.cli import run_tool
from segapp.models.encoders.pools import TensorFlowMaxPool2d
from segapp.models.encoders.xception import XceptionConfig
from segapp.weights.checkpoint import CheckpointInfo, read_info, start_encoder_from
from segapp.weights.find import find_encoder
from segapp.weights.sources import keras
from segapp.weights.sources.common import WeightsMetadata

NOTHING = WeightsMetadata("x", "unknown", (), None, 16, None)
WIDTHS = [(128, 128), (256, 256), (728, 728), *[(728, 728, 728)] * 8, (728, 1024), (1536, 2048)]
"""Separable convs of blocks 2 to 14."""
Layer = tuple[str, str, list[np.ndarray[Any, Any]]]
"""Its class, its name and its values."""


def layers(classes: int = 0) -> list[Layer]:
    """In Keras's order and shapes, by keras/src/applications/xception.py; each filled with a number of its own."""
    made: list[Layer] = []

    def add(kind: str, name: str, *shapes: tuple[int, ...]) -> None:
        values = [np.full(shape, len(made) + i / 8, np.float32) for i, shape in enumerate(shapes)]
        made.append((kind, name, values))

    def bn(name: str, channels: int) -> None:
        add("BatchNormalization", name, *[(channels,)] * 4)

    for i, (inputs, outputs) in enumerate(((3, 32), (32, 64)), start=1):
        add("Conv2D", f"block1_conv{i}", (3, 3, inputs, outputs))
        bn(f"block1_conv{i}_bn", outputs)
        add("Activation", f"block1_conv{i}_act")
    channels, skips = 64, 0
    for block, widths in enumerate(WIDTHS, start=2):
        entered = channels
        for i, width in enumerate(widths, start=1):
            add("SeparableConv2D", f"block{block}_sepconv{i}", (3, 3, channels, 1), (1, 1, channels, width))
            bn(f"block{block}_sepconv{i}_bn", width)
            channels = width
        if block in (2, 3, 4, 13):
            number = f"_{skips + 9}" if skips else ""  # whatever was made before in the same process
            add("Conv2D", f"conv2d{number}", (1, 1, entered, channels))
            bn(f"batch_normalization{number}", channels)
            skips += 1
    if classes:
        add("Dense", "predictions", (2048, classes), (classes,))
    return made


def write_h5(path: Path, made: list[Layer], *, suffix: str = ":0", whole: bool = False) -> Path:
    """As Keras's own files of weights, or a whole model."""
    with h5py.File(path, "w") as file:
        group = file.create_group("model_weights") if whole else file
        group.attrs["layer_names"] = [name.encode() for _, name, _ in made]
        for _, name, values in made:
            names = [f"{name}/{i}{suffix}" for i in range(len(values))]
            group.create_group(name).attrs["weight_names"] = [each.encode() for each in names]
            for each, value in zip(names, values, strict=True):
                group[name].create_dataset(each, data=value, compression=1)
    return path


def write_keras(path: Path, made: list[Layer], *, nested: bool = False) -> Path:
    """As Keras 3: `nested` in a model with dense layers behind it."""
    config: list[dict[str, Any]] = [{"class_name": kind, "config": {"name": name}} for kind, name, _ in made]
    snakes = {"Conv2D": "conv2d", "SeparableConv2D": "separable_conv2d", "BatchNormalization": "batch_normalization"}
    counts: dict[str, int] = {}
    weights = path.with_suffix(".inside.h5")
    with h5py.File(weights, "w") as file:
        group = file.create_group("layers/functional/layers" if nested else "layers")
        for kind, _, values in made:
            snake = snakes.get(kind, kind.lower())
            number = counts.get(snake, 0)
            counts[snake] = number + 1
            place = group.create_group(f"{snake}_{number}" if number else snake).create_group("vars")
            for i, value in enumerate(values):
                place.create_dataset(str(i), data=value, compression=1)
        if nested:
            file["layers"].create_group("dense/vars").create_dataset("0", data=np.ones((2048, 6), np.float32))
            config = [
                {"class_name": "Functional", "config": {"name": "xception", "layers": config}},
                {"class_name": "Dense", "config": {"name": "dense"}},
            ]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps({"class_name": "Functional", "config": {"layers": config}}))
        archive.write(weights, "model.weights.h5")
    return path


def assert_read(info: CheckpointInfo, weights: dict[str, Tensor], made: list[Layer]) -> None:
    values = {name: each for _, name, each in made}
    spots = {
        "stem.0.conv.weight": values["block1_conv1"][0].transpose(3, 2, 0, 1),
        "stem.1.bn.running_var": values["block1_conv2_bn"][3],
        "blocks.0.convs.0.depthwise.weight": values["block2_sepconv1"][0].transpose(2, 3, 0, 1),
        "blocks.0.convs.1.pointwise.weight": values["block2_sepconv2"][1].transpose(3, 2, 0, 1),
        "blocks.0.shortcut.conv.weight": values["conv2d"][0].transpose(3, 2, 0, 1),
        "blocks.2.shortcut.bn.bias": values["batch_normalization_11"][1],
        "blocks.11.shortcut.bn.running_mean": values["batch_normalization_12"][2],
        "blocks.7.convs.2.bn.weight": values["block9_sepconv3_bn"][0],
        "blocks.12.convs.1.pointwise.weight": values["block14_sepconv2"][1].transpose(3, 2, 0, 1),
    }
    for name, expected in spots.items():
        assert np.array_equal(weights[name].numpy(), expected), name
    known = [each for _, _, values in made for each in values]
    sums = sorted(float(tensor.double().mean()) for name, tensor in weights.items() if not name.endswith("tracked"))
    assert sums == sorted(float(each.flat[0]) for each in known), "each of theirs is one of ours"
    assert info.network.encoder == XceptionConfig(name="xception")
    assert info.normalization.mean == (0.5, 0.5, 0.5)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["h5", "whole h5", "keras 3's h5", "keras"])
def test_each_form_that_keras_writes(form: str, tmp_path: Path) -> None:
    made = layers(classes=7)
    if form == "keras":
        path = write_keras(tmp_path / "a.keras", made)
    else:
        suffix = "" if form.startswith("keras") else ":0"
        path = write_h5(tmp_path / "a.h5", made, suffix=suffix, whole=form == "whole h5")
    info, weights = keras.read(path, NOTHING)
    assert info.classes == tuple(f"class {i}" for i in range(7))
    assert_read(info, weights, made)


@pytest.mark.slow
def test_a_model_around_it_is_left_out_and_training_starts_from_it(tmp_path: Path) -> None:
    made = layers()
    path = write_keras(tmp_path / "a.keras", made, nested=True)
    output = tmp_path / "ours.safetensors"
    assert run_tool("import_weights", [str(path), f"output={output}"]) == 0
    config = XceptionConfig(name="xception")
    encoder = config.build(16)
    info = start_encoder_from(find_encoder(str(output), config), encoder)
    assert read_info(output).classes == ()
    assert_read(info, encoder.state_dict(), made)


@pytest.mark.slow
def test_strict(tmp_path: Path) -> None:
    made = layers()
    first = made[0]
    for damaged, message in (
        (made[1:], "no Xception of Keras's: it lacks block1_conv1"),
        ([each for each in made if each[1] != "conv2d_10"], "lacks the conv of a skip of 256 channels"),
        ([*made, ("Conv2D", "more", [np.ones((1, 1, 2, 2), np.float32)])], "also holds more"),
        ([(*first[:2], [first[2][0][..., :8]]), *made[1:]], "block1_conv1 is 8x3x3x3, 32x3x3x3 is needed"),
        ([(*first[:2], [first[2][0] * np.nan]), *made[1:]], "block1_conv1 holds values that are not finite"),
    ):
        with pytest.raises(UserError, match=message):
            keras.read(write_h5(tmp_path / "a.h5", damaged), NOTHING)


@pytest.mark.parametrize("suffix", [".h5", ".keras"])
@pytest.mark.parametrize("content", [b"", b"nothing", b"\x89HDF\r\n\x1a\n" + b"\0" * 64, b"PK\x03\x04" + b"\0" * 64])
def test_what_is_no_file_of_keras_is_told_in_a_line(
    content: bytes, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    arguments = [str(path), f"output={tmp_path / 'b.safetensors'}", "trained_on=[imagenet]"]
    assert run_tool("import_weights", arguments) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {path}: damaged, or no file of Keras's")
    assert len(told.splitlines()) == 1
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_file_without_the_names_of_layers(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.weights.h5", "w") as file:
        file.create_group("layers/conv2d/vars")
    with pytest.raises(UserError, match=r"names no layers.*model\.save\('NAME\.keras'\)"):
        keras.read(tmp_path / "a.weights.h5", NOTHING)
    with pytest.raises(UserError, match=r"is Keras's: tools/import_weights\.py"):
        find_encoder(str(tmp_path / "a.weights.h5"), XceptionConfig(name="xception"))


@pytest.mark.parametrize("side", [8, 9])
def test_tensorflows_pool_pads_an_even_side_after_it_alone(side: int) -> None:
    """Windows of an even side begin at its first place, of an odd one a place before."""
    x = torch.arange(side * side, dtype=torch.float32).view(1, 1, side, side)
    output = TensorFlowMaxPool2d(3, 2)(x)
    before = 0 if side % 2 == 0 else 1
    last = [min(2 * i - before + 2, side - 1) for i in range(-(-side // 2))]
    expected = torch.tensor([[row * side + column for column in last] for row in last], dtype=torch.float32)
    assert torch.equal(output[0, 0], expected)


@torch.inference_mode()
def test_keras_padding_is_for_a_classifier() -> None:
    encoder = XceptionConfig(name="xception", padding="tensorflow", width=0.125).build(32).eval()
    assert encoder(torch.zeros(1, 3, 299, 299))[-1].shape[2:] == (10, 10)
    with pytest.raises(UserError, match="padding=tensorflow is for a classifier; output stride 16"):
        XceptionConfig(name="xception", padding="tensorflow").build(16)
    assert XceptionConfig(name="xception", padding="tensorflow").is_as_published
    assert XceptionConfig(name="xception", padding="valid").is_as_published
    assert not XceptionConfig(name="xception", activation="elu").is_as_published


def test_that_h5py_is_missing_is_told_before_a_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGAPP_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"xception_keras: .*pip install 'segapp\[keras\]'"):
        find_encoder("xception_keras", XceptionConfig(name="xception"))
    assert not [*tmp_path.rglob("*.h5")]
