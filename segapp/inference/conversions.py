"""Where conversions of checkpoints for other runtimes are kept; `segapp.inference.exporting` makes them."""

import logging
from collections.abc import Sequence
from pathlib import Path

from segapp.base.cache import cache_folder
from segapp.base.errors import UserError
from segapp.inference.runtimes import RuntimeName
from segapp.weights.exported.description import SUFFIXES, digest, read_outline

log = logging.getLogger(__name__)

CONVERTER = 1
"""To be raised when what is made of the same checkpoint changes."""


def first_converted(
    path: Path, runtimes: Sequence[RuntimeName], output_stride: int | None
) -> tuple[RuntimeName, Path] | None:
    """The first of the runtimes for which `converted` finds a sound file in the cache, and that file."""
    sha256 = digest(path) if runtimes else ""
    kept = ((each, kept_at(sha256, each, output_stride)) for each in runtimes)
    return next((each for each in kept if is_sound(each[1])), None)


def kept_at(sha256: str, runtime: RuntimeName, output_stride: int | None) -> Path:
    suffix = SUFFIXES["onnx" if runtime == "onnxruntime" else "openvino"]
    stride = "" if output_stride is None else f"_output_stride_{output_stride}"
    return cache_folder() / f"exported-{CONVERTER}" / f"{sha256}{stride}{suffix}"


def is_sound(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        read_outline(path)
    except UserError as error:
        log.warning("%s; it is made anew", error)
        return False
    return True
