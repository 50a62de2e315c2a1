"""What `import segapp` offers."""

from pathlib import Path
from typing import Literal

from segapp.devices import DeviceName, Precision, pick_device
from segapp.errors import UserError
from segapp.inference.predictor import Predictor
from segapp.models.head import ATROUS_RATES
from segapp.weights.checkpoint import find_checkpoint, load_model


def load(
    checkpoint: str | Path,
    *,
    device: DeviceName = "auto",
    precision: Precision = "auto",
    output_stride: int | None = None,
    canvas: int | Literal["trained"] | None = "trained",
) -> Predictor:
    """A callable that labels images: `labels = segapp.load("best.safetensors")(image)`.

    Args:
        checkpoint: a file, a run's folder, or "latest".
        device: "auto" is the first of cuda, mps, cpu that is there.
        precision: "auto" is bfloat16 on GPUs that have it, else float32.
        output_stride: 8, 16 or 32; None for the one trained at.
        canvas: side in pixels, k * output_stride + 1, to which images are padded; "trained" is the one on which the
            checkpoint was validated, None takes each image as it is.

    Raises:
        segapp.UserError: no such checkpoint, a damaged one, no such device, output stride or canvas.
    """
    if output_stride not in (None, *ATROUS_RATES):
        raise UserError(f"output_stride={output_stride}: 8, 16 or 32 is possible")
    model, info = load_model(find_checkpoint(str(checkpoint)), output_stride)
    return Predictor(
        model,
        info.classes,
        output_stride=info.model.output_stride,
        canvas=info.canvas if canvas == "trained" else canvas,
        device=pick_device(device),
        precision=precision,
    )
