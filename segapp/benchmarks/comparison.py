"""Times several networks beside one another: each takes its turn in each round, and ratios are of medians."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from segapp.base.config import Words
from segapp.base.devices import Precision, compute_dtype, pick_device
from segapp.base.errors import UserError
from segapp.benchmarks.contenders import CONTENDERS, Contender
from segapp.benchmarks.layers import Step, print_layers, profile_layers, untracked
from segapp.benchmarks.memory import peak_memory
from segapp.benchmarks.timing import (
    NetworkBenchmarkConfig,
    clock_of,
    forward_pass,
    machine,
    milliseconds,
    random_images,
    seconds_of,
    table,
)
from segapp.models.flops import Clock, copy_rate, finish, forward_flops, matmul_rate

OURS = "segapp"


class ContendersBenchmarkConfig(NetworkBenchmarkConfig):
    """Which networks are compared, and on which batch; see conf/benchmark_infer.yaml."""

    batch_size: int = Field(gt=0)
    classes: int = Field(ge=2, le=255)
    precision: Precision
    contenders: Words | None
    layers: bool

    @field_validator("contenders")
    @classmethod
    def _known(cls, names: Words | None) -> Words | None:
        for name in names or ():
            if name not in CONTENDERS:
                raise ValueError(f"{name} is none of {', '.join(CONTENDERS)}")
        return names


C = TypeVar("C", bound=ContendersBenchmarkConfig)
Prepare = Callable[[C, Contender], tuple[nn.Module, Step]]
"""Gives a contender's network, not compiled, and a step that runs it on one batch. A function of a module."""


@contextmanager
def memory_in_a_line() -> Iterator[None]:
    """A lack of main memory as a `UserError`; of GPU memory every tool speaks by itself."""
    try:
        yield
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        raise UserError("out of memory; lower batch_size or size") from None


@memory_in_a_line()
def time_contenders(config: C, prepare: Prepare[C], *, title: str, passes: int) -> None:
    """Prints the device's limits, each contender's median time of a batch, and where ours goes.

    Args:
        config: of the benchmark.
        prepare: makes the step that is timed.
        title: of that step.
        passes: over the network that a step takes: 3 in training, for the gradients of inputs and of weights.

    Raises:
        UserError: no contender can be timed, or not by this clock.
    """
    device = pick_device(config.device)
    clock = clock_of(config, device)
    torch.backends.cudnn.benchmark = True  # every batch has one size
    dtype = compute_dtype(device, config.precision)
    print(
        f"{title}, {config.model.encoder.name}, output stride {config.model.output_stride}, "
        f"{config.batch_size} x {config.size[0]} x {config.size[1]}, {str(dtype).removeprefix('torch.')}, "
        f"{'compiled' if config.compile else 'eager'}, {config.rounds} rounds, {config.clock} time"
    )
    matmul, copy = matmul_rate(device, dtype, clock), copy_rate(device, clock)
    timings = take_turns(config, prepare, device, clock)
    # Others may use the machine; the limits are what it does at its best.
    matmul, copy = max(matmul, matmul_rate(device, dtype, clock)), max(copy, copy_rate(device, clock))
    print(
        f"{machine(device)}; "
        f"limits measured: {matmul / 1e12:.3g} TFLOP/s in a matrix product, {copy / 1e9:.4g} GB/s in a copy"
    )
    print_timings(timings, config.batch_size, passes=passes, matmul=matmul)
    if config.layers:
        _, step = prepare(config.model_copy(update={"compile": False}), CONTENDERS[OURS])
        print(f"\nwhere the time of {OURS} goes, eager:")
        print_layers(*profile_layers(step, device, config.rounds, clock), matmul=matmul, copy=copy)


@dataclass
class Timing:
    """Of one contender.

    Args:
        step: runs a batch.
        flops: of the forward pass.
        warm_up: seconds of the first two batches, with compilation and the choice of algorithms.
        peak: bytes; what PyTorch allocated on a GPU, else the main memory of a fresh process. Not of compilers.
        seconds: of the batches that count.
    """

    step: Step
    flops: int
    warm_up: float
    peak: float | None = None
    seconds: list[float] = field(default_factory=list)


def take_turns(config: C, prepare: Prepare[C], device: torch.device, clock: Clock) -> dict[str, Timing]:
    """Times every contender. One that fails is left out, with a line that says why."""
    timings: dict[str, Timing] = {}
    for name in config.contenders or CONTENDERS:
        contender = CONTENDERS[name]
        if not contender.installed:
            print(f"{name} is left out: it is not installed; pip install {contender.package.replace('_', '-')}")
            continue
        try:
            timings[name] = warm_up(config, prepare, contender, device)
        except Exception as error:
            if name.startswith(OURS) and not config.compile:
                raise
            print(f"{name} is left out: {' '.join(str(error).split())[:300]}")
    if not timings:
        raise UserError("no network is left to time")
    for _ in range(config.rounds):
        for timing in timings.values():
            timing.seconds.append(seconds_of(partial(timing.step, untracked), device, clock))
    if device.type != "cuda" and not config.compile:  # a compiler's memory would count
        for name, timing in timings.items():
            timing.peak = peak_of_a_process(config, prepare, name)
    return timings


def warm_up(config: C, prepare: Prepare[C], contender: Contender, device: torch.device) -> Timing:
    """Builds a contender and runs its first batches."""
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    network, step = prepare(config, contender)
    flops = forward_flops(network, (config.batch_size, 3, *config.size))
    begin = time.perf_counter()
    for _ in range(2):  # some compile again in the second
        step(untracked)
    finish(device)
    timing = Timing(step, flops, warm_up=time.perf_counter() - begin)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        step(untracked)
        timing.peak = torch.cuda.max_memory_allocated(device) - before
    return timing


def network_and_pass(config: C, contender: Contender, *, train: bool) -> tuple[nn.Module, Callable[[], Tensor]]:
    """A contender's network, not compiled, and a function that runs it over one batch of random images."""
    device, layout = pick_device(config.device), contender.memory_format
    torch.manual_seed(0)
    network = contender.network(config.model, config.classes, train).train(train)
    network = network.to(device, memory_format=layout)  # type: ignore[call-overload]
    images = random_images(config.batch_size, config.size, device, layout)
    return network, forward_pass(torch.compile(network) if config.compile else network, images, config.precision)


def print_timings(timings: dict[str, Timing], batch_size: int, *, passes: int, matmul: float) -> None:
    """Medians, held against the first contender's.

    Args:
        timings: by contender.
        batch_size: images.
        passes: as of `time_contenders`.
        matmul: the device's measured limit, in operations a second.
    """
    reference, base = next((name, statistics.median(timing.seconds)) for name, timing in timings.items())
    columns = ["network", "median ms", "min", "max", "images/s", f"x {reference}", "GFLOP", "of matmul", "peak GB"]
    rows = []
    for name, timing in timings.items():
        median = statistics.median(timing.seconds)
        rows.append(
            [
                name,
                *milliseconds(timing.seconds),
                f"{batch_size / median:.2f}",
                f"{median / base:.2f}",
                f"{passes * timing.flops / 1e9:.2f}",
                f"{passes * timing.flops / median / matmul:.1%}",
                "-" if timing.peak is None else f"{timing.peak / 1e9:.2f}",
                f"{timing.warm_up:.1f}",
            ]
        )
    print(table([*columns, "warm-up s"], rows))


def peak_of_a_process(config: C, prepare: Prepare[C], name: str) -> float:
    """Bytes of main memory at the peak of a fresh process that builds the network and runs two batches."""
    return peak_memory(name, _step, config, prepare, name)


def _step(config: C, prepare: Prepare[C], name: str) -> Callable[[], object]:
    return partial(prepare(config, CONTENDERS[name])[1], untracked)
