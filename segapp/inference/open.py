"""From a checkpoint's file to what labels images."""

from pathlib import Path
from typing import Literal

from segapp.base.config import Config
from segapp.base.devices import DeviceName, Precision, pick_device
from segapp.base.errors import UserError
from segapp.base.images import Decoding, JpegDecoder, WhiteLevel
from segapp.inference.classify import ClassPredictor
from segapp.inference.options import InferenceConfig, Resized, Sliding, Whole, check_whole
from segapp.inference.predictor import Predictor
from segapp.runtimes.pytorch import PyTorchRuntime
from segapp.weights.checkpoint import CheckpointInfo, load_classifier, load_model

CENTER = 0.875
"""The share of either side that is shown to a classifier of which nobody knows on what it was validated
(research/slim/preprocessing/inception_preprocessing.py)."""


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
    decoding = decoding_of(info, jpeg_decoder, white_level)
    return Predictor(runtime, inference.resolved(info.canvas), decoding), info


def decoding_of(
    info: CheckpointInfo,
    jpeg_decoder: JpegDecoder | Literal["trained"],
    white_level: WhiteLevel | Literal["trained"],
) -> Decoding:
    return Decoding(
        info.jpeg_decoder if jpeg_decoder == "trained" else jpeg_decoder,
        info.white_level if white_level == "trained" else white_level,
    )


class PredictorOptions(Config):
    """The keys of every tool that labels images with a checkpoint; see conf/predict.yaml."""

    inference: InferenceConfig
    output_stride: Literal[8, 16, 32] | None
    device: DeviceName
    precision: Precision
    jpeg_decoder: JpegDecoder | Literal["trained"]
    white_level: WhiteLevel | Literal["trained"]

    def open(self, path: Path) -> tuple[Predictor, CheckpointInfo]:
        """As `open_predictor`.

        Raises:
            UserError: an option is a classifier's.
        """
        try:
            check_whole(self.inference)
        except ValueError as error:
            raise UserError(str(error)) from None
        return open_predictor(
            path,
            self.inference,
            output_stride=self.output_stride,
            device=self.device,
            precision=self.precision,
            jpeg_decoder=self.jpeg_decoder,
            white_level=self.white_level,
        )

    def open_classifier(self, path: Path) -> tuple[ClassPredictor, CheckpointInfo]:
        """A classifier's predictor, and what its file says of itself; "trained": as it was validated.

        Raises:
            UserError: no checkpoint of a classifier, or an option is one of segmentation's.
        """
        inference = self.inference
        if self.output_stride is not None:
            raise UserError(f"output_stride={self.output_stride}: classifiers have none to choose; leave it null")
        model, info = load_classifier(path)
        if isinstance(inference, Whole) and inference.canvas == "trained":
            share = info.center or CENTER
            inference = Resized(size="trained", share=share, scales=inference.scales, flip=inference.flip)
        if not isinstance(inference, Resized):
            raise UserError(f"inference.kind={inference.kind} is for segmentation; take inference=resize, or trained")
        predictor = ClassPredictor(
            model,
            info.classes,
            inference.resolved(info.canvas),
            decoding_of(info, self.jpeg_decoder, self.white_level),
            normalization=info.normalization,
            device=pick_device(self.device),
            precision=self.precision,
        )
        return predictor, info
