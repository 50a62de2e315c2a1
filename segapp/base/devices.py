"""Where and in what precision a network runs. PyTorch, whose import takes seconds, is imported where it is needed."""

import ctypes
import os
import platform
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from segapp.base.errors import UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

DeviceName = Literal["auto", "cuda", "mps", "cpu"]
Precision = Literal["auto", "bfloat16", "float16", "float32"]


def device_kind(name: DeviceName) -> Literal["cuda", "mps", "cpu"]:
    """Auto is the first of cuda, mps and cpu that is there. PyTorch is not asked where it can have no GPU.

    Raises:
        UserError: the one named is not there.
    """
    if name not in ("auto", "cuda", "mps", "cpu"):
        raise UserError(f"device={name}: auto, cuda, mps or cpu is possible")
    if name == "cpu" or (name == "auto" and not _may_have_gpu()):
        return "cpu"
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        return next(kind for kind in ("cuda", "mps", "cpu") if available[kind])
    if not available[name]:
        raise UserError(f"device={name} is not available here; use device=auto or device=cpu")
    return name


def _may_have_gpu() -> bool:
    """Whether PyTorch, imported or not, can find one: NVIDIA's and AMD's have a driver, Apple's the system."""
    if "torch" in sys.modules or platform.system() not in ("Linux", "Windows"):
        return True
    if Path("/dev/kfd").exists():  # AMD's
        return True
    try:
        ctypes.CDLL("libcuda.so.1" if platform.system() == "Linux" else "nvcuda.dll")
    except OSError:
        return False
    return True


def pick_device(name: DeviceName) -> "torch.device":
    """As `device_kind`."""
    import torch

    return torch.device(device_kind(name))


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def compute_threads() -> int:
    """On how many a network computes: PyTorch's number, or what that would be, a thread a core."""
    if "torch" in sys.modules:
        import torch

        return torch.get_num_threads()
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isascii() and told.isdigit() and int(told) else _whole_cores()


def _whole_cores() -> int:
    """`available_cores`, but two that share one's units count once; told by Linux alone."""
    topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    try:
        return len({Path(topology.format(each)).read_text() for each in os.sched_getaffinity(0)})
    except (OSError, AttributeError):
        return available_cores()


def compute_dtype(device: "torch.device", precision: Precision) -> "torch.dtype":
    """In which convolutions are computed. Auto: bfloat16 on a GPU that has it, float16 on another, else float32."""
    import torch

    if precision != "auto":
        return getattr(torch, precision)  # type: ignore[no-any-return]
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def autocast(device: "torch.device", precision: Precision) -> AbstractContextManager[Any]:
    """Parameters stay float32."""
    import torch

    dtype = compute_dtype(device, precision)
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def to_device(array: npt.NDArray[np.uint8], device: "torch.device") -> "Tensor":
    """Without a wait for a GPU: from pinned memory, which PyTorch keeps until the copy is made."""
    import torch

    tensor = torch.from_numpy(array if array.flags.writeable else array.copy())  # PyTorch warns of others
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def is_out_of_gpu_memory(error: Exception) -> bool:
    """Whether PyTorch says so."""
    return "torch" in sys.modules and isinstance(error, sys.modules["torch"].OutOfMemoryError)


def is_out_of_memory(error: Exception) -> bool:
    """Whether Python, NumPy or Pillow says so, or PyTorch on a CPU, or OpenCV."""
    told = str(error)
    return isinstance(error, MemoryError) or "can't allocate memory" in told or "Insufficient memory" in told


def keep_freed_memory() -> None:
    """Has glibc keep what this process frees, for the next layer's outputs; elsewhere, nothing.

    Given back to Linux and taken anew, page by page, they cost a sixth of the CPU time of a forward pass. What a user
    sets through MALLOC_* or GLIBC_TUNABLES stays.
    """
    told = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if platform.libc_ver()[0] == "glibc" and not told:
        libc = ctypes.CDLL(None)
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD of malloc.h: bytes free at the heap's end
        libc.mallopt(-3, 2**30)  # M_MMAP_THRESHOLD: bytes from which memory is no part of the heap
