"""Int8 after training, by NNCF: weights and activations, their ranges measured on images that the user names.

What hurts stays in float: as long as more than MOST_CHANGED of the labels are others than the network's own, layers go
back, the one first without which the labels agree best.
"""

import contextlib
import io
import logging
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segapp.base.errors import UserError, number_of
from segapp.base.extras import require
from segapp.base.logs import ProgressHandler, progress_bar

if TYPE_CHECKING:
    import onnx
    import openvino

log = logging.getLogger(__name__)

MOST_CHANGED = 0.02
"""The share of labels, of places of the logits, up to which all layers are of int8: one that changed 1.7 % of pixels
cost 0.02 of mIoU in percent (docs/benchmarks.md)."""
COMPARED = 16
"""Images on which labels are compared, of those on which ranges are measured: evenly chosen."""
RANKED = 4
"""Of these, images on which it is found which layer hurts most."""

NO_IMAGES = "precision=int8 measures ranges on images such as the network is for; name some"

Array = npt.NDArray[np.float32]
Item = tuple[Any, npt.NDArray[np.int64]]
Compute = Callable[[Any], Array]


def quantized_onnx(network: "onnx.ModelProto", calibration: Sequence[dict[str, Array]]) -> "onnx.ModelProto":
    """Args:
        calibration: normalised images, N x 3 x H x W, by the name of the network's input.

    Raises:
        UserError: NNCF is missing, or there are no images.
    """
    require("int8", "precision=int8")
    import onnxruntime

    def opened(model: "onnx.ModelProto") -> Compute:
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return lambda inputs: session.run(None, inputs)[0]

    # One range for all channels: the kernels of ONNX Runtime take no other of activations.
    return _quantized(network, calibration, opened, per_channel=False)  # type: ignore[no-any-return]


def quantized_ir(network: "openvino.Model", calibration: Sequence[Array]) -> "openvino.Model":
    """As `quantized_onnx`, of images alone.

    In a process of its own: after NNCF has tried out layers with OpenVINO, a process that is forked from this one, as
    loading ones are, crashes.
    """
    require("int8", "precision=int8")
    if not calibration:
        raise UserError(NO_IMAGES)
    import openvino

    with TemporaryDirectory(prefix="segapp-int8-") as folder, _child() as pool:
        path = Path(folder) / "net.xml"
        openvino.save_model(network, path, compress_to_fp16=False)
        pool.submit(_quantize_file, path, list(calibration)).result()
        return openvino.Core().read_model(path, config={"ENABLE_MMAP": False})


def _child() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


def _quantize_file(path: Path, calibration: Sequence[Array]) -> None:
    """Puts an IR's quantised form in its place."""
    import openvino

    def opened(model: "openvino.Model | openvino.CompiledModel") -> Compute:
        compiled = openvino.compile_model(model, "CPU") if isinstance(model, openvino.Model) else model
        return lambda images: compiled([images])[0]

    log.handlers = [ProgressHandler()]  # on the same terminal
    log.setLevel(logging.INFO)
    network = openvino.Core().read_model(path, config={"ENABLE_MMAP": False})
    openvino.save_model(_quantized(network, calibration, opened), path, compress_to_fp16=False)


def _quantized(
    network: Any, calibration: Sequence[Any], opened: Callable[[Any], Compute], *, per_channel: bool | None = None
) -> Any:
    """Args:
    per_channel: ranges of activations; None: before depthwise convolutions.
    """
    if not calibration:
        raise UserError(NO_IMAGES)
    ours = logging.getLoggerClass()
    import nncf
    from nncf.quantization.advanced_parameters import QuantizationParameters

    logging.setLoggerClass(ours)  # which NNCF changes for all
    logging.getLogger("nncf").setLevel(logging.ERROR)  # its own set_log_level silences others, too
    log.info(
        "ranges for int8 are measured on %s, which takes minutes where the network is large",
        number_of(len(calibration), "image"),
    )
    original = opened(network)
    items: list[Item] = [(images, original(images).argmax(1)) for images in calibration]
    compared = items[:: -(-len(items) // COMPARED)]
    # Of activations that no ReLU cuts off at zero, a range that lies evenly about it would leave half unused.
    options: dict[str, Any] = {"preset": nncf.QuantizationPreset.MIXED, "subset_size": len(items)}
    ranges = nncf.AdvancedQuantizationParameters(
        activations_quantization_params=QuantizationParameters(per_channel=per_channel)
    )

    def agreement(model: Any, chosen: Iterable[Item]) -> tuple[float, list[float]]:
        compute = opened(model)
        shares = [float((compute(images).argmax(1) == labels).mean()) for images, labels in chosen]
        tried.update()
        return float(np.mean(shares)), shares

    data, compared_data = (nncf.Dataset(each, lambda item: item[0]) for each in (items, compared))
    with _no_progress_bars():
        quantized = nncf.quantize(network, data, advanced_parameters=ranges, **options)
    with progress_bar(None, "beside the original", "network", leave=False) as tried:
        changed = 1 - agreement(quantized, compared)[0]
    if changed <= MOST_CHANGED:
        return quantized
    log.info("in int8 %.1f %% of labels change: which layers hurt is tried out, one by one", 100 * changed)
    with progress_bar(None, "which layers hurt", "network") as tried, _no_progress_bars():
        return nncf.quantize_with_accuracy_control(
            network,
            data,
            compared_data,
            agreement,
            max_drop=MOST_CHANGED,
            advanced_quantization_parameters=ranges,
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                ranking_subset_size=min(RANKED, len(compared))
            ),
            **options,
        )


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        yield
