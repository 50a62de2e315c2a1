"""A network to a file of another library's, description included."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from segapp.base.errors import UserError
from segapp.base.extras import require
from segapp.models.deeplabv3plus import DeepLabV3Plus
from segapp.weights.checkpoint import CheckpointInfo
from segapp.weights.exported.description import EXPORT, SUFFIXES, ExportOptions
from segapp.weights.exported.int8 import quantized_ir, quantized_onnx

if TYPE_CHECKING:
    import onnx

INPUT, OUTPUT = "images", "logits"
"""What an exported network's tensors are called."""
EXAMPLE = (257, 289)
"""Height and width of what a network of any size is traced with; two that differ are not taken for one."""

Images = Sequence[npt.NDArray[np.float32]]


def write_exported(
    path: Path, model: DeepLabV3Plus, info: CheckpointInfo, options: ExportOptions, calibration: Images = ()
) -> None:
    """Writes the file into a scratch folder; its ending says in whose format.

    Args:
        model: on the CPU, in evaluation mode, float32.
        info: describes it.
        calibration: for int8, normalised images as the network is given them, 1 x 3 x H x W.

    Raises:
        UserError: a library is missing, or there are no images for int8.
        ExportError: the network has no counterpart in the format.
    """
    write = {SUFFIXES["onnx"]: _write_onnx, SUFFIXES["openvino"]: _write_ir, SUFFIXES["torch"]: _write_program}
    metadata = info.as_metadata() | {EXPORT: options.model_dump_json()}
    write[path.suffix](path, model, options, metadata, calibration)


def _write_program(
    path: Path, model: nn.Module, options: ExportOptions, metadata: dict[str, str], calibration: Images
) -> None:
    program = _program(model, options)
    with _quiet():
        torch.export.save(program, path, extra_files=metadata)


def _write_onnx(
    path: Path, model: nn.Module, options: ExportOptions, metadata: dict[str, str], calibration: Images
) -> None:
    network = _onnx(model, options)
    if options.precision == "int8":
        network = quantized_onnx(network, [{INPUT: each} for each in calibration])
    for key, value in metadata.items():
        network.metadata_props.add(key=key, value=value)
    path.write_bytes(network.SerializeToString())


def _write_ir(
    path: Path, model: nn.Module, options: ExportOptions, metadata: dict[str, str], calibration: Images
) -> None:
    require("openvino", "an IR of OpenVINO")
    import openvino

    network = openvino.Core().read_model(
        _onnx(model, options.model_copy(update={"precision": "float32"})).SerializeToString()
    )
    if options.precision == "int8":
        network = quantized_ir(network, calibration)
    for key, value in metadata.items():
        network.set_rt_info(value, key)
    openvino.save_model(network, path, compress_to_fp16=options.precision == "float16")


def _onnx(model: nn.Module, options: ExportOptions) -> "onnx.ModelProto":
    """By torch's exporter."""
    require("export", "an ONNX file, from which an IR is made, too,")
    program = _program(model, options)
    with _quiet(), _told("ONNX"):
        exported = torch.onnx.export(program, dynamo=True, verbose=False, input_names=[INPUT], output_names=[OUTPUT])
        assert exported is not None
        network = exported.model_proto
    return network


def _program(model: nn.Module, options: ExportOptions) -> "torch.export.ExportedProgram":
    any_number = torch.export.Dim.DYNAMIC
    network = _Halved(model) if options.precision == "float16" else model
    height, width = (options.size, options.size) if options.size else EXAMPLE
    example = torch.zeros(1 if options.size else 2, 3, height, width)
    shapes = None if options.size else ({0: any_number, 2: any_number, 3: any_number},)
    remedy = "" if options.size else "; size=SIDE, for images of one size, may go"
    with _quiet(), _told("torch.export", remedy):
        program = torch.export.export(network.eval(), (example,), dynamic_shapes=shapes)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # which names this machine's files
    return program


class ExportError(UserError):
    """The network is sound, and the export is not to be had."""


class _Halved(nn.Module):
    """A network whose weights are stored in float16, and computed with in float32, in which nothing overflows.

    BN's parameters, of small variances among others, stay as they are.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = [network]  # in a list, it is no module whose parameters would be stored, too
        self._names = {name: name.replace(".", "__") for name in network.state_dict()}
        for name, tensor in network.state_dict().items():
            self.register_buffer(self._names[name], tensor.half() if tensor.dim() > 1 else tensor.clone())

    def forward(self, images: Tensor) -> Tensor:
        stored = {name: getattr(self, buffer) for name, buffer in self._names.items()}
        tensors = {name: each.float() if each.dtype == torch.float16 else each for name, each in stored.items()}
        return torch.func.functional_call(self._network[0], tensors, (images,))  # type: ignore[no-any-return]


@contextmanager
def _told(library: str, remedy: str = "") -> Iterator[None]:
    """What stops an exporter, as one line: each library has exceptions of its own."""
    try:
        yield
    except Exception as error:
        reason = str(error).strip().partition("\n")[0]
        raise ExportError(f"this network has no counterpart in {library} ({reason}){remedy}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters warn of what is no concern of the user's."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(disabled)
