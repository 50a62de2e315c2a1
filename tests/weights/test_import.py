"""Weights from elsewhere: the names, the values, and the function that the network then computes."""

import hashlib
import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from segapp.base.classes import VOC_CLASSES
from segapp.base.compose import read_config
from segapp.base.errors import UserError
from segapp.cli import run_tool
from segapp.evaluation.config import EvalToolConfig
from segapp.models.deeplabv3plus import DeepLabV3PlusConfig, DensePredictionCellConfig
from segapp.models.encoders.interface import IMAGENET, INCEPTION
from segapp.training.config import TrainConfig
from segapp.weights.checkpoint import CheckpointInfo, load_model, read_info, save_checkpoint
from segapp.weights.sources.common import WeightsMetadata
from segapp.weights.sources.convert import convert
from segapp.weights.sources.tensorflow import _iteration
from segapp.weights.sources.tensorflow import read as from_tensorflow
from segapp.weights.sources.tensorflow_checkpoint import TFCheckpoint
from segapp.weights.sources.tensorflow_names import tf_name, tf_places
from segapp.weights.sources.timm import GLUON
from segapp.weights.zoo import ZOO
from tests.bundles import Shapes, write_bundle, write_index
from tests.networks import config, small
from tests.tensorflow.weights import (
    FIXTURES,
    classifier_variables,
    feature,
    image,
    mobilenet_variables,
    trainable,
    values,
    variables,
)

VARIANTS = {"xception41": "xception_41", "xception65": "xception_65", "xception71": "xception_71"}
NOTHING = WeightsMetadata("somewhere", "unknown", (), None, 16, 513)
Capture = pytest.CaptureFixture[str]


def to_theirs(shape: torch.Size, axes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(shape[axes.index(axis)] for axis in range(len(axes)))


@pytest.mark.slow
@pytest.mark.parametrize("pooling", [True, False])
@pytest.mark.parametrize("decoder", [True, False])
@pytest.mark.parametrize("classes", [19, 21, 151])
@pytest.mark.parametrize("encoder", VARIANTS)
def test_names_and_shapes_are_those_of_the_released_graph(
    encoder: str, classes: int, decoder: bool, pooling: bool
) -> None:
    """Ours, mapped, are the variables that an independent table of the graph lists: none more, none less."""
    changes = {"encoder__name": encoder, "aspp__image_pooling": pooling} | ({} if decoder else {"decoder": None})
    settings = config(**changes)
    with torch.device("meta"):
        state = settings.build(classes).state_dict()
    places = tf_places(settings)
    mapped = {}
    for name, tensor in state.items():
        if not name.endswith("num_batches_tracked"):
            theirs, axes = tf_name(name, places)
            assert theirs not in mapped
            mapped[theirs] = to_theirs(tensor.shape, axes)
    assert mapped == variables(VARIANTS[encoder], classes, decoder, pooling)


def test_the_dense_variants_names() -> None:
    """slim.conv2d under model.py's scopes; slim.repeat numbers the decoder's (research/deeplab/model.py)."""
    settings = config(aspp__separable=False, decoder={"channels": 256, "low_level_channels": 48, "separable": False})
    places = tf_places(settings)
    assert tf_name("aspp.branches.1.conv.weight", places)[0] == "aspp1/weights"
    assert tf_name("decoder.conv0.conv.weight", places)[0] == "decoder/decoder_conv0/decoder_conv0_1/weights"
    assert tf_name("decoder.conv1.bn.bias", places)[0] == "decoder/decoder_conv0/decoder_conv0_2/BatchNorm/beta"


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A full-size Xception-65 checkpoint for VOC as the released ones are, slots and counter included. Read only."""
    folder = tmp_path_factory.mktemp("released") / "deeplabv3_pascal_train_aug"
    folder.mkdir()
    arrays = variables("xception_65", 21)
    slots = {f"{name}/Momentum": shape for name, shape in arrays.items() if trainable(name) and "logits" in name}
    slots |= {"logits/semantic/weights/ExponentialMovingAverage": arrays["logits/semantic/weights"], "global_step": ()}

    def made(name: str, shape: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        if name == "global_step":
            return np.full(shape, 7, np.int64)
        return values(name, shape) if name in arrays else np.full(shape, 7, np.float32)

    write_bundle(folder / "model.ckpt", arrays | slots, made)
    yield folder / "model.ckpt"
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def imported(released: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("imported") / "voc.safetensors"
    assert run_tool("import_weights", [str(released), f"output={path}"]) == 0
    yield path
    path.unlink()


@pytest.mark.slow
@pytest.mark.parametrize("output_stride", [16, 8])
@pytest.mark.parametrize("fixture", ["logits_65", "logits_65_wide"])
def test_logits_are_those_of_tensorflows_own_ops(imported: Path, fixture: str, output_stride: int) -> None:
    """The same values, put through TensorFlow (tests/tensorflow/reference.py): eps, padding, rates, order, layout."""
    with np.load(FIXTURES / f"{fixture}.npz") as file:
        wanted, size = file[f"os{output_stride}"], file["size"]
    model, info = load_model(imported, output_stride)
    assert info.network.model_dump()["output_stride"] == output_stride
    x = torch.from_numpy(image(*size)).permute(2, 0, 1)[None] * (2 / 255) - 1
    with torch.inference_mode():
        logits = model(x)[0].permute(1, 2, 0).numpy()
    if fixture == "logits_65_wide":
        logits = logits[::2, ::2]
    assert logits.shape == wanted.shape
    assert np.abs(logits - wanted).max() < 1e-4 * wanted.std()


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["xception41", "xception71"])
def test_the_other_encoders_logits_too(encoder: str, tmp_path: Path) -> None:
    write_bundle(tmp_path / "model.ckpt", variables(VARIANTS[encoder], 21), values)
    info, weights = from_tensorflow(tmp_path / "model.ckpt", NOTHING)
    assert isinstance(info, CheckpointInfo)
    assert info.network == config(encoder__name=encoder)
    assert max(differences(info, weights, f"logits_{encoder[-2:]}")) < 1e-4


def loaded(info: CheckpointInfo, weights: dict[str, Tensor], output_stride: int) -> nn.Module:
    with torch.device("meta"):
        model = info.network.model_copy(update={"output_stride": output_stride}).build(21)
    model.load_state_dict(weights, assign=True)
    return model.eval()


def differences(info: CheckpointInfo, weights: dict[str, Tensor], fixture: str) -> list[float]:
    """At output strides 16 and 8: the largest difference of logits from TensorFlow's, in their spreads."""
    found = []
    with np.load(FIXTURES / f"{fixture}.npz") as file:
        x = torch.from_numpy(image(*file["size"])).permute(2, 0, 1)[None] * (2 / 255) - 1
        for output_stride in (16, 8):
            with torch.inference_mode():
                logits = loaded(info, weights, output_stride)(x)[0].permute(1, 2, 0).numpy()
            wanted = file[f"os{output_stride}"]
            assert logits.shape == wanted.shape
            found.append(np.abs(logits - wanted).max() / wanted.std())
    return found


@pytest.mark.slow
@torch.inference_mode()
def test_the_dense_prediction_cell_is_tensorflows(tmp_path: Path) -> None:
    """As a head of Xception-71; and alone, on a feature so large that all of its rates show."""
    write_bundle(tmp_path / "model.ckpt", variables("xception_71", 21, cell=True), values)
    info, weights = from_tensorflow(tmp_path / "model.ckpt", NOTHING)
    assert isinstance(info.network, DeepLabV3PlusConfig)
    assert info.network.aspp == DensePredictionCellConfig(name="dense_prediction_cell", channels=256, dropout=0.1)
    assert max(differences(info, weights, "logits_71_cell")) < 1e-4
    with np.load(FIXTURES / "cell.npz") as file:
        height, width = file["size"].tolist()
        x = torch.from_numpy(feature(height, width, 2048)).permute(2, 0, 1)[None]
        for output_stride in (16, 8):
            cell = loaded(info, weights, output_stride).aspp
            outputs = cell(x)[0].permute(1, 2, 0).numpy()[::4, ::4, ::8]  # type: ignore[operator]
            wanted = file[f"os{output_stride}"]
            assert np.abs(outputs - wanted).max() < 1e-4 * wanted.std()
    with pytest.raises(UserError, match="output strides 16 and 8, not 32"):
        loaded(info, weights, 32)


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v2_dm05"])
def test_googles_small_networks_are_tensorflows(name: str, tmp_path: Path) -> None:
    write_bundle(tmp_path / "model.ckpt", mobilenet_variables(name, 21), values)
    info, weights = from_tensorflow(tmp_path / "model.ckpt", NOTHING)
    expected = read_config("train", ["model=deeplabv3_mobilenet", f"model/encoder={name}"], TrainConfig)
    assert info.network == expected.model
    assert max(differences(info, weights, f"logits_{name}")) < 1e-4


def test_of_several_checkpoints_the_last_is_taken_or_that_of_a_step(tmp_path: Path, capsys: Capture) -> None:
    """tf.train.Saver's file says which is the last, by a path on the machine that wrote it."""
    folder = tmp_path / "train_logdir"
    folder.mkdir()
    shapes = {**mobilenet_variables("mobilenet_v2_dm05", 3), "global_step": ()}
    for step in (500, 1000, 1500):

        def made(name: str, shape: tuple[int, ...], step: int = step) -> np.ndarray[Any, Any]:
            return np.full(shape, step, np.int64) if name == "global_step" else values(name, shape)

        write_bundle(folder / f"model.ckpt-{step}", shapes, made)
    output = tmp_path / "x.safetensors"

    def imported_step(source: Path) -> int | None:
        assert run_tool("import_weights", [str(source), f"output={output}"]) == 0
        return read_info(output).iteration

    assert run_tool("import_weights", [str(folder), f"output={output}"]) == 2
    said = capsys.readouterr().err
    assert "model.ckpt-500.index" in said
    assert "train_logdir@STEP names one" in said
    assert imported_step(folder.with_name("train_logdir@500")) == 500
    (folder / "checkpoint").write_text(
        'model_checkpoint_path: "/gone/train_logdir/model.ckpt-1000"\n'
        'all_model_checkpoint_paths: "/gone/train_logdir/model.ckpt-1500"\n'
    )
    assert imported_step(folder) == 1000
    assert run_tool("import_weights", [f"{folder}@7", f"output={output}"]) == 2
    assert "no single checkpoint of step 7" in capsys.readouterr().err
    archive = tmp_path / "trained.tar.gz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(folder, "trained")
    assert imported_step(archive) == 1000
    assert imported_step(archive.with_name("trained.tar.gz@1500")) == 1500
    (folder / "checkpoint").write_bytes(b"\xff" * 100)
    assert run_tool("import_weights", [str(folder), f"output={output}"]) == 2


@pytest.mark.slow
def test_the_file_describes_itself(imported: Path, released: Path) -> None:
    info = read_info(imported)
    assert isinstance(info, CheckpointInfo)
    assert info.classes == VOC_CLASSES
    assert (info.network, info.canvas, info.iteration) == (config(), 513, 7)
    assert info.source is not None
    content = Path(f"{released}.index").read_bytes() + Path(f"{released}.data-00000-of-00001").read_bytes()
    assert info.source.sha256 == hashlib.sha256(content).hexdigest()
    assert imported.stat().st_mode & 0o777 == released.with_name("model.ckpt.index").stat().st_mode & 0o777
    with safe_open(imported, "pt") as file:
        name = "encoder.blocks.3.stack.conv2.conv_dw.weight"
        theirs = "xception_65/middle_flow/block1/unit_1/xception_module/separable_conv2_depthwise/depthwise_weights"
        array = values(theirs, (3, 3, 728, 1))
        assert file.get_tensor(name)[5, 0, 2, 1] == array[2, 1, 5, 0]


def change(shapes: Shapes, **changed: tuple[int, ...] | None) -> Shapes:
    shapes = dict(shapes)
    for name, shape in changed.items():
        name = name.replace("__", "/")
        if shape is None:
            del shapes[name]
        else:
            shapes[name] = shape
    return shapes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_pooling__BatchNorm__beta": None}, "lacks image_pooling/BatchNorm/beta"),
        ({"concat_projection__weights": None}, "lacks concat_projection/weights"),
        ({"logits__semantic__weights": None}, "lacks logits/semantic/weights"),
        ({"more": (3,)}, "also holds more$"),
        ({"more": (3,), "other__Momentum": (3,)}, r"also holds more \(and 1 more\)"),
        ({"aspp0__weights": (1, 1, 2048, 128)}, "aspp0/weights is 1x1x2048x128, 1x1x2048x256 is needed"),
        ({"aspp0__weights": (2048, 256)}, "aspp0/weights is 2048x256, 1x1x2048x256 is needed"),
        ({"aspp1_depthwise__depthwise_weights": (3, 3, 1, 2048)}, "is 3x3x1x2048, 3x3x2048x1 is needed"),
        ({"logits__semantic__biases": (20,)}, "logits/semantic/weights is 1x1x256x21, 1x1x256x20 is needed"),
        ({"logits__semantic__biases": (1000,)}, "its logits are for 1000 classes; 2 to 255 are possible"),
        ({"xception_71__x": (1,)}, "no DeepLab with one encoder that is known"),
        ({}, r"model.ckpt.data-00000-of-00001: cannot be read"),
    ],
)
def test_strict_both_ways(changes: dict[str, tuple[int, ...] | None], message: str, tmp_path: Path) -> None:
    """The shapes are found wrong before any data is looked for; with all right, the missing data is."""
    write_index(tmp_path / "model.ckpt", change(variables("xception_65", 21), **changes))
    with pytest.raises(UserError, match=message):
        from_tensorflow(tmp_path / "model.ckpt", NOTHING)


def test_another_networks_checkpoint_is_named(tmp_path: Path) -> None:
    shapes = {"resnet_v1_50/conv1/weights": (7, 7, 3, 64), "logits/semantic/biases": (21,)}
    write_index(tmp_path / "model.ckpt", shapes)
    with pytest.raises(UserError, match=r"is known here \(Xception, MobileNetV2\); it holds logits, resnet_v1_50"):
        from_tensorflow(tmp_path / "model.ckpt", NOTHING)


def fast(name: str, shape: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape) % 1009


@pytest.mark.slow
def test_an_imagenet_classifier_without_its_background(tmp_path: Path) -> None:
    """1001 outputs become timm's 1000, and timm loads the file strictly."""
    write_bundle(tmp_path / "model.ckpt", classifier_variables("xception_41"), fast)
    out = tmp_path / "x.safetensors"
    arguments = [str(tmp_path / "model.ckpt"), f"output={out}", "trained_on=[imagenet]", "licence=MIT"]
    assert run_tool("import_weights", arguments) == 0
    info = read_info(out)
    assert isinstance(info, CheckpointInfo)
    assert info.network.encoder.name == "xception41"
    assert not info.is_segmentation
    assert info.trained_on == ("imagenet",)
    assert len(info.classes) == 1000
    assert info.classes[0] == "tench"
    assert info.source is not None
    assert info.source.licence == "MIT"
    model = timm.create_model("xception41")
    model.load_state_dict(load_file(out))
    state = model.state_dict()
    weights, biases = fast("", (1, 1, 2048, 1001)), fast("", (1001,))
    assert np.array_equal(state["head.fc.weight"].numpy(), weights[0, 0].T[1:])
    assert np.array_equal(state["head.fc.bias"].numpy(), biases[1:])
    with pytest.raises(UserError, match=r"holds an encoder alone; .*encoder_weights="):
        load_model(out)


@pytest.mark.slow
def test_an_encoder_without_classifier_and_a_network_without_logits(tmp_path: Path) -> None:
    """As the weights that are only to train from may be."""
    shapes = {name: shape for name, shape in classifier_variables("xception_41").items() if "logits" not in name}
    write_bundle(tmp_path / "a", shapes, fast)
    info, weights = from_tensorflow(tmp_path / "a", NOTHING)
    assert isinstance(info, CheckpointInfo)
    assert info.classes == ()
    assert not any(name.startswith("head.") for name in weights)

    shapes = {name: shape for name, shape in variables("xception_41", 21).items() if "logits" not in name}
    write_bundle(tmp_path / "b", shapes, fast)
    out = tmp_path / "b.safetensors"
    assert run_tool("import_weights", [str(tmp_path / "b"), f"output={out}"]) == 0
    info = read_info(out)
    assert isinstance(info, CheckpointInfo)
    assert info.classes == ()
    with pytest.raises(UserError, match="has no logits layer, .* train with checkpoint="):
        load_model(out)


def half(name: str, shape: tuple[int, ...]) -> np.ndarray[tuple[int, ...], np.dtype[np.float16]]:
    return fast(name, shape).astype(np.float16)


@pytest.mark.slow
def test_half_precision_becomes_single(tmp_path: Path) -> None:
    write_bundle(tmp_path / "a", classifier_variables("xception_41"), half)
    _, weights = from_tensorflow(tmp_path / "a", NOTHING)
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32, torch.int64}
    wanted = half("", (1001,)).astype(np.float32)[1:]
    assert np.array_equal(weights["head.fc.bias"].numpy(), wanted)


def archive(path: Path, *members: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def bundle_members(prefix: Path, inside: str) -> list[tuple[str, bytes]]:
    return [(f"{inside}.{end}", Path(f"{prefix}.{end}").read_bytes()) for end in ("index", "data-00000-of-00001")]


@pytest.fixture
def small_archive(tmp_path: Path) -> Path:
    """Named as the released ImageNet weights are."""
    write_bundle(tmp_path / "x", classifier_variables("xception_41"), fast)
    members = bundle_members(tmp_path / "x", "xception_41/model.ckpt")
    return archive(tmp_path / "xception_41_2018_05_09.tar.gz", *members, ("xception_41/train.graph", b"junk"))


@pytest.mark.slow
def test_an_archive_is_known_by_its_name(small_archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "x.safetensors"
    assert run_tool("import_weights", [str(small_archive), f"output={out}"]) == 0
    info = read_info(out)
    assert isinstance(info, CheckpointInfo)
    assert info.source is not None
    entry = ZOO["xception41_imagenet"]
    assert (info.source.address, info.source.licence, info.trained_on) == (entry.url, "Apache-2.0", ("imagenet",))
    assert info.source.sha256 == hashlib.sha256(small_archive.read_bytes()).hexdigest()
    assert [path.name for path in out.parent.iterdir()] == ["x.safetensors"], "nothing unpacked is left"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["folder", "prefix", "index", "data"])
def test_a_checkpoint_on_disk_however_named(how: str, tmp_path: Path) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    write_bundle(folder / "model.ckpt-30000", classifier_variables("xception_41"), fast)
    source = {
        "folder": folder,
        "prefix": folder / "model.ckpt-30000",
        "index": folder / "model.ckpt-30000.index",
        "data": folder / "model.ckpt-30000.data-00000-of-00001",
    }[how]
    assert convert(source, NOTHING, tmp_path)[0].classes[0] == "tench"


def timm_state(name: str = "xception41") -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = timm.create_model(name)
    state: dict[str, Tensor] = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    for key, tensor in state.items():
        if tensor.is_floating_point():
            tensor.normal_()
        else:
            tensor.fill_(len(key))
    return state


@pytest.mark.slow
@pytest.mark.parametrize(("name", "suffix"), [*((name, ".safetensors") for name in VARIANTS), ("xception41", ".pth")])
def test_timm_to_ours_to_timm_is_the_same_bits(name: str, suffix: str, tmp_path: Path) -> None:
    state = timm_state(name)
    theirs, ours, back = (tmp_path / file for file in (f"a{suffix}", "b.safetensors", "c.safetensors"))
    save_file(state, theirs) if suffix == ".safetensors" else torch.save({"state_dict": state}, theirs)
    assert run_tool("import_weights", [str(theirs), f"output={ours}"]) == 0
    assert run_tool("import_weights", [str(ours), f"output={back}", "format=timm"]) == 0
    info = read_info(ours)
    assert isinstance(info, CheckpointInfo)
    assert (info.network.encoder.name, len(info.classes)) == (name, 1000)
    returned = load_file(back)
    assert returned.keys() == state.keys()
    for key, tensor in state.items():
        assert returned[key].numpy().tobytes() == tensor.numpy().tobytes(), key


@pytest.mark.slow
def test_timm_computes_the_same_with_the_encoder_of_a_network(imported: Path, tmp_path: Path) -> None:
    """format=timm takes the encoder out of a segmentation network, for timm to load strictly."""
    out = tmp_path / "encoder.safetensors"
    assert run_tool("import_weights", [str(imported), f"output={out}", "format=timm"]) == 0
    theirs = timm.create_model("xception65", num_classes=0, global_pool="", output_stride=16).eval()
    theirs.load_state_dict(load_file(out))
    ours, _ = load_model(imported)
    x = torch.rand(1, 3, 65, 65) * 2 - 1
    with torch.inference_mode():
        wanted = theirs(x)
        assert (ours.encoder(x)[-1] - wanted).abs().max() < 1e-4 * wanted.abs().max()


@pytest.mark.parametrize(("name", "width"), [("xception41", 0.125), ("mobilenet_v2", 1)])
def test_a_network_that_timm_lacks_is_no_file_for_it(name: str, width: float, tmp_path: Path, capsys: Capture) -> None:
    path, out = tmp_path / "network.safetensors", tmp_path / "encoder.safetensors"
    network = small(encoder={"name": name, "width": width})
    info = CheckpointInfo(network=network, classes=("a", "b"), normalization=INCEPTION, trained_on=())
    save_checkpoint(path, network.build(2), info)
    assert run_tool("import_weights", [str(path), f"output={out}", "format=timm"]) == 2
    assert f"is {name} of width {width:g}; timm has no such network" in capsys.readouterr().err
    assert not out.exists()


def without(state: dict[str, Tensor], key: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in state.items() if name != key}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda state: without(state, "stem.0.conv.weight"), "lacks stem.0.conv.weight"),
        (lambda state: state | {"more": torch.zeros(1)}, "also holds more"),
        (lambda state: state | {"stem.0.bn.bias": torch.zeros(8)}, "stem.0.bn.bias is 8, 32 is needed"),
        (lambda state: state | {"head.fc.bias": torch.zeros(8)}, "head.fc.bias is 8, 1000 is needed"),
        (lambda state: {"a": torch.zeros(1)}, "no xception41, 65 or 71 of timm's: it has none of their tensors"),
    ],
)
def test_timm_strict_both_ways(
    damage: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str, tmp_path: Path
) -> None:
    save_file(damage(timm_state()), tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=message):
        convert(tmp_path / "a.safetensors", NOTHING, tmp_path)


@pytest.mark.slow
def test_timms_other_graph_is_refused(tmp_path: Path) -> None:
    save_file(timm_state("xception41p"), tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"the p variants \(xception65p\) are another graph"):
        convert(tmp_path / "a.safetensors", NOTHING, tmp_path)


def tied(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Two names for one tensor, as weight tying makes them."""
    return state | {"stem.0.bn.bias": state["stem.0.bn.weight"]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: {name: each for name, each in state.items() if "num_batches" not in name}, None),
        (
            lambda state: {name: each.half() if each.is_floating_point() else each for name, each in state.items()},
            None,
        ),
        (tied, None),
        (
            lambda state: state | {"head.fc.bias": state["head.fc.bias"].to(torch.complex64)},
            "head.fc.bias is of no type",
        ),
        (lambda state: state | {"head.fc.bias": state["head.fc.bias"].to(torch.int8)}, "head.fc.bias is of no type"),
        (
            lambda state: state | {"head.fc.weight": state["head.fc.weight"].to_sparse()},
            "head.fc.weight is of no type",
        ),
        (lambda state: state | {"head.fc.bias": torch.empty(1000, device="meta")}, "head.fc.bias is of no type"),
        (lambda state: state | {"stem.0.bn.num_batches_tracked": torch.tensor(float("nan"))}, "tracked is of no type"),
        (lambda state: state | {"head.fc.bias": torch.full((1000,), float("nan"))}, "head.fc.bias holds values that"),
        (lambda state: state | {"head.fc.weight": torch.zeros(0, 2048)}, "is for 0 classes; 2 are the least"),
    ],
)
def test_kinds_of_tensors(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]], message: str | None, tmp_path: Path
) -> None:
    state = change(timm_state())
    torch.save(state, tmp_path / "a.pth")
    if message is not None:
        with pytest.raises(UserError, match=message):
            convert(tmp_path / "a.pth", NOTHING, tmp_path)
        return
    out = tmp_path / "x.safetensors"
    assert run_tool("import_weights", [str(tmp_path / "a.pth"), f"output={out}"]) == 0
    read = load_file(out)
    assert read.keys() == timm.create_model("xception41").state_dict().keys()
    for name, tensor in state.items():
        assert torch.equal(read[name], tensor.to(read[name].dtype))


def test_a_shape_that_claims_a_billion_classes(tmp_path: Path) -> None:
    """A kilobyte, whose classes would all get names; nor is any file's inner damage more than a line."""
    state = {"stem.0.conv.weight": torch.zeros(1), "head.fc.weight": torch.zeros(1, 1).expand(10**9, 2048)}
    torch.save(state, tmp_path / "a.pth")
    with pytest.raises(UserError, match="head.fc.weight is for 1000000000 classes; 100000 are the most"):
        convert(tmp_path / "a.pth", NOTHING, tmp_path)


@pytest.mark.parametrize(
    ("place", "value"), [(6, b"\xff\xff"), (8, b"\x01\x08"), (10, b"\x63")], ids=["version", "flags", "method"]
)
def test_damaged_directories_of_pickles(tmp_path: Path, place: int, value: bytes) -> None:
    """zipfile says of some damage that it is not implemented, or no text."""
    torch.save({"\u00e9": torch.zeros(1)}, tmp_path / "a.pth")
    content = bytearray((tmp_path / "a.pth").read_bytes())
    at = content.index(b"PK\x01\x02")
    content[at + place : at + place + len(value)] = value
    content[at + 46] = 0xFF  # in the name
    (tmp_path / "a.pth").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.pth: "):
        convert(tmp_path / "a.pth", NOTHING, tmp_path)


@pytest.mark.parametrize(
    ("step", "iteration"),
    [
        (np.array(30000, np.int64), 30000),
        (np.array([30000], np.int64), 30000),
        (np.array(-5, np.int64), None),
        (np.array(np.nan, np.float32), None),
        (np.zeros((3, 0), np.int64), None),
        (np.zeros(1000, np.int64), None),
    ],
)
def test_an_odd_counter_is_left_out(
    step: np.ndarray[Any, Any], iteration: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bundle(tmp_path / "a", {"global_step": step.shape}, lambda name, shape: step)
    assert _iteration(TFCheckpoint(tmp_path / "a")) == iteration


@pytest.mark.slow
def test_values_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    def with_nan(name: str, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
        array = fast(name, shape)
        if name == "xception_41/logits/biases":
            array[3] = np.nan
        return array

    write_bundle(tmp_path / "a", classifier_variables("xception_41"), with_nan)
    with pytest.raises(UserError, match="xception_41/logits/biases holds values that are not finite"):
        from_tensorflow(tmp_path / "a", NOTHING)
    write_bundle(tmp_path / "b", classifier_variables("xception_41"), lambda name, shape: np.zeros(shape, np.int64))
    with pytest.raises(UserError, match="is of no floating type"):
        from_tensorflow(tmp_path / "b", NOTHING)


@pytest.mark.slow
def test_what_is_said_of_foreign_weights(tmp_path: Path, capsys: Capture) -> None:
    shapes = variables("xception_41", 3)
    write_bundle(tmp_path / "a", shapes, fast)
    (tmp_path / "classes.yaml").write_text("[background, cup, spoon]")
    out = tmp_path / "x.safetensors"
    arguments = [str(tmp_path / "a"), f"output={out}", f"classes={tmp_path / 'classes.yaml'}", "canvas=null"]
    assert run_tool("import_weights", [*arguments, "output_stride=8"]) == 0
    info = read_info(out)
    assert isinstance(info, CheckpointInfo)
    assert (info.classes, info.canvas) == (("background", "cup", "spoon"), None)
    assert info.network.model_dump()["output_stride"] == 8
    (tmp_path / "classes.yaml").write_text("[background, cup]")
    assert run_tool("import_weights", arguments) == 2
    assert "its logits are for 3 classes; 2 names were given" in capsys.readouterr().err
    write_bundle(tmp_path / "b", classifier_variables("xception_41"), fast)
    assert run_tool("import_weights", [str(tmp_path / "b"), *arguments[1:]]) == 2
    assert "holds an encoder alone, which has no classes" in capsys.readouterr().err


def zipped(path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, path)
    with zipfile.ZipFile(path) as file:
        members = {name: file.read(name) for name in file.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(name, content)


class Harmful:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return Path.touch, (Path("harm"),)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: torch.save(Harmful(), path), "holds more than plain tensors"),
        (lambda path: torch.save([1, 2], path), "holds no state dict"),
        (lambda path: path.write_bytes(b"hello"), "no file of torch.save"),
        (lambda path: path.write_bytes(b"PK\5\6" + b"\0" * 18), "damaged"),
        (lambda path: torch.save({"model": {"a": torch.zeros(1)}, "epoch": 3}, path), "but model, epoch"),
        (lambda path: zipped(path), "is compressed"),
    ],
)
def test_pickles_not_to_be_trusted(
    make: Callable[[Path], None], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "a.pth")
    with pytest.raises(UserError, match=message):
        convert(tmp_path / "a.pth", NOTHING, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pth"]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "there are: none"),
        ([("x/README", b"hello")], "there are: none"),
        ([("a.index", b""), ("b.index", b"")], "there are: a.index, b.index"),
        ([("a.index", b"hello" * 100)], "a.index: damaged, or no TensorFlow checkpoint"),
        ([("../a.index", b"")], "the unsafe name '../a.index'"),
        ([("/a.index", b"")], "the unsafe name '/a.index'"),
    ],
)
def test_archives_not_to_be_trusted(
    members: list[tuple[str, bytes]], message: str, tmp_path: Path, capsys: Capture
) -> None:
    source = archive(tmp_path / "a.tar.gz", *members)
    out = tmp_path / "out"
    out.mkdir()
    arguments = [str(source), f"output={out / 'x.safetensors'}"]
    assert run_tool("import_weights", arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a.tar.gz", "out"], "nothing is left behind"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name a source first"),
        (["output=x.safetensors", "img.png"], "name a source first"),
        (["img.png", "b", "output=x.safetensors"], "cannot read 'b'"),
        (["~nosuchuser/x", "output=x.safetensors"], "~nosuchuser/x: no such file"),
        (["img.png", "output=dir.safetensors"], "output=dir.safetensors: a file that ends in .safetensors is written"),
        (["img.png", "output=new/deep/x.safetensors"], "img.png: of no known kind"),
        (["xception65_imagenet", "offline=true", "licence=MIT"], "offline=true"),
        (["nowhere", "output=x.safetensors"], "nowhere: no such file, folder or checkpoint prefix"),
        (["nowhere.tar.gz", "output=x.safetensors"], "nowhere.tar.gz: no such file"),
        (["img.png", "output=x.safetensors"], "img.png: of no known kind"),
        (["empty", "output=x.safetensors"], "one TensorFlow checkpoint (NAME.index) is expected in it"),
        (["img.png"], "say where to: output=FILE.safetensors"),
        (["img.png", "output=x.pth"], "output=x.pth: a file that ends in .safetensors is written"),
        (["img.png", "outptu=x"], "outptu is no key of this config; did you mean output?"),
        (["net.safetensors", "output=x.safetensors", "licence=MIT"], "net.safetensors describes itself; licence is"),
        (["text.safetensors", "output=x.safetensors"], "text.safetensors: damaged, or no safetensors file"),
        (["xception65_imagenet", "offline=true"], "offline=true"),
    ],
)
def test_mistakes(
    arguments: list[str],
    message: str,
    make_checkpoint: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
) -> None:
    monkeypatch.chdir(tmp_path)
    make_checkpoint()
    (tmp_path / "img.png").write_bytes(b"x")
    (tmp_path / "text.safetensors").write_bytes(b"hello")
    (tmp_path / "empty").mkdir()
    (tmp_path / "dir.safetensors").mkdir()
    assert run_tool("import_weights", arguments) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error
    assert not (tmp_path / "x.safetensors").exists()
    assert not (tmp_path / "new").exists()


def test_ours_is_copied_and_checked(make_checkpoint: Callable[..., Path], tmp_path: Path, capsys: Capture) -> None:
    run = make_checkpoint("run/best.safetensors").parent
    copy = tmp_path / "copy.safetensors"
    assert run_tool("import_weights", [str(run), f"output={copy}"]) == 0
    before, after = load_file(run / "best.safetensors"), load_file(copy)
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert read_info(copy) == read_info(run / "best.safetensors")
    with safe_open(copy, "pt") as file:
        metadata = file.metadata()
    save_file(without(after, "logits.bias"), copy, metadata)
    assert run_tool("import_weights", [str(copy), f"output={tmp_path / 'x.safetensors'}"]) == 2
    assert "lacks logits.bias" in capsys.readouterr().err


def test_the_catalogue_is_listed(capsys: Capture) -> None:
    assert run_tool("import_weights", ["list"]) == 0
    shown = capsys.readouterr().out
    for name, entry in ZOO.items():
        assert f"\n{name}\n" in f"\n{shown}"
        assert entry.url in shown
    assert "82.20" in shown


def test_the_catalogue_agrees_with_timm() -> None:
    """timm's own addresses, input range and licence, where it knows the weights."""
    for name, entry in ZOO.items():
        if "." in name:
            known = timm.get_pretrained_cfg(name)
            assert known is not None
            on_its_hub = f"https://huggingface.co/{known.hf_hub_id}/resolve/main/model.safetensors"
            assert entry.url == (on_its_hub if known.hf_hub_id else known.url)
            if entry.timm is None:  # else the network is timm's, with its normalisation
                own = IMAGENET if name.startswith(GLUON) else INCEPTION
                assert (known.mean, known.std) == (own.mean, own.std)
            assert entry.licence.lower() == known.license


def test_every_default_is_in_the_catalogue() -> None:
    for name in ("xception41", "xception65", "xception71"):
        of_it = [zoo for zoo, entry in ZOO.items() if (entry.kind, entry.encoder) == ("encoder", name)]
        assert of_it[0] == f"{name}_imagenet", "what encoder_weights=auto takes"
    assert read_config("train", [], TrainConfig).encoder_weights == "auto"
    assert ZOO[read_config("eval", [], EvalToolConfig).checkpoint].kind == "network"
