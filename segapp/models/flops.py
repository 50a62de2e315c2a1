"""What a network asks for in operations, and what a device can do in a second."""

import time
from collections.abc import Callable

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

BUDGET = 0.2
"""Seconds of measuring a rate."""

Clock = Callable[[], float]
"""Seconds, as `time.perf_counter` counts them, or `time.process_time`: on the CPU, with one thread, others' use of the
machine hardly moves that."""


def forward_flops(model: nn.Module, shape: tuple[int, ...]) -> int:
    """Two for each multiply-add of the convolutions and matrix products of one pass, in evaluation mode.

    Counted on the meta device, where nothing is computed: neither the model nor the random state changes.

    Args:
        model: not compiled.
        shape: of its one input, N x 3 x H x W.
    """
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        state = {name: tensor.to("meta") for name, tensor in (parameters | dict(model.named_buffers())).items()}
        images = torch.empty(shape, dtype=next(iter(parameters.values())).dtype, device="meta")
        training = {module: module.training for module in model.modules()}
        try:
            for module in training:
                module.training = False
            with FlopCounterMode(display=False) as counter:
                torch.func.functional_call(model, state, (images,))
        finally:
            for module, mode in training.items():
                module.training = mode
    return counter.get_total_flops()  # type: ignore[no-any-return]


def matmul_rate(device: torch.device, dtype: torch.dtype, clock: Clock = time.perf_counter) -> float:
    """The most floating-point operations a second seen in products of large random matrices, in a fifth of a second.

    Float32 on a GPU is measured in TF32 wherever convolutions use it, which is PyTorch's default.
    """
    length = 8192
    if device.type == "cpu":
        length = 1024 if dtype == torch.float32 else _side_on_cpu(dtype)
    generator = torch.Generator(device).manual_seed(0)  # not zeros, which take less power and so less time
    a, b = (torch.randn(length, length, generator=generator, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    precision = torch.get_float32_matmul_precision()
    if device.type == "cuda" and torch.backends.cudnn.allow_tf32:
        torch.set_float32_matmul_precision("high")
    try:
        seconds = _least_seconds(lambda: torch.mm(a, b, out=out), device, clock)
    finally:
        torch.set_float32_matmul_precision(precision)
    return 2 * length**3 / seconds


def _side_on_cpu(dtype: torch.dtype) -> int:
    """2048 for matrices of half precision where the CPU computes with it; else 256, which it takes long enough for."""
    small, large = 256, 2048
    a = torch.ones(small, small, dtype=dtype)
    start = time.perf_counter()
    torch.mm(a, a)
    return large if (time.perf_counter() - start) * (large / small) ** 3 < 0.2 else small


def copy_rate(device: torch.device, clock: Clock = time.perf_counter) -> float:
    """The most bytes a second, read and written, seen in copies too large for a cache, in a fifth of a second."""
    source = torch.ones(2**27 if device.type == "cpu" else 2**30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() / _least_seconds(lambda: target.copy_(source), device, clock)


def finish(device: torch.device) -> None:
    """Waits until the device has done all that it was given."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def _least_seconds(run: Callable[[], object], device: torch.device, clock: Clock) -> float:
    calls = 1 if device.type == "cpu" else 10  # in a row, so that waiting for them counts little
    run()
    finish(device)
    least, end = float("inf"), clock() + BUDGET
    while (start := clock()) < end:
        for _ in range(calls):
            run()
        finish(device)
        least = min(least, (clock() - start) / calls)
    return least
