"""ONNX Runtime."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from segapp.base.devices import compute_threads
from segapp.base.errors import UserError
from segapp.base.extras import require
from segapp.runtimes.exported import Array, Compute, first_line

TENSORRT, CUDA, CPU = (f"{name}ExecutionProvider" for name in ("Tensorrt", "CUDA", "CPU"))


def open_onnx(path: Path) -> Compute:
    """An ONNX file on the CPU, on as many threads as PyTorch has.

    Raises:
        UserError: ONNX Runtime is missing or cannot open the file.
    """
    require("onnxruntime", "runtime=onnxruntime")
    return _opened(path, [(CPU, {})])


def open_onnx_on_gpu(path: Path, cache: Path, *, float16: bool = False) -> tuple[Compute, str]:
    """An ONNX file on an NVIDIA GPU, and by what there: TensorRT where ONNX Runtime finds it, else CUDA's own kernels.

    Args:
        cache: a folder for what TensorRT builds, which takes minutes.
        float16: in which TensorRT may compute; else as the file says.

    Raises:
        UserError: ONNX Runtime is missing, is one for CPUs, finds no CUDA or, for float16, no TensorRT, or cannot open
            the file.
    """
    require("onnxruntime", "runtime=onnxruntime")
    import onnxruntime

    found = onnxruntime.get_available_providers()
    if CUDA not in found:
        raise UserError(
            "runtime=onnxruntime device=cuda: this ONNX Runtime is for CPUs alone; in its place "
            "pip install onnxruntime-gpu, or take runtime=torch"
        )
    providers: list[tuple[str, dict[str, Any]]] = [(CUDA, {"use_tf32": 0})]
    if TENSORRT in found:
        cache.mkdir(parents=True, exist_ok=True)
        kept = {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(cache), "trt_timing_cache_enable": True}
        providers.insert(0, (TENSORRT, kept | {"trt_fp16_enable": float16}))
    elif float16:
        raise UserError("precision=float16 of an ONNX file needs TensorRT; or export it with precision=float16")
    return _opened(path, providers), "TensorRT" if TENSORRT in found else "CUDA"


def _opened(path: Path, providers: Sequence[tuple[str, dict[str, Any]]]) -> Compute:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = compute_threads()
    options.log_severity_level = 4  # errors are raised
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # other threads want the cores
    try:
        session = onnxruntime.InferenceSession(path, options, providers=list(providers))
        (name,) = (each.name for each in session.get_inputs())
    except Exception as error:  # of one class a fault, without a base of their own
        raise UserError(f"{path}: ONNX Runtime cannot open it ({first_line(error)})") from None
    wanted = providers[0][0]
    if wanted not in session.get_providers():  # it goes on with the next, and says so in its log alone
        raise UserError(
            f"ONNX Runtime cannot start its {wanted}: CUDA's libraries, or TensorRT's, are missing or of another "
            "version; take runtime=torch"
        )

    def compute(images: Array) -> Array:
        return session.run(None, {name: images})[0]  # type: ignore[no-any-return]

    return compute
