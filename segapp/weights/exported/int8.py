"""Int8 after training, by NNCF: weights and activations, their ranges measured on images that the user names."""

import contextlib
import io
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from segapp.base.errors import UserError
from segapp.base.extras import require

if TYPE_CHECKING:
    import onnx
    import openvino


def quantized_onnx(network: "onnx.ModelProto", calibration: Sequence[Any]) -> "onnx.ModelProto":
    """Raises:
    UserError: NNCF is missing, or there are no images.
    """
    return _quantized(network, calibration)  # type: ignore[no-any-return]


def quantized_ir(network: "openvino.Model", calibration: Sequence[Any]) -> "openvino.Model":
    """As `quantized_onnx`."""
    return _quantized(network, calibration)


def _quantized(network: Any, calibration: Sequence[Any]) -> Any:
    if not calibration:
        raise UserError("precision=int8 measures ranges on images such as the network is for; name some")
    require("int8", "precision=int8")
    ours = logging.getLoggerClass()
    import nncf

    logging.setLoggerClass(ours)  # which NNCF changes for all
    logging.getLogger("nncf").setLevel(logging.ERROR)  # its own set_log_level silences others, too
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # its progress bars
        return nncf.quantize(network, nncf.Dataset(calibration), subset_size=len(calibration))
