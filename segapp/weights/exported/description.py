"""What an exported file says of itself."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, ValidationError

from segapp.base.config import Config
from segapp.base.errors import UserError
from segapp.base.files import sha256
from segapp.weights.description import D, Description, described
from segapp.weights.exported.metadata import read_metadata

if TYPE_CHECKING:
    from segapp.weights.checkpoint import CheckpointInfo

Format = Literal["onnx", "openvino", "torch"]
ExportPrecision = Literal["float32", "float16", "int8"]

SUFFIXES: dict[Format, str] = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2"}
EXPORT = "segapp_export"
"""The key of `ExportOptions` beside that of the checkpoint's description."""


class ExportOptions(Config):
    """What a checkpoint does not know.

    Attributes:
        precision: float32; float16, in which parameters are stored and, where the library does so, computed; int8.
        size: the side in pixels of the only images it takes, one at a time; None: any number of any size.
    """

    precision: ExportPrecision = "float32"
    size: Annotated[int, Field(gt=0, le=4097)] | None = None


def is_exported(path: Path) -> bool:
    """By its ending."""
    return path.suffix in SUFFIXES.values()


def read_exported(path: Path) -> "tuple[CheckpointInfo, ExportOptions]":
    """With all that rebuilds the network.

    Raises:
        UserError: as `read_outline`.
    """
    from segapp.weights.checkpoint import CheckpointInfo  # which imports PyTorch

    return _read(path, CheckpointInfo)


def read_outline(path: Path) -> tuple[Description, ExportOptions]:
    """What is to be known to run it.

    Raises:
        UserError: no such file, a damaged one, or one that segapp has not exported.
    """
    return _read(path, Description)


def _read(path: Path, kind: type[D]) -> tuple[D, ExportOptions]:
    metadata = read_metadata(path)
    try:
        info = described(metadata, path, kind)
        options = ExportOptions.model_validate_json(metadata[EXPORT])
    except (KeyError, ValidationError):
        raise UserError(f"{path}: its description is damaged, or of another version of segapp") from None
    if not info.is_segmentation or not info.classes:
        raise UserError(f"{path}: its description is damaged: it is none of a network that segments")
    return info, options


def files_of(path: Path) -> Iterator[Path]:
    """The file, and the weights of one that has them apart."""
    yield path
    if path.suffix == SUFFIXES["openvino"]:
        yield path.with_suffix(".bin")


def digest(path: Path) -> str:
    """SHA-256 of a checkpoint; of an IR, of those of its files."""
    first, *others = map(sha256, files_of(path))
    return hashlib.sha256("".join([first, *others]).encode()).hexdigest() if others else first
