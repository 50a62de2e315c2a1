"""timm's state dicts, and torchvision's of Inception-v3, GoogLeNet and AlexNet: networks with the same parameters."""

import logging
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from segapp.base.errors import UserError
from segapp.models.classifier import ClassifierConfig
from segapp.models.encoders import EncoderConfig
from segapp.models.encoders.alexnet import AlexNetConfig
from segapp.models.encoders.aligned_xception import AlignedXceptionConfig
from segapp.models.encoders.googlenet import TorchvisionGoogLeNetConfig
from segapp.models.encoders.inception_v3 import InceptionV3Config
from segapp.models.encoders.interface import IMAGENET, INCEPTION
from segapp.models.encoders.padding import Padding
from segapp.models.encoders.xception import XceptionConfig
from segapp.weights.checkpoint import CLASSIFIER, CheckpointInfo, by, misfit, shapes_of
from segapp.weights.sources.common import (
    COUNT,
    FLOATS,
    IMAGENET_CLASSES,
    Weights,
    WeightsMetadata,
    check_finite,
    counts,
    imagenet_classes,
)
from segapp.weights.sources.kinds import is_torch_file
from segapp.weights.sources.timm_names import timm_name

log = logging.getLogger(__name__)

PICKLES = (".pth", ".pt", ".bin")
SUFFIXES = (".safetensors", *PICKLES)

MOST_CLASSES = 100_000
"""ImageNet's largest set has 21,841. A damaged shape claims any number, and each class gets a name."""

ENCODERS = [AlignedXceptionConfig(name=name, width=1.0) for name in ("xception41", "xception65", "xception71")]
"""Those whose networks and parameters have timm's names here."""
PADDINGS: tuple[Padding, ...] = ("same", "valid")
RENAMED: list[EncoderConfig] = [
    *(XceptionConfig(name="xception", padding=padding) for padding in PADDINGS),
    *(InceptionV3Config(name="inception_v3", padding=padding) for padding in PADDINGS),
    *(TorchvisionGoogLeNetConfig(name="googlenet_torchvision", padding=padding) for padding in PADDINGS),
    AlexNetConfig(name="alexnet_torchvision"),
]
"""Those that timm or torchvision has too, by the names of `timm_names`."""
LEFT_OUT = {
    "inception_v3": ("AuxLogits.",),
    "googlenet_torchvision": ("aux1.", "aux2."),
    "alexnet_torchvision": ("classifier.",),
}
"""Second classifiers, of use in training alone, and AlexNet's of three layers, which is another one than ours."""
GLUON = ("inception_v3.gluon", "gluon_inception_v3")
"""In the names, now and before, of those weights of Inception-v3 that want other images than the rest."""


def read(path: Path, metadata: WeightsMetadata, sha256: str | None = None) -> tuple[CheckpointInfo, Weights]:
    """A state dict of timm's, strictly.

    Raises:
        UserError: the first tensor that is missing, unused or misshapen is named.
    """
    weights = safetensors_of(path) if path.suffix == ".safetensors" else _unpickle(path)
    # Most names in common, and the fewest that are not.
    info, expected = min(
        map(_described, (*ENCODERS, *RENAMED)),
        key=lambda each: (-len(each[1].keys() & weights.keys()), len(each[1].keys() ^ weights.keys())),
    )
    found = info.network.encoder.name
    if not expected.keys() & weights.keys():
        held = min(weights, default="none")
        raise UserError(
            f"{path}: no xception41, 65 or 71 of timm's: it has none of their tensors, but {held}; "
            "nor is it a legacy_xception or an inception_v3, or torchvision's googlenet or alexnet; "
            "timm=NAME says which other network of timm's it is"
        )
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith(LEFT_OUT.get(found, ()))}
    classifier = timm_name(found, f"{CLASSIFIER}weight")
    if classifier in weights:
        number = len(weights[classifier]) if weights[classifier].ndim else 0
        if not 2 <= number <= MOST_CLASSES:
            bound = "2 are the least" if number < 2 else f"{MOST_CLASSES} are the most"
            raise UserError(f"{path}: {classifier} is for {number} classes; {bound}")
        classes = imagenet_classes() if number == IMAGENET_CLASSES else tuple(f"class {i}" for i in range(number))
        info = info.model_copy(update={"classes": classes})
        expected = _shapes(info)
    uncounted = counts(expected)
    if wrong := misfit(expected.keys(), weights.keys() | uncounted.keys()):
        is_lacking = wrong.startswith("lacks") and isinstance(info.network.encoder, AlignedXceptionConfig)
        hint = "; the p variants (xception65p) are another graph" if is_lacking else ""
        whose = "" if found.endswith("_torchvision") else " of timm's"
        raise UserError(f"{path}: no {found}{whose}: it {wrong}{hint}")
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            raise UserError(f"{path}: {name} is {by(tensor.shape)}, {by(expected[name].shape)} is needed")
        is_count = name.endswith(COUNT)
        if tensor.dtype not in ((torch.int64,) if is_count else FLOATS) or not _is_plain(tensor):
            raise UserError(f"{path}: {name} is of no type that weights have ({tensor.dtype})")
        if not is_count:
            check_finite(path, name, tensor)
    with torch.device("meta"):
        normalization = info.network.encoder.build(32).normalization
    if found == "inception_v3" and any(name in f"{metadata.address} {path}" for name in GLUON):
        normalization = IMAGENET
    info = info.model_copy(
        update={
            "normalization": normalization,
            "trained_on": metadata.trained_on,
            "source": metadata.source(sha256, [path]),
        }
    )
    # Two names may stand for one tensor, which safetensors does not write.
    copies = {name: tensor.to(expected[name].dtype, copy=True) for name, tensor in weights.items()}
    theirs = uncounted | copies
    return info, {name: theirs[timm_name(found, name)] for name in shapes_of(info)}


def _described(encoder: EncoderConfig) -> tuple[CheckpointInfo, Weights]:
    info = CheckpointInfo(
        network=ClassifierConfig(encoder=encoder), classes=(), normalization=INCEPTION, trained_on=()
    )
    return info, _shapes(info)


def _shapes(info: CheckpointInfo) -> Weights:
    """By their names."""
    return {timm_name(info.network.encoder.name, name): tensor for name, tensor in shapes_of(info).items()}


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized


def safetensors_of(path: Path) -> Weights:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged, or no safetensors file ({error})") from None


def _unpickle(path: Path) -> Weights:
    """A state dict from a file of torch.save, none of whose code runs."""
    if zipfile.is_zipfile(path):  # those of before 2020 are none
        try:
            with zipfile.ZipFile(path) as archive:
                folded = any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist())
        except Exception as error:  # of many kinds for a damaged file, NotImplementedError among them
            raise UserError(f"{path}: no file of torch.save ({error})") from None
        if folded:
            raise UserError(f"{path}: is compressed, which torch.save does not do; it may unfold to any size")
    elif not is_torch_file(path):
        raise UserError(f"{path}: no file of torch.save")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # whatever unpickling makes of a damaged or a hostile file
        log.debug("%s", path, exc_info=True)
        raise UserError(f"{path}: damaged, or holds more than plain tensors, which is not loaded") from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    ):
        held = ", ".join(map(str, content))[:80] if isinstance(content, dict) else type(content).__name__
        raise UserError(f"{path}: holds no state dict of names and tensors, but {held or 'nothing'}")
    return content
