"""OpenVINO."""

import threading
from pathlib import Path

from segapp.base.devices import compute_threads
from segapp.base.errors import UserError
from segapp.base.extras import require
from segapp.runtimes.exported import Array, Compute, first_line


def open_ir(path: Path, cache: Path | None, *, bfloat16: bool = False) -> Compute:
    """An IR or an ONNX file on the CPU, on as many threads as PyTorch has.

    Args:
        cache: a folder for what is compiled; None: it is not kept.
        bfloat16: in which it then computes; else as the file says, and never in less.

    Raises:
        UserError: OpenVINO is missing, cannot open the file, or has no bfloat16 on this CPU.
    """
    require("openvino", "runtime=openvino")
    import openvino

    core = openvino.Core()
    if bfloat16 and "BF16" not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise UserError("precision=bfloat16: this CPU has none; take float32, or precision=auto")
    properties: dict[str, str | int] = {
        "INFERENCE_PRECISION_HINT": "bf16" if bfloat16 else "f32",
        "INFERENCE_NUM_THREADS": compute_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    if cache is not None:
        properties["CACHE_DIR"] = str(cache)
    try:
        network = core.compile_model(path, "CPU", properties)
    except Exception as error:
        raise UserError(f"{path}: OpenVINO cannot open it ({first_line(error)})") from None
    own = threading.local()

    def compute(images: Array) -> Array:
        if not hasattr(own, "request"):  # which serves one thread
            own.request = network.create_infer_request()
        return own.request.infer([images])[0]  # type: ignore[no-any-return]

    return compute
