"""Keras's Xception: its files of weights (.h5), and whole models that are or hold one (.h5, .keras).

Layers are found by the names that keras/src/applications/xception.py gives them. The convs of the skips have none, and
are told by their shapes: no two of them have the same.
"""

import importlib.util
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segapp.base.errors import UserError, and_more
from segapp.models.classifier import ClassifierConfig
from segapp.models.encoders.interface import INCEPTION
from segapp.models.encoders.xception import XceptionConfig
from segapp.weights.checkpoint import CLASSIFIER, CheckpointInfo, by, shapes_of
from segapp.weights.sources.common import (
    COUNT,
    IMAGENET_CLASSES,
    Weights,
    WeightsMetadata,
    check_finite,
    imagenet_classes,
)

WEIGHTS = "model.weights.h5"
"""In a .keras file, beside config.json."""
MAX_BYTES = 4 << 30
"""Of what a .keras file may unfold to."""
BN = ("weight", "bias", "running_mean", "running_var")
"""gamma, beta, moving_mean, moving_variance."""
HEAD = "predictions"

Layers = dict[str, list[Tensor]]
"""Each layer's values in Keras's order."""


def read(path: Path, metadata: WeightsMetadata, sha256: str | None = None) -> tuple[CheckpointInfo, Weights]:
    """An Xception of Keras's, strictly. Dense layers that stand behind it, of a classifier of one's own, are left out.

    Raises:
        UserError: it is none, or h5py is missing; the first layer that does not fit is named.
    """
    layers = _layers(path)
    info = CheckpointInfo(
        network=ClassifierConfig(encoder=XceptionConfig(name="xception")),
        classes=_classes(path, layers.get(HEAD)),
        normalization=INCEPTION,
        trained_on=metadata.trained_on,
        source=metadata.source(sha256, [path]),
    )
    weights: Weights = {}
    used: set[str] = set()
    for name, expected in shapes_of(info).items():
        if name.endswith(COUNT):
            weights[name] = torch.zeros((), dtype=torch.int64)
            continue
        layer, at = _place(name, expected, layers)
        used.add(layer)
        values = layers.get(layer, [])
        if at >= len(values):
            raise UserError(f"{path}: no Xception of Keras's: it lacks {layer}")
        tensor = _turned(values[at], depthwise=".depthwise." in name)
        if tensor.shape != expected.shape:
            raise UserError(f"{path}: {layer} is {by(tensor.shape)}, {by(expected.shape)} is needed")
        check_finite(path, layer, tensor)
        weights[name] = tensor.to(expected.dtype, copy=True).contiguous()
    others = sorted(layer for layer, values in layers.items() if layer not in used and values)
    if foreign := [layer for layer in others if max(each.ndim for each in layers[layer]) != 2]:
        raise UserError(f"{path}: no Xception of Keras's: it also holds {foreign[0]}{and_more(len(foreign))}")
    return info, weights


def _place(name: str, expected: Tensor, layers: Layers) -> tuple[str, int]:
    """The layer of Keras's that has a tensor of ours, and where in it."""
    if name.startswith(CLASSIFIER):
        return HEAD, 0 if name.endswith("weight") else 1
    parts = name.split(".")
    if parts[0] == "stem":
        theirs = f"block1_conv{int(parts[1]) + 1}"
    elif parts[2] == "convs":
        theirs = f"block{int(parts[1]) + 2}_sepconv{int(parts[3]) + 1}"
    else:
        theirs = _of_a_skip(expected, layers, is_bn=parts[-2] == "bn")
        return theirs, BN.index(parts[-1]) if parts[-2] == "bn" else 0
    if parts[-2] == "bn":
        return f"{theirs}_bn", BN.index(parts[-1])
    return theirs, 1 if parts[-2] == "pointwise" else 0


def _of_a_skip(expected: Tensor, layers: Layers, *, is_bn: bool) -> str:
    """The layer without a name of its own that has this shape."""
    for layer, values in layers.items():
        if layer.startswith("block") or not values:
            continue
        of_bn = len(values) == 4 and values[0].ndim == 1
        if is_bn and of_bn and values[0].shape == expected.shape:
            return layer
        if not is_bn and values[0].ndim == 4 and _turned(values[0]).shape == expected.shape:
            return layer
    kind = "the BN of a skip of" if is_bn else "the conv of a skip of"
    return f"{kind} {expected.shape[0]} channels"


def _turned(tensor: Tensor, *, depthwise: bool = False) -> Tensor:
    """From Keras's order of axes to PyTorch's."""
    if tensor.ndim == 4:
        return tensor.permute(2, 3, 0, 1) if depthwise else tensor.permute(3, 2, 0, 1)
    return tensor.T if tensor.ndim == 2 else tensor


def _classes(path: Path, head: list[Tensor] | None) -> tuple[str, ...]:
    if not head:
        return ()
    number = head[0].shape[-1]
    if number < 2:
        raise UserError(f"{path}: {HEAD} is for {number} classes; 2 are the least")
    return imagenet_classes() if number == IMAGENET_CLASSES else tuple(f"class {i}" for i in range(number))


# -- files -----------------------------------------------------------------------------------------------------------


def check_h5py(source: str) -> None:
    """Raises:
    UserError: h5py, which reads such a file, is missing.
    """
    if importlib.util.find_spec("h5py") is None:
        raise UserError(f"{source}: Keras's files are read with h5py: pip install 'segapp[keras]'")


def _layers(path: Path) -> Layers:
    """Raises:
    UserError: damaged, of a form that names no layers, or h5py is missing.
    """
    check_h5py(str(path))
    import h5py

    try:
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                if sum(member.file_size for member in archive.infolist()) > MAX_BYTES:
                    raise UserError(f"{path}: unfolds to more than {MAX_BYTES >> 30} GiB")
                config = json.loads(archive.read("config.json"))
                with h5py.File(io.BytesIO(archive.read(WEIGHTS)), "r") as file:
                    return dict(_of_a_model(config["config"]["layers"], file["layers"]))
        with h5py.File(path, "r") as file:
            group = file.get("model_weights", file)
            if "layer_names" in group.attrs:
                return _of_groups(group)
    except UserError:
        raise
    except Exception as error:  # of many kinds for a damaged file
        raise UserError(f"{path}: damaged, or no file of Keras's ({error})") from None
    raise UserError(f"{path}: names no layers, as Keras's .weights.h5 do; model.save('NAME.keras') writes them, too")


def _of_a_model(layers: list[dict[str, Any]], group: Any) -> Iterator[tuple[str, list[Tensor]]]:
    """Of a file of Keras 3: it counts the layers of each class, in the order of the config."""
    counts: dict[str, int] = {}
    for layer in layers:
        kind = _snake_case(layer["class_name"])
        number = counts.get(kind, 0)
        counts[kind] = number + 1
        stored = group.get(kind if number == 0 else f"{kind}_{number}")
        if stored is None:
            continue
        if "layers" in layer["config"]:
            yield from _of_a_model(layer["config"]["layers"], stored["layers"])
        elif "vars" in stored:
            values = stored["vars"]
            yield layer["config"]["name"], [_tensor(values[str(i)]) for i in range(len(values))]


def _of_groups(group: Any) -> Layers:
    """Of a file of HDF5 that names its layers, and the values of each: "block1_conv1/kernel:0", or "kernel"."""
    layers: Layers = {}
    for layer in _words(group.attrs["layer_names"]):
        for name in _words(group[layer].attrs["weight_names"]):
            parts = name.split("/")
            layers.setdefault(parts[-2] if len(parts) > 1 else layer, []).append(_tensor(group[layer][name]))
    return layers


def _words(attribute: Any) -> list[str]:
    return [each.decode() if isinstance(each, bytes) else str(each) for each in attribute]


def _tensor(dataset: Any) -> Tensor:
    return torch.from_numpy(dataset[()]).float()


def _snake_case(name: str) -> str:
    """As keras/src/utils/naming.py: SeparableConv2D is separable_conv2d."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
