"""Int8 after training, by NNCF: weights and activations, their ranges measured on images that the user names.

What hurts stays in float: as long as more than MOST_CHANGED of the labels are others than the network's own, layers go
back, the one first without which the labels agree best.
"""

import contextlib
import io
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from segapp.base.errors import UserError
from segapp.base.extras import require

if TYPE_CHECKING:
    import onnx
    import openvino

MOST_CHANGED = 0.01
"""The share of labels, of places of the logits, up to which all layers are of int8."""
COMPARED = 16
"""Images on which labels are compared, of those on which ranges are measured: evenly chosen."""
RANKED = 4
"""Of these, images on which it is found which layer hurts most."""

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

    return _quantized(network, calibration, opened)  # type: ignore[no-any-return]


def quantized_ir(network: "openvino.Model", calibration: Sequence[Array]) -> "openvino.Model":
    """As `quantized_onnx`, of images alone."""
    require("int8", "precision=int8")
    import openvino

    def opened(model: "openvino.Model | openvino.CompiledModel") -> Compute:
        compiled = openvino.compile_model(model, "CPU") if isinstance(model, openvino.Model) else model
        return lambda images: compiled([images])[0]

    return _quantized(network, calibration, opened)


def _quantized(network: Any, calibration: Sequence[Any], opened: Callable[[Any], Compute]) -> Any:
    if not calibration:
        raise UserError("precision=int8 measures ranges on images such as the network is for; name some")
    ours = logging.getLoggerClass()
    import nncf

    logging.setLoggerClass(ours)  # which NNCF changes for all
    logging.getLogger("nncf").setLevel(logging.ERROR)  # its own set_log_level silences others, too
    original = opened(network)
    items: list[Item] = [(images, original(images).argmax(1)) for images in calibration]
    compared = items[:: -(-len(items) // COMPARED)]
    # Of activations that no ReLU cuts off at zero, a range that lies evenly about it would leave half unused.
    options = {"preset": nncf.QuantizationPreset.MIXED, "subset_size": len(items)}

    def agreement(model: Any, chosen: Iterable[Item]) -> tuple[float, list[float]]:
        compute = opened(model)
        shares = [float((compute(images).argmax(1) == labels).mean()) for images, labels in chosen]
        return float(np.mean(shares)), shares

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # its progress bars
        data, compared_data = (nncf.Dataset(each, lambda item: item[0]) for each in (items, compared))
        quantized = nncf.quantize(network, data, **options)
        if agreement(quantized, compared)[0] >= 1 - MOST_CHANGED:
            return quantized
        return nncf.quantize_with_accuracy_control(
            network,
            data,
            compared_data,
            agreement,
            max_drop=MOST_CHANGED,
            advanced_accuracy_restorer_parameters=nncf.AdvancedAccuracyRestorerParameters(
                ranking_subset_size=min(RANKED, len(compared))
            ),
            **options,
        )
