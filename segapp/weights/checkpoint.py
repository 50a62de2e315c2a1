"""Our checkpoints: one safetensors file with the weights and, as plain data, all that rebuilds the network."""

import json
import struct
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from segapp import paths
from segapp.config import Config
from segapp.errors import UserError
from segapp.files import whole_file
from segapp.models.deeplabv3plus import DeepLabV3Plus, ModelConfig, build_model


class CheckpointInfo(Config):
    """What stands beside the weights in the file's metadata, under the key "segapp", as JSON."""

    format: Literal["segapp-1"]
    model: ModelConfig
    classes: tuple[str, ...]
    canvas: Annotated[int, Field(gt=0, le=4097)] | None
    splits_seen: tuple[str, ...]
    iteration: int
    miou: float | None

    def describe(self) -> str:
        """What one wants to know of a checkpoint, in a line."""
        figure = "" if self.miou is None else f", mIoU {self.miou:.4f} in validation"
        return (
            f"{self.model.encoder.name} trained on {', '.join(self.splits_seen)}, iteration {self.iteration}{figure}"
        )


def save_checkpoint(path: Path, model: DeepLabV3Plus, info: CheckpointInfo) -> None:
    """Writes the file whole or not at all."""
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with whole_file(path) as temporary:
        temporary.write_bytes(save(weights, {"segapp": info.model_dump_json()}))


def read_info(path: Path) -> CheckpointInfo:
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
    try:
        info = CheckpointInfo.model_validate(json.loads(metadata["segapp"]))
    except KeyError:
        raise UserError(f"{path}: a safetensors file, but not written by segapp") from None
    except (ValidationError, json.JSONDecodeError, RecursionError):
        raise UserError(f"{path}: its description is damaged, or of another version of segapp") from None
    if not 2 <= len(info.classes) <= 255:
        raise UserError(f"{path}: names {len(info.classes)} classes; 2 to 255 are possible")
    return info


def read_weights(path: Path, model: DeepLabV3Plus) -> dict[str, Tensor]:
    """The weights for `model`, strictly: nothing missing, nothing unused, nothing of another shape.

    Raises:
        UserError: the first tensor that does not fit is named.
    """
    expected = model.state_dict()
    weights: dict[str, Tensor] = {}
    try:
        with safe_open(path, "pt") as file:
            names = set(file.keys())
            for problem, different in (("lacks", expected.keys() - names), ("also holds", names - expected.keys())):
                if different:
                    raise UserError(
                        f"{path}: of another architecture: it {problem} {min(different)} and "
                        f"{len(different) - 1} more tensors; set model= as it was trained"
                    )
            for name, tensor in expected.items():
                shape = file.get_slice(name).get_shape()
                if shape != list(tensor.shape):
                    what = "number of classes" if name.startswith("logits.") else "architecture"
                    raise UserError(
                        f"{path}: of another {what}: {name} is {_by(shape)}, {_by(tensor.shape)} is needed"
                    )
                weights[name] = file.get_tensor(name).to(tensor.dtype)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: no checkpoint, or a damaged one ({error})") from None
    return weights


def load_model(path: Path, output_stride: int | None = None) -> tuple[DeepLabV3Plus, CheckpointInfo]:
    """Rebuilds a checkpoint's network, at another output stride if given.

    Raises:
        UserError: no checkpoint, a damaged one, or one whose tensors are not those of its architecture.
    """
    info = read_info(path)
    if output_stride is not None:
        model_config = info.model.model_copy(update={"output_stride": output_stride})
        info = info.model_copy(update={"model": model_config})
    with torch.device("meta"):
        model = build_model(info.model, len(info.classes))  # nothing is allocated before the shapes are checked
    model.load_state_dict(read_weights(path, model), assign=True)
    return model.eval(), info


def find_checkpoint(name: str) -> Path:
    """A file, a run's folder (its best checkpoint, else its last), or `latest`: the newest best one under runs/.

    Raises:
        UserError: there is none.
    """
    if name == "latest":
        found = sorted(paths.RUNS.rglob("best.safetensors"), key=lambda path: path.stat().st_mtime)
        if not found:
            raise UserError(
                f"no checkpoint yet under {paths.RUNS}: train one (uv run python tools/train.py experiment=demo), "
                "or name a file or a run's folder with checkpoint="
            )
        return found[-1]
    path = Path(name).expanduser()
    if path.is_dir():
        for kind in ("best", "last"):
            if (path / f"{kind}.safetensors").is_file():
                return path / f"{kind}.safetensors"
        raise UserError(f"{path}: no best.safetensors or last.safetensors in this folder")
    if not path.is_file():
        raise UserError(f"{path}: no such checkpoint; a file, a run's folder or latest is expected")
    return path


def _by(shape: torch.Size | list[int]) -> str:
    return "x".join(map(str, shape)) or "a scalar"
