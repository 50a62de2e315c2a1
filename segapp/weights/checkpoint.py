"""Our files of weights: safetensors, and as plain data in its metadata all that rebuilds the network."""

import json
import struct
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from segapp.base.config import Config
from segapp.base.errors import UserError, and_more
from segapp.base.files import atomic_write
from segapp.models.deeplabv3plus import DeepLabV3Plus, EncoderConfig, ModelConfig, build_model
from segapp.models.encoders.aligned_xception import AlignedXception

LOGITS = "logits."
"""What the names of the network's last layer begin with."""
CLASSIFIER = "head.fc."
"""What those of an encoder's ImageNet classifier begin with, as timm's."""


class Source(Config):
    """Where weights, or those that training began with, were published.

    `sha256`: of the file, or of a checkpoint's files one after another.
    """

    address: str
    sha256: str
    licence: str


class CheckpointInfo(Config):
    """What stands beside a network's weights, under the key "segapp", as JSON.

    `classes`: none where the file has no logits layer, as one to train from may. `canvas`: side in pixels on which it
    was validated. `iteration`, `miou`: None where nobody knows.
    """

    format: Literal["segapp-1"] = "segapp-1"
    model: ModelConfig
    classes: tuple[str, ...]
    canvas: Annotated[int, Field(gt=0, le=4097)] | None
    splits_seen: tuple[str, ...]
    iteration: int | None
    miou: float | None
    source: Source | None = None

    def as_metadata(self) -> dict[str, str]:
        return {"segapp": self.model_dump_json()}

    def describe(self) -> str:
        """What one wants to know of a checkpoint, in a line."""
        iteration = "" if self.iteration is None else f", iteration {self.iteration}"
        figure = "" if self.miou is None else f", mIoU {self.miou:.4f} in validation"
        return (
            f"{self.model.encoder.name} trained on {', '.join(self.splits_seen) or 'unknown data'}{iteration}{figure}"
        )


class EncoderInfo(Config):
    """The same for an encoder alone; `classes` are those of its ImageNet classifier, if the file holds one."""

    format: Literal["segapp-encoder-1"] = "segapp-encoder-1"
    encoder: EncoderConfig
    classes: tuple[str, ...]
    splits_seen: tuple[str, ...]
    source: Source | None

    def describe(self) -> str:
        return f"encoder {self.encoder.name} trained on {_seen(self.splits_seen)}"


def _seen(splits: tuple[str, ...]) -> str:
    return ", ".join(splits) or "unknown data"


Info = CheckpointInfo | EncoderInfo
_INFO: TypeAdapter[Info] = TypeAdapter(Annotated[Info, Field(discriminator="format")])


def save_checkpoint(path: Path, model: DeepLabV3Plus, info: CheckpointInfo) -> None:
    """Writes the file whole or not at all."""
    write_weights(path, model.state_dict(), info.as_metadata())


def write_weights(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """A safetensors file, written whole or not at all.

    Raises:
        UserError: the disk is full.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        try:
            save_file(plain, temporary, metadata)
        except SafetensorError as error:  # a full or a failing disk
            raise UserError(f"{path}: cannot be written ({error})") from None
        temporary.chmod(mode)  # safetensors makes a file that only its owner can read


def read_info(path: Path) -> Info:
    """The metadata alone.

    Raises:
        UserError: no checkpoint of this program.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint") from None
    except (SafetensorError, OSError, struct.error) as error:
        raise UserError(f"{path}: no checkpoint, or a damaged one ({error})") from None
    if "segapp" not in metadata:
        raise UserError(f"{path}: a safetensors file, but not written by segapp; tools/import_weights.py reads others")
    try:
        info = _INFO.validate_python(json.loads(metadata["segapp"]))
    except (ValidationError, json.JSONDecodeError, RecursionError):
        raise UserError(f"{path}: its description is damaged, or of another version of segapp") from None
    if isinstance(info, CheckpointInfo) and info.classes and not 2 <= len(info.classes) <= 255:
        raise UserError(f"{path}: names {len(info.classes)} classes; 2 to 255 are possible")
    return info


def read_network_info(path: Path) -> CheckpointInfo:
    """`read_info` of a file that must hold a whole network.

    Raises:
        UserError: no checkpoint of this program, or an encoder alone.
    """
    info = read_info(path)
    if isinstance(info, EncoderInfo):
        raise UserError(f"{path}: holds an encoder alone; training starts from it with model.encoder.weights={path}")
    return info


def read_weights(
    path: Path,
    expected: Mapping[str, Tensor],
    rename: Callable[[str], str | None] = lambda name: name,
    *,
    remedy: str = "set model= as it was trained",
) -> dict[str, Tensor]:
    """The tensors of `expected`, by name, strictly: nothing missing, nothing unused, nothing of another shape.

    Args:
        rename: the file's names to those expected, or to None for what is left out.

    Raises:
        UserError: the first tensor that does not fit is named; `remedy` ends the message.
    """
    weights: dict[str, Tensor] = {}
    try:
        with safe_open(path, "pt") as file:
            names = {renamed: name for name in file.keys() if (renamed := rename(name)) is not None}  # noqa: SIM118
            if wrong := misfit(expected.keys(), names.keys()):
                raise UserError(f"{path}: of another architecture: it {wrong}; {remedy}")
            for name, tensor in expected.items():
                shape = file.get_slice(names[name]).get_shape()
                if shape != list(tensor.shape):
                    what = "number of classes" if name.startswith(LOGITS) else "architecture"
                    raise UserError(
                        f"{path}: of another {what}: {name} is {by(shape)}, {by(tensor.shape)} is needed; {remedy}"
                    )
                weights[name] = file.get_tensor(names[name])
                if weights[name].dtype != tensor.dtype:
                    raise UserError(f"{path}: {name} is {weights[name].dtype}, {tensor.dtype} is needed; {remedy}")
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: no checkpoint, or a damaged one ({error})") from None
    return weights


def misfit(expected: Set[str], found: Set[str]) -> str | None:
    """What is missing or unused, as in "lacks NAME (and 3 more)"; None where nothing is."""
    for problem, different in (("lacks", expected - found), ("also holds", found - expected)):
        if different:
            return f"{problem} {min(different)}{and_more(len(different))}"
    return None


def load_model(path: Path, output_stride: int | None = None) -> tuple[DeepLabV3Plus, CheckpointInfo]:
    """Rebuilds a checkpoint's network, at another output stride if given.

    Raises:
        UserError: no checkpoint, a damaged one, one without a logits layer, or one whose tensors are not those of its
            architecture.
    """
    info = read_network_info(path)
    if not info.classes:
        raise UserError(f"{path}: has no logits layer, and so can only be trained from: train with checkpoint={path}")
    if output_stride is not None:
        model_config = info.model.model_copy(update={"output_stride": output_stride})
        info = info.model_copy(update={"model": model_config})
    with torch.device("meta"):
        model = build_model(info.model, len(info.classes))  # nothing is allocated before the shapes are checked
    model.load_state_dict(read_weights(path, model.state_dict()), assign=True)
    return model.eval(), info


def start_from(path: Path, model: DeepLabV3Plus, classes: tuple[str, ...]) -> tuple[CheckpointInfo, str | None]:
    """Copies a checkpoint's weights into `model`, to train on; a logits layer for other classes stays as it is.

    Returns:
        What the file says of itself, and a remark on the logits layer.

    Raises:
        UserError: no checkpoint, or one of another architecture.
    """
    info = read_network_info(path)
    expected = model.state_dict()
    keeps = len(info.classes) == len(classes)
    wanted = expected if keeps else {name: each for name, each in expected.items() if not name.startswith(LOGITS)}
    weights = read_weights(
        path,
        wanted,
        lambda name: None if name.startswith(LOGITS) and not keeps else name,
        remedy=f"it is {info.model.encoder.name} of width {info.model.encoder.width:g}; set model= as it was trained",
    )
    model.load_state_dict(expected | weights)
    remark = None
    if not keeps:
        had = f"for {len(info.classes)} classes there" if info.classes else "missing there"
        remark = f"the logits layer, {had}, is initialised anew for {len(classes)} classes; all else is loaded"
    elif info.classes != classes:
        remark = f"the class names differ from those of {path}; they are matched by index"
    return info, remark


def start_encoder_from(path: Path, encoder: AlignedXception) -> Info:
    """Copies the encoder's weights out of an encoder's or a whole network's file.

    Raises:
        UserError: no such file, or one of another encoder.
    """
    info = read_info(path)
    held = info.model.encoder if isinstance(info, CheckpointInfo) else info.encoder
    weights = read_weights(
        path,
        encoder.state_dict(),
        encoder_name if isinstance(info, CheckpointInfo) else without_classifier,
        remedy=f"it is {held.name} of width {held.width:g}; set model.encoder.weights to others, or to null for none",
    )
    encoder.load_state_dict(weights)
    return info


def encoder_name(name: str) -> str | None:
    """A whole network's name to its encoder's own."""
    return name.removeprefix("encoder.") if name.startswith("encoder.") else None


def without_classifier(name: str) -> str | None:
    return None if name.startswith(CLASSIFIER) else name


def by(shape: torch.Size | list[int] | tuple[int, ...]) -> str:
    """A shape for people: 3x3x728x1."""
    return "x".join(map(str, shape)) or "a scalar"
