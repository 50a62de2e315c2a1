"""TFLite files: written by Google's FlatBuffers library, read strictly, and damaged in each table."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from segapp.base.classes import VOC_CLASSES
from segapp.base.compose import compose_config
from segapp.base.errors import UserError
from segapp.models.deeplabv3plus import DeepLabV3Plus, DeepLabV3PlusConfig
from segapp.weights.sources import tflite
from segapp.weights.sources.common import WeightsMetadata
from segapp.weights.sources.convert import convert
from segapp.weights.sources.tflite_file import TFLiteFile
from tests.networks import randomise
from tests.weights.tflite_files import FLOAT, INT32, UINT8, Graph, graph_of

NOTHING = WeightsMetadata("somewhere", "unknown", ("voc2012 trainaug",), None, 16, 513)


def network(number: int = 3) -> DeepLabV3Plus:
    """Google's smallest, with random weights."""
    overrides = ["model=deeplabv3_mobilenet", "model/encoder=mobilenet_v2_dm05"]
    model = DeepLabV3PlusConfig.model_validate(compose_config("train", overrides)["model"]).build(number).eval()
    randomise(model)
    return model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, DeepLabV3Plus]:
    """A quantised file, and the network that it holds."""
    model = network()
    return graph_of(model).packed(), model


def put(folder: Path, content: bytes) -> Path:
    path = folder / "net.tflite"
    path.write_bytes(content)
    return path


@torch.inference_mode()
def test_a_quantised_file_is_the_network_that_was_written(made: tuple[bytes, DeepLabV3Plus], tmp_path: Path) -> None:
    content, model = made
    info, weights = convert(put(tmp_path, content), NOTHING, tmp_path)
    assert info.network.encoder.name == "mobilenet_v2_dm05"
    assert info.classes == ("class 0", "class 1", "class 2")
    assert (info.canvas, info.jpeg_decoder, info.trained_on) == (513, "tensorflow", ("voc2012 trainaug",))
    assert info.normalization.mean == (128 / 255,) * 3, "a byte of 128 is the input's zero"
    assert info.normalization.std[0] == pytest.approx(128 / 255)
    expected = model.state_dict()
    assert weights.keys() == expected.keys()
    for name, tensor in weights.items():
        assert torch.allclose(tensor.float(), expected[name].float(), rtol=1e-6, atol=1e-7), name
    assert isinstance(info.network, DeepLabV3PlusConfig)
    read = info.network.build(3).eval()
    read.load_state_dict(weights)
    images = torch.rand(1, 3, 65, 81) * 2 - 1
    assert torch.allclose(read(images), model(images), rtol=1e-4, atol=1e-4)


def test_folding_changes_no_value(tmp_path: Path) -> None:
    """In floats: the network before its BN was folded, and that of the file, but for half precision."""
    model, folded = network(), network()
    info, weights = tflite.read(put(tmp_path, graph_of(folded, quantised=False).packed()), NOTHING)
    assert info.normalization.mean == (0.5, 0.5, 0.5)
    assert isinstance(info.network, DeepLabV3PlusConfig)
    read = info.network.build(3).eval()
    read.load_state_dict(weights)
    images = torch.rand(1, 3, 65, 65) * 2 - 1
    with torch.inference_mode():
        expected, actual = model(images), read(images)
    assert (expected - actual).abs().max() < 2e-2 * expected.abs().max()


def test_vocs_names_are_those_of_21_classes_and_others_can_be_given(tmp_path: Path) -> None:
    path = put(tmp_path, graph_of(network(21)).packed())
    assert tflite.read(path, NOTHING)[0].classes == VOC_CLASSES
    three = WeightsMetadata("x", "x", (), ("a", "b", "c"), 16, None)
    with pytest.raises(UserError, match="its logits are for 21 classes; 3 names were given"):
        tflite.read(path, three)


def test_another_output_stride_is_told(made: tuple[bytes, DeepLabV3Plus], tmp_path: Path) -> None:
    other = WeightsMetadata("x", "x", (), None, 8, None)
    with pytest.raises(UserError, match=r"encoder\.blocks\.6\.depthwise\.conv has stride 2 and rate 1, 1 and 1 are"):
        tflite.read(put(tmp_path, made[0]), other)


def spoilt(change: str) -> bytes:
    graph = graph_of(network())
    first = graph.operators[0][1][1]
    shape, kind, content, scale, zero = graph.tensors[first]
    assert content is not None
    if change == "per channel":
        graph.tensors[first] = (shape, kind, content, [0.1] * shape[0], [0] * shape[0])
    elif change == "short":
        graph.tensors[first] = (shape, kind, content[:-1], scale, zero)
    elif change == "wide":
        graph.tensors[first] = ((*shape[:3], 4), kind, content + content[: len(content) // 3], scale, zero)
    elif change == "infinite":
        graph.tensors[first] = (shape, kind, content, [float("inf")], zero)
    elif change == "strings":
        graph.tensors[first] = (shape, 5, content, scale, zero)
    elif change == "operator":
        graph.operators[3] = (99, *graph.operators[3][1:])
    elif change == "convs":
        del graph.operators[1]
    elif change == "input":
        graph.tensors[0] = ((1, 513, 513, 3), UINT8, None, [], [])
    elif change == "bias":
        graph.operators[0] = (*graph.operators[0][:1], graph.operators[0][1][:2], *graph.operators[0][2:])
    elif change == "place":
        graph.operators[0] = (*graph.operators[0][:1], [0, 1, 99999], *graph.operators[0][2:])
    return graph.packed()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("per channel", "is quantised with a scale a channel; one a tensor is read"),
        ("short", "a damaged TFLite file"),
        ("wide", r"encoder\.stem\.conv\.weight is 16x4x3x3, 16x3x3x3 is needed"),
        ("infinite", "holds values that are not finite"),
        ("strings", "a damaged TFLite file"),
        ("operator", "operator 99 is none of its"),
        ("convs", "no MobileNetV2 with DeepLabv3's head"),
        ("input", "its input is not quantised as images are"),
        ("bias", "its convs are not those"),
        ("place", "a damaged TFLite file .a tensor that is not there"),
    ],
)
def test_files_of_another_kind_are_refused(change: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as refused:
        tflite.read(put(tmp_path, spoilt(change)), NOTHING)
    assert "net.tflite" in str(refused.value)


def test_a_graph_of_another_network_is_refused(tmp_path: Path) -> None:
    graph = Graph()
    image = graph.tensor((1, 8, 8, 3), FLOAT)
    weight = graph.tensor((4, 3, 3, 3), FLOAT, np.zeros(108, "<f4").tobytes())
    graph.operator(3, [image, weight, graph.tensor((4,), FLOAT, bytes(16))], (0, 1, 1, 0, 1, 1))
    with pytest.raises(UserError, match="it begins with 4 channels"):
        tflite.read(put(tmp_path, graph.packed()), NOTHING)
    for content in (b"", b"TFL3", b"\x08\0\0\0TFL3", bytes(100), b"\xff" * 100):
        with pytest.raises(UserError, match="TFLite file"):
            TFLiteFile(put(tmp_path, content))
    with pytest.raises(UserError, match="no such file|cannot be read"):
        TFLiteFile(tmp_path / "absent.tflite")


def test_damaged_files_end_in_one_line(tmp_path: Path) -> None:
    """Cut, and with random bytes anywhere but in the weights, where they would be other weights."""
    graph = Graph()
    image = graph.tensor((1, 8, 8, 3), UINT8, None, [0.5], [128])
    weight = graph.tensor((16, 3, 3, 3), UINT8, bytes(432), [0.1], [3])
    graph.operator(3, [image, weight, graph.tensor((16,), INT32, bytes(64), [0.1], [0])], (0, 2, 2, 3, 1, 1))
    whole, chance, refused = graph.packed(), random.Random(0), 0
    for case in range(600):
        content = bytearray(whole)
        if case % 3 == 0:
            content = content[: chance.randrange(len(content))]
        else:
            for _ in range(chance.choice((1, 2, 8))):
                content[chance.randrange(len(content))] = chance.choice((0, 1, 127, 128, 255, chance.randrange(256)))
        path = put(tmp_path, bytes(content))
        try:
            file = TFLiteFile(path)
            for place in range(len(file.tensors)):
                file.values(place)
        except UserError:
            refused += 1
    assert refused > 200
