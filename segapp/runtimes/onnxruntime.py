"""ONNX Runtime."""

from pathlib import Path

from segapp.base.devices import compute_threads
from segapp.base.errors import UserError
from segapp.base.extras import require
from segapp.runtimes.exported import Array, Compute, first_line


def open_onnx(path: Path) -> Compute:
    """An ONNX file on the CPU, on as many threads as PyTorch has.

    Raises:
        UserError: ONNX Runtime is missing or cannot open the file.
    """
    require("onnxruntime", "runtime=onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = compute_threads()
    options.log_severity_level = 4  # errors are raised
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        (name,) = (each.name for each in session.get_inputs())
    except Exception as error:  # of one class a fault, without a base of their own
        raise UserError(f"{path}: ONNX Runtime cannot open it ({first_line(error)})") from None

    def compute(images: Array) -> Array:
        return session.run(None, {name: images})[0]  # type: ignore[no-any-return]

    return compute
