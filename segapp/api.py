"""What `import segapp` offers."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from segapp.base.devices import DeviceName, Precision
from segapp.base.errors import UserError
from segapp.base.images import WHITE, JpegDecoder
from segapp.inference.open import open_predictor
from segapp.inference.options import Side, Sliding, Whole
from segapp.inference.predictor import Predictor
from segapp.inference.runtimes import RuntimeName
from segapp.models.outline import OUTPUT_STRIDES
from segapp.weights.find import EMBEDDED, find_checkpoint


def load(
    checkpoint: str | Path = EMBEDDED,
    *,
    device: DeviceName = "auto",
    precision: Precision = "auto",
    runtime: RuntimeName = "auto",
    output_stride: int | None = None,
    canvas: Side | None = "trained",
    window: Side | None = None,
    overlap: float = 0.3333,
    scales: Sequence[float] = (1,),
    flip: bool = False,
    jpeg_decoder: JpegDecoder | Literal["trained"] = "trained",
    white_level: int | Literal["trained"] = "trained",
    offline: bool = False,
) -> Predictor:
    """A callable that labels images: `labels = segapp.load()(image)`, or of the published
    `segapp.load("xception65_voc_coco_trainaug")`.

    Its `probabilities(image)` gives K x H x W float16.

    Args:
        checkpoint: "embedded", the small network for VOC's classes that comes with the program, a name of the model
            zoo, a file, exported ones too, a run's folder, or "latest".
        device: "auto" is the first of cuda, mps, cpu that is there.
        precision: "auto" is bfloat16 on GPUs that have it, else float32.
        runtime: "torch", "onnxruntime" or "openvino"; "auto" is one that reads an exported file; else, on a CPU in
            float32, one for which the checkpoint was converted before and kept in the cache; else PyTorch.
        output_stride: 8, 16 or 32; None for the one trained at.
        canvas: side in pixels, k * output_stride + 1, to which images are padded; "trained" is the one on which the
            checkpoint was validated, None takes each image as it is.
        window: side in pixels of windows to slide over larger images, in place of a canvas.
        overlap: of neighbouring windows, the least share of their side, from 0 to 0.9.
        scales: of the canvas or window, each at most 4; class probabilities are averaged.
        flip: each one's mirror image, too.
        jpeg_decoder: of files; "trained" is what the checkpoint was trained with.
        white_level: of images of 16 bits, the value that is white: 65535, 4095 for 12 bits, 255; "trained" likewise.
        offline: never use the network; the zoo's weights must be in the cache.

    Raises:
        segapp.UserError: no such checkpoint, a damaged one, no such device, output stride, canvas, window,
            overlap or scale; no network.
    """
    if output_stride not in (None, *OUTPUT_STRIDES):
        raise UserError(f"output_stride={output_stride}: 8, 16 or 32 is possible")
    if white_level != "trained" and not 255 <= white_level <= WHITE:
        raise UserError(f"white_level={white_level}: 255 to {WHITE} are possible")
    augmentation = {"scales": tuple(scales), "flip": flip}
    try:
        inference: Whole | Sliding = (
            Whole.model_validate({"canvas": canvas, **augmentation})
            if window is None
            else Sliding.model_validate({"window": window, "overlap": overlap, **augmentation})
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{first['loc'][0]}={first['input']}: {first['msg'].removeprefix('Value error, ')}") from None
    path = find_checkpoint(str(checkpoint), offline=offline)
    predictor, _ = open_predictor(
        path,
        inference,
        output_stride=output_stride,
        device=device,
        precision=precision,
        runtime=runtime,
        jpeg_decoder=jpeg_decoder,
        white_level=white_level,
    )
    return predictor
