"""From a checkpoint's file to what labels images. PyTorch, whose import takes seconds, is imported if it computes."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from segapp.base.config import Config
from segapp.base.devices import DeviceName, Precision, device_kind, pick_device
from segapp.base.errors import UserError
from segapp.base.images import Decoding, JpegDecoder, WhiteLevel
from segapp.inference.conversions import first_converted
from segapp.inference.options import InferenceConfig, Resized, Sliding, Whole, check_whole
from segapp.inference.predictor import Predictor
from segapp.inference.runtimes import (
    RuntimeName,
    exported_runtime,
    faster_ones,
    runtime_of_exported,
    spec_of,
)
from segapp.runtimes.interface import Runtime
from segapp.weights.description import Description
from segapp.weights.exported.description import is_exported, read_outline

if TYPE_CHECKING:
    from segapp.inference.classify import ClassPredictor

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
    runtime: RuntimeName,
    jpeg_decoder: JpegDecoder | Literal["trained"],
    white_level: WhiteLevel | Literal["trained"],
    as_validated: bool = False,
) -> tuple[Predictor, Description]:
    """The predictor of one file, and what the file says of itself; "trained": what it was trained with."""
    computes, info = open_runtime(
        path,
        output_stride=output_stride,
        device=device,
        precision=precision,
        runtime=runtime,
        as_validated=as_validated,
    )
    decoding = decoding_of(info, jpeg_decoder, white_level)
    return Predictor(computes, inference.resolved(info.canvas), decoding), info


def decoding_of(
    info: Description,
    jpeg_decoder: JpegDecoder | Literal["trained"],
    white_level: WhiteLevel | Literal["trained"],
) -> Decoding:
    return Decoding(
        info.jpeg_decoder if jpeg_decoder == "trained" else jpeg_decoder,
        info.white_level if white_level == "trained" else white_level,
    )


def open_runtime(
    path: Path,
    *,
    output_stride: int | None,
    device: DeviceName,
    precision: Precision,
    runtime: RuntimeName,
    as_validated: bool = False,
) -> tuple[Runtime, Description]:
    """What computes a checkpoint, and what the file says of itself.

    Args:
        path: a checkpoint of ours, or an exported file.
        as_validated: PyTorch computes one that a training has validated as the training did, to the bit. Else BN is
            folded.

    Raises:
        UserError: the file cannot be used, or not with this runtime, device, precision or output stride; a library is
            missing.
    """
    made = path if is_exported(path) else None
    if device != "auto":
        device_kind(device)  # one that is not there is told first
    if made:
        chosen = runtime_of_exported(runtime, path)
    elif runtime == "auto":  # a conversion takes longer than most pictures: it is made when one asks for it
        kept = first_converted(path, faster_ones(device, precision), output_stride)
        chosen, made = kept or ("torch", None)
    else:
        chosen = runtime
    if chosen == "torch":
        return _by_torch(path, output_stride, device, precision, as_validated)
    on_gpu = device == "cuda" and chosen == "onnxruntime"
    if device not in ("auto", "cpu") and not on_gpu:
        raise UserError(
            f"device={device}: {chosen} computes on the CPU here; take device=cpu, or a checkpoint by torch"
        )
    if (precision == "float16" and not on_gpu) or (precision == "bfloat16" and chosen == "onnxruntime"):
        raise UserError(f"precision={precision}: not by {chosen}, which takes precision=auto; or runtime=torch")
    if made is None:
        from segapp.inference.exporting import converted

        made = converted(path, chosen, output_stride)
    info, options = read_outline(made)
    if output_stride not in (None, spec_of(info, options).output_stride):
        raise UserError(f"{path}: not of output_stride={output_stride}; another one is exported anew")
    if options.precision == "int8" and precision != "auto":
        raise UserError(f"precision={precision}: {path} is of int8; take precision=auto")
    return exported_runtime(made, info, options, chosen, on_gpu=on_gpu, precision=precision), info


def _by_torch(
    path: Path, output_stride: int | None, device: DeviceName, precision: Precision, as_validated: bool
) -> tuple[Runtime, Description]:
    from segapp.runtimes.pytorch import PyTorchRuntime
    from segapp.weights.checkpoint import load_model
    from segapp.weights.exported.program import load_program

    model, info = (load_program if is_exported(path) else load_model)(path, output_stride)
    runtime = PyTorchRuntime(
        model,
        info.classes,
        background=info.background,
        normalization=info.normalization,
        device=pick_device(device),
        precision=precision,
        fold=not (as_validated and info.scores),
    )
    return runtime, info


class PredictorOptions(Config):
    """The keys of every tool that labels images with a checkpoint; see conf/predict.yaml."""

    inference: InferenceConfig
    output_stride: Literal[8, 16, 32] | None
    device: DeviceName
    precision: Precision
    runtime: RuntimeName
    jpeg_decoder: JpegDecoder | Literal["trained"]
    white_level: WhiteLevel | Literal["trained"]

    def open(self, path: Path, *, as_validated: bool = False) -> tuple[Predictor, Description]:
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
            runtime=self.runtime,
            jpeg_decoder=self.jpeg_decoder,
            white_level=self.white_level,
            as_validated=as_validated,
        )

    def open_classifier(self, path: Path) -> "tuple[ClassPredictor, Description]":
        """A classifier's predictor, and what its file says of itself; "trained": as it was validated.

        Raises:
            UserError: no checkpoint of a classifier, or an option is one of segmentation's.
        """
        from segapp.inference.classify import ClassPredictor
        from segapp.weights.checkpoint import load_classifier

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
