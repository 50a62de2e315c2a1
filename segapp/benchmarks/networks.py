"""What tools/benchmark.py does: infer and train here, data in benchmark_data.py, measures in benchmark_measures.py."""

import multiprocessing
import os
import re
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from segapp.base.config import Config, Words
from segapp.base.devices import DeviceName, Precision, autocast, pick_device
from segapp.base.errors import UserError
from segapp.benchmarks.contenders import CONTENDERS, Contender
from segapp.benchmarks.layers import Mark, Step, look_into, print_layers, table, unmarked
from segapp.benchmarks.loading import time_loading
from segapp.benchmarks.measures import time_measures
from segapp.cli import compose_config, read_config
from segapp.data import DataConfig
from segapp.data.loading.transforms import TransformConfig
from segapp.evaluation.config import EvalConfig
from segapp.models.deeplabv3plus import ModelConfig
from segapp.models.flops import Clock, copy_rate, finish, forward_flops, matmul_rate
from segapp.training.optimizers import OptimizerConfig, build_optimizer

OURS = "segapp"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
Length = Annotated[int, Field(gt=0)]


class BenchmarkConfig(Config):
    """See conf/benchmark.yaml."""

    model: ModelConfig
    optimizer: OptimizerConfig
    data: DataConfig
    transform: TransformConfig
    samples: int = Field(gt=0)
    size: tuple[Length, Length]
    batch_size: int = Field(gt=0)
    classes: int = Field(ge=2, le=255)
    rounds: int = Field(gt=0)
    device: DeviceName
    precision: Precision
    clock: Literal["wall", "cpu"]
    compile: bool
    contenders: Words | None
    layers: bool
    masks: int = Field(gt=0)

    @field_validator("contenders")
    @classmethod
    def _known(cls, names: Words | None) -> Words | None:
        for name in names or ():
            if name not in CONTENDERS:
                raise ValueError(f"{name} is none of {', '.join(CONTENDERS)}")
        return names


def main(arguments: list[str]) -> int:
    """`infer`, `train`, `data` or `measures` is what can be timed. Returns the exit status."""
    what, rest = arguments[:1], arguments[1:]
    if what not in (["infer"], ["train"], ["data"], ["measures"]):
        raise UserError("say first what to time: python tools/benchmark.py infer|train|data|measures [key=value ...]")
    config = read_config("benchmark", rest, BenchmarkConfig)
    if what == ["data"]:
        time_loading(config.data.dataset("train"), config.transform, samples=config.samples, rounds=config.rounds)
    elif what == ["measures"]:
        device = pick_device(config.device)
        clock = clock_of(config, device)
        time_measures(
            config.data.dataset("val"),
            config.model,
            size=config.size,
            masks=config.masks,
            rounds=config.rounds,
            widths=EvalConfig(**compose_config("eval", [])["eval"]).trimap_widths,
            compile=config.compile,
            device=device,
            clock=clock,
        )
    else:
        with memory_in_a_line():
            time_networks(config, train=what == ["train"])
    return 0


def clock_of(config: BenchmarkConfig, device: torch.device) -> Clock:
    """Raises:
    UserError: CPU time says nothing of this device, or of several threads.
    """
    if config.clock == "cpu" and (device.type != "cpu" or torch.get_num_threads() > 1):
        raise UserError("clock=cpu is for device=cpu and one thread: set OMP_NUM_THREADS=1, or take clock=wall")
    return CLOCKS[config.clock]


def time_networks(config: BenchmarkConfig, *, train: bool) -> None:
    """Prints the device's limits, each contender's median time of a batch, and where ours goes.

    Raises:
        UserError: none can be timed, or not by this clock.
    """
    device = pick_device(config.device)
    clock = clock_of(config, device)
    torch.backends.cudnn.benchmark = True  # every batch has one size
    with autocast(device, config.precision):
        half = torch.is_autocast_enabled(device.type)
        dtype = torch.get_autocast_dtype(device.type) if half else torch.float32
    print(
        f"{'training' if train else 'inference'}, {config.model.encoder.name}, output stride "
        f"{config.model.output_stride}, {config.batch_size} x {config.size[0]} x {config.size[1]}, "
        f"{str(dtype).removeprefix('torch.')}, {'compiled' if config.compile else 'eager'}, {config.rounds} rounds, "
        f"{config.clock} time"
    )
    matmul, copy = matmul_rate(device, dtype, clock), copy_rate(device, clock)
    timings = compare(config, train=train)
    # Others may use the machine; the limits are what it does at its best.
    matmul, copy = max(matmul, matmul_rate(device, dtype, clock)), max(copy, copy_rate(device, clock))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    print(
        f"{name}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}; "
        f"limits measured: {matmul / 1e12:.3g} TFLOP/s in a matrix product, {copy / 1e9:.4g} GB/s in a copy"
    )
    print_timings(timings, config.batch_size, passes=3 if train else 1, matmul=matmul)
    if config.layers:
        _, step = prepare(config.model_copy(update={"compile": False}), CONTENDERS[OURS], train=train)
        print(f"\nwhere the time of {OURS} goes, eager:")
        print_layers(*look_into(step, device, config.rounds, clock), matmul=matmul, copy=copy)


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


def print_timings(timings: dict[str, Timing], batch_size: int, *, passes: int, matmul: float) -> None:
    """Medians, held against the first contender's.

    Args:
        timings: by contender.
        batch_size: images.
        passes: over the network that a batch takes: 3 in training, for the gradients of inputs and of weights.
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
                *(f"{seconds * 1e3:.2f}" for seconds in (median, min(timing.seconds), max(timing.seconds))),
                f"{batch_size / median:.2f}",
                f"{median / base:.2f}",
                f"{passes * timing.flops / 1e9:.2f}",
                f"{passes * timing.flops / median / matmul:.1%}",
                "-" if timing.peak is None else f"{timing.peak / 1e9:.2f}",
                f"{timing.warm_up:.1f}",
            ]
        )
    print(table([*columns, "warm-up s"], rows))


def compare(config: BenchmarkConfig, *, train: bool) -> dict[str, Timing]:
    """Each contender takes its turn in each round. One that fails is left out, with a line that says why."""
    device, clock = pick_device(config.device), CLOCKS[config.clock]
    timings: dict[str, Timing] = {}
    for name in config.contenders or CONTENDERS:
        contender = CONTENDERS[name]
        if not contender.installed:
            print(f"{name} is left out: it is not installed; pip install {contender.package.replace('_', '-')}")
            continue
        try:
            timings[name] = start(config, contender, train=train)
        except Exception as error:
            if name.startswith(OURS) and not config.compile:
                raise
            print(f"{name} is left out: {' '.join(str(error).split())[:300]}")
    if not timings:
        raise UserError("no network is left to time")
    for _ in range(config.rounds):
        for timing in timings.values():
            begin = clock()
            timing.step(unmarked)
            finish(device)
            timing.seconds.append(clock() - begin)
    if device.type != "cuda" and not config.compile:  # a compiler's memory would count
        for name, timing in timings.items():
            timing.peak = peak_of_a_process(config, name, train=train)
    return timings


def start(config: BenchmarkConfig, contender: Contender, *, train: bool) -> Timing:
    """Builds a contender and runs its first batches."""
    device = pick_device(config.device)
    before = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    network, step = prepare(config, contender, train=train)
    flops = forward_flops(network, (config.batch_size, 3, *config.size))
    begin = time.perf_counter()
    for _ in range(2):  # some compile again in the second
        step(unmarked)
    finish(device)
    timing = Timing(step, flops, warm_up=time.perf_counter() - begin)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        step(unmarked)
        timing.peak = torch.cuda.max_memory_allocated(device) - before
    return timing


def prepare(config: BenchmarkConfig, contender: Contender, *, train: bool) -> tuple[nn.Module, Step]:
    """The network, not compiled, and a step that runs it on one batch: the same steps for every contender."""
    device, layout = pick_device(config.device), contender.memory_format
    torch.manual_seed(0)
    network = contender.network(config.model, config.classes, train).train(train)
    network = network.to(device, memory_format=layout)  # type: ignore[call-overload]
    images = torch.rand(config.batch_size, 3, *config.size, device=device).mul(2).sub(1).to(memory_format=layout)
    run = torch.compile(network) if config.compile else network

    def forward() -> Tensor:
        with autocast(device, config.precision):
            return run(images)  # type: ignore[no-any-return]

    @torch.no_grad()
    def inference_step(mark: Mark) -> None:
        forward()

    if not train:
        return network, inference_step
    labels = torch.randint(config.classes, (config.batch_size, *config.size), dtype=torch.uint8, device=device)
    loss_of = torch.compile(contender.loss) if config.compile else contender.loss
    optimizer = build_optimizer(network, config.optimizer)

    def training_step(mark: Mark) -> None:
        mark("network", "forward")
        output = forward()
        output.register_hook(lambda gradient: mark("network", "backward"))  # type: ignore[no-untyped-call]
        mark("loss", "forward")
        loss = loss_of(output, labels)
        optimizer.zero_grad()
        mark("loss", "backward")
        loss.backward()  # type: ignore[no-untyped-call]
        mark("optimizer", "update")
        optimizer.step()

    return network, training_step


def peak_of_a_process(config: BenchmarkConfig, name: str, *, train: bool) -> float:
    """Bytes of main memory at the peak of a fresh process that builds the network and runs two batches."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(_peak, config, name, train).result()
        except BrokenProcessPool:
            raise UserError(f"{name}: the process that measures its memory was killed; lower batch_size") from None


def _peak(config: BenchmarkConfig, name: str, train: bool) -> float:
    _, step = prepare(config, CONTENDERS[name], train=train)
    for _ in range(2):
        step(unmarked)
    status = Path("/proc/self/status")
    if status.exists():  # ru_maxrss would count the parent, too, as it was when this process was forked from it
        return int(re.findall(r"VmHWM:\s+(\d+)", status.read_text())[0]) * 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1.0 if sys.platform == "darwin" else 1e3)


@contextmanager
def memory_in_a_line() -> Iterator[None]:
    """A lack of main memory as a `UserError`; of GPU memory every tool speaks by itself."""
    try:
        yield
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        raise UserError("out of memory; lower batch_size or size") from None
