"""From a checkpoint's file to what labels images."""

from pathlib import Path

from segapp.base.devices import DeviceName, Precision, pick_device
from segapp.inference.options import Resized, Sliding, Whole
from segapp.inference.predictor import Predictor
from segapp.runtimes.pytorch import PyTorchRuntime
from segapp.weights.checkpoint import CheckpointInfo, load_model


def open_predictor(
    path: Path,
    inference: Whole | Sliding | Resized,
    *,
    output_stride: int | None,
    device: DeviceName,
    precision: Precision,
) -> tuple[Predictor, CheckpointInfo]:
    """The predictor of one file, and what the file says of itself."""
    model, info = load_model(path, output_stride)
    runtime = PyTorchRuntime(
        model,
        info.classes,
        background=info.background,
        normalization=info.normalization,
        device=pick_device(device),
        precision=precision,
    )
    return Predictor(runtime, inference.resolved(info.canvas)), info
