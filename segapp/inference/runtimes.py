"""Which runtime computes, and what it is made from: a checkpoint, or a file that was exported."""

from pathlib import Path
from typing import Literal

from segapp.base.cache import cache_folder
from segapp.base.devices import DeviceName, Precision, device_kind
from segapp.base.errors import UserError
from segapp.base.extras import is_installed
from segapp.runtimes.exported import ExportedRuntime
from segapp.runtimes.interface import RuntimeSpec
from segapp.runtimes.onnxruntime import open_onnx, open_onnx_on_gpu
from segapp.runtimes.openvino import open_ir
from segapp.weights.description import Description
from segapp.weights.exported.description import ExportOptions

RuntimeName = Literal["auto", "torch", "onnxruntime", "openvino"]

FASTEST: tuple[RuntimeName, ...] = ("onnxruntime", "openvino")
"""Tried in this order on a CPU in float32, before PyTorch."""
NAMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}
RUN_BY: dict[str, tuple[RuntimeName, ...]] = {
    ".onnx": ("onnxruntime", "openvino"),
    ".xml": ("openvino",),
    ".pt2": ("torch",),
}
"""Endings of exported files, and what runs them."""


def faster_ones(device: DeviceName, precision: Precision) -> list[RuntimeName]:
    """Those that are installed and faster than PyTorch, the fastest first: on a CPU in float32."""
    if precision not in ("auto", "float32") or device_kind(device) != "cpu":
        return []
    return [each for each in FASTEST if is_installed(each)]


def runtime_of_exported(name: RuntimeName, path: Path) -> RuntimeName:
    """Which one computes an exported file; auto: the first one installed that can.

    Raises:
        UserError: the one named cannot.
    """
    able = RUN_BY[path.suffix]
    if name == "auto":
        return next((each for each in able if each == "torch" or is_installed(each)), able[0])
    if name not in able:
        raise UserError(f"{path}: not for runtime={name}, but for {' or '.join(able)}; runtime=auto takes what fits")
    return name


def exported_runtime(
    path: Path,
    info: Description,
    options: ExportOptions,
    name: RuntimeName = "auto",
    *,
    on_gpu: bool = False,
    precision: Precision = "auto",
    own: bool = False,
) -> ExportedRuntime:
    """The runtime of an exported file.

    Args:
        info, options: what the file says of itself.
        on_gpu: ONNX Runtime computes there.
        precision: auto is the file's; bfloat16 is for OpenVINO, float16 for a GPU.
        own: this process has just written the file, for a look at it: it may be a program of torch.export, and nothing
            that is compiled of it is kept.

    Raises:
        UserError: the library is missing or cannot open the file.
    """
    if own and path.suffix == ".pt2":
        from segapp.runtimes.program import open_own_program  # PyTorch

        return ExportedRuntime(open_own_program(path), spec_of(info, options), "torch.export")
    name = runtime_of_exported(name, path)
    library = NAMES[name]
    if on_gpu:
        compute, by = open_onnx_on_gpu(path, cache_folder() / "tensorrt", float16=precision == "float16")
        library = f"{library}, {by}"
    elif name == "onnxruntime":
        compute = open_onnx(path)
    else:
        compute = open_ir(path, None if own else cache_folder() / "openvino", bfloat16=precision == "bfloat16")
    computed = precision if precision in ("bfloat16", "float16") else options.precision
    return ExportedRuntime(compute, spec_of(info, options), f"{computed} by {library}")


def spec_of(info: Description, options: ExportOptions) -> RuntimeSpec:
    network = info.network
    assert network.output_stride is not None  # of segmentation
    return RuntimeSpec(
        info.classes,
        info.background,
        info.normalization,
        network.output_stride,
        network.output_stride if network.decoder is None else network.decoder.low_level_stride,
        (options.size, options.size) if options.size else None,
    )
