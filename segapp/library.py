"""What `import segapp` offers."""

from pathlib import Path

from segapp.devices import DeviceName, Precision, pick_device
from segapp.inference.predictor import InferenceConfig, Predictor
from segapp.weights.checkpoint import find_checkpoint, load_model

CANVAS = 513
"""Side in pixels of the paper's canvas (arXiv:1802.02611, section 4)."""


def load(
    checkpoint: str | Path,
    *,
    device: DeviceName = "auto",
    precision: Precision = "auto",
    output_stride: int | None = None,
    canvas: int | None = CANVAS,
) -> Predictor:
    """A callable that labels images: `labels = segapp.load("best.safetensors")(image)`.

    Args:
        checkpoint: a file, a run's folder, or "latest".
        device: "auto" is the first of cuda, mps, cpu that is there.
        precision: "auto" is bfloat16 on GPUs that have it, else float32.
        output_stride: 8, 16 or 32; None for the one trained at.
        canvas: side in pixels, k * output_stride + 1, to which images are padded; None takes each as it is.

    Raises:
        segapp.UserError: no such checkpoint, a damaged one, or no such device.
    """
    model, info = load_model(find_checkpoint(str(checkpoint)), output_stride)
    return Predictor(
        model,
        info.classes,
        output_stride=info.model.output_stride,
        inference=InferenceConfig(canvas=canvas),
        device=pick_device(device),
        precision=precision,
    )
