"""From a checkpoint's file to what labels images."""

from pathlib import Path
from typing import Literal

from segapp.base.config import Config
from segapp.base.devices import DeviceName, Precision, pick_device
from segapp.base.images import Decoding, JpegDecoder, WhiteLevel
from segapp.inference.options import InferenceConfig, Resized, Sliding, Whole
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
    jpeg_decoder: JpegDecoder | Literal["trained"],
    white_level: WhiteLevel | Literal["trained"],
) -> tuple[Predictor, CheckpointInfo]:
    """The predictor of one file, and what the file says of itself; "trained": what it was trained with."""
    model, info = load_model(path, output_stride)
    runtime = PyTorchRuntime(
        model,
        info.classes,
        background=info.background,
        normalization=info.normalization,
        device=pick_device(device),
        precision=precision,
    )
    decoding = Decoding(
        info.jpeg_decoder if jpeg_decoder == "trained" else jpeg_decoder,
        info.white_level if white_level == "trained" else white_level,
    )
    return Predictor(runtime, inference.resolved(info.canvas), decoding), info


class PredictorOptions(Config):
    """The keys of every tool that labels images with a checkpoint; see conf/predict.yaml."""

    inference: InferenceConfig
    output_stride: Literal[8, 16, 32] | None
    device: DeviceName
    precision: Precision
    jpeg_decoder: JpegDecoder | Literal["trained"]
    white_level: WhiteLevel | Literal["trained"]

    def open(self, path: Path) -> tuple[Predictor, CheckpointInfo]:
        """As `open_predictor`."""
        return open_predictor(
            path,
            self.inference,
            output_stride=self.output_stride,
            device=self.device,
            precision=self.precision,
            jpeg_decoder=self.jpeg_decoder,
            white_level=self.white_level,
        )
