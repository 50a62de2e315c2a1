"""Exports of checkpoints: written, and then run beside the original before they are taken for it."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch

from segapp.base.files import file_lock, scratch_folder
from segapp.inference.agreement import Agreement, agreement, noise, shown
from segapp.inference.conversions import is_sound, kept_at
from segapp.inference.preprocess import Array
from segapp.inference.runtimes import RuntimeName, exported_runtime
from segapp.models.deeplabv3plus import DeepLabV3Plus
from segapp.runtimes.pytorch import PyTorchRuntime
from segapp.weights.checkpoint import CheckpointInfo, load_model
from segapp.weights.exported.description import ExportOptions, digest, files_of
from segapp.weights.exported.write import ExportError, write_exported

log = logging.getLogger(__name__)

MOST = {"float32": 1e-4, "float16": 0.03, "int8": 0.5}
"""How far a logit may lie from the original's, in parts of the largest: what rounding in a precision explains."""


def export(
    path: Path, model: DeepLabV3Plus, info: CheckpointInfo, options: ExportOptions, images: Sequence[Array] = ()
) -> Agreement:
    """Writes the file, whole or not at all, if what it computes agrees with the original.

    Args:
        path: its ending says in whose format.
        model: on the CPU, in evaluation mode.
        info: describes it.
        images: to compare on, and for int8 to measure ranges on; none: noise.

    Raises:
        UserError: a library or images for int8 are missing.
        ExportError: the network has no counterpart in the format, or the two do not agree.
    """
    cpu = torch.device("cpu")
    original = PyTorchRuntime(model, info.classes, normalization=info.normalization, device=cpu, precision="float32")
    side = options.size or info.canvas
    with scratch_folder(path.with_name(f".{path.name}.checking")) as scratch:
        made = scratch / path.name
        calibration = [shown(original, image, side)[0].contiguous().numpy() for image in images]
        write_exported(made, model, info, options, calibration)
        other = exported_runtime(made, info, options, own=True)
        found = agreement(original, other, images or noise(side or 257), side)
        if not found.difference <= MOST[options.precision]:
            raise ExportError(
                f"{path.name} computes something else: a logit differs by {found.difference:.2g} of the largest, and "
                f"{options.precision} explains {MOST[options.precision]:g}; {found.changed:.2%} of pixels change. "
                "It is not kept; take another precision or format"
            )
        for part in reversed([*files_of(made)]):  # what is named comes last
            part.replace(path.with_name(part.name))
    return found


def converted(path: Path, runtime: RuntimeName, output_stride: int | None) -> Path:
    """A checkpoint of ours as a file that the runtime reads, from the cache, or made and kept there the first time.

    Raises:
        UserError: no checkpoint, or a library is missing.
        ExportError: the network has no counterpart in the format, or the cache cannot be written to.
    """
    target = kept_at(digest(path), runtime, output_stride)
    if is_sound(target):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(target.with_suffix(".lock"), f"converting {path}"):
            if not is_sound(target):
                log.info("converting %s for %s, once: %s", path, runtime, target)
                export(target, *load_model(path, output_stride), ExportOptions())
    except OSError as error:
        raise ExportError(
            f"{target}: cannot be written ({error.strerror}); SEGAPP_CACHE=DIR names another cache folder"
        ) from None
    return target
