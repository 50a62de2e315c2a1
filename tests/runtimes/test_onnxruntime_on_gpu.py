"""ONNX Runtime on a GPU, as far as a machine without one can tell: what it is asked for, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from segapp.base.errors import UserError
from segapp.inference import open as module
from segapp.inference.open import open_runtime
from segapp.models.encoders.interface import INCEPTION
from segapp.runtimes.onnxruntime import CPU, CUDA, TENSORRT, open_onnx_on_gpu
from segapp.weights.checkpoint import CheckpointInfo
from segapp.weights.exported.description import ExportOptions
from tests.networks import small


class Session:
    """Stands for onnxruntime.InferenceSession: gives each image's first channel."""

    asked: Any
    starts = True

    def __init__(self, path: Path, options: Any, providers: list[Any]) -> None:
        Session.asked = providers

    def get_inputs(self) -> list[Any]:
        return [type("Input", (), {"name": "images"})]

    def get_providers(self) -> list[str]:
        return [name for name, _ in Session.asked] if Session.starts else [CPU]

    def run(self, outputs: None, images: dict[str, Any]) -> list[Any]:
        return [images["images"][:, :1]]


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The providers of the ONNX Runtime that is there."""
    providers = [TENSORRT, CUDA, CPU]
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: providers)
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(Session, "starts", True)
    return providers


def test_tensorrt_comes_first_and_keeps_what_it_builds(found: list[str], tmp_path: Path) -> None:
    cache = tmp_path / "not" / "there"
    compute, by = open_onnx_on_gpu(Path("net.onnx"), cache, float16=True)
    (first, options), (second, cuda) = Session.asked
    assert (first, second, by) == (TENSORRT, CUDA, "TensorRT")
    assert options["trt_engine_cache_path"] == str(cache)
    assert cache.is_dir()
    assert options["trt_engine_cache_enable"]
    assert options["trt_fp16_enable"]
    assert not cuda["use_tf32"], "float32 is float32"
    assert compute(np.ones((1, 3, 5, 5), np.float32)).shape == (1, 1, 5, 5)


def test_without_tensorrt_cudas_own_kernels_compute(found: list[str], tmp_path: Path) -> None:
    found.remove(TENSORRT)
    assert open_onnx_on_gpu(Path("net.onnx"), tmp_path)[1] == "CUDA"
    assert [name for name, _ in Session.asked] == [CUDA]
    with pytest.raises(UserError, match=r"precision=float16 .* needs TensorRT"):
        open_onnx_on_gpu(Path("net.onnx"), tmp_path, float16=True)


def test_a_package_for_cpus_alone_is_told(found: list[str], tmp_path: Path) -> None:
    found[:] = [CPU]
    with pytest.raises(UserError, match=r"for CPUs alone.*pip install onnxruntime-gpu"):
        open_onnx_on_gpu(Path("net.onnx"), tmp_path)


def test_it_does_not_go_on_in_silence_on_the_cpu(
    found: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Session, "starts", False)
    with pytest.raises(UserError, match="cannot start its TensorrtExecutionProvider"):
        open_onnx_on_gpu(Path("net.onnx"), tmp_path)


def test_by_its_name_a_checkpoint_is_computed_there(found: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "device_kind", lambda name: name)
    network = small(encoder={"name": "alexnet", "width": 0.125})
    info = CheckpointInfo(network=network, classes=("a", "b"), normalization=INCEPTION, trained_on=())
    monkeypatch.setattr(module, "read_outline", lambda path: (info, ExportOptions()))

    def description(**changes: Any) -> str:
        options: dict[str, Any] = {"output_stride": None, "device": "cuda", "runtime": "onnxruntime"}
        return open_runtime(Path("net.onnx"), **(options | {"precision": "auto"} | changes))[0].description

    assert description() == "output stride 16, float32 by ONNX Runtime, TensorRT"
    assert description(precision="float16") == "output stride 16, float16 by ONNX Runtime, TensorRT"
    with pytest.raises(UserError, match="precision=bfloat16: not by onnxruntime"):
        description(precision="bfloat16")
    with pytest.raises(UserError, match="device=cuda: openvino computes on the CPU"):
        description(runtime="openvino")
