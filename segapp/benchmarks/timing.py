"""What every benchmark of a network shares: how a call is timed, random images, and a table of times."""

import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Literal

import cv2
import torch
from pydantic import Field
from torch import Tensor

from segapp.base.config import Config
from segapp.base.devices import DeviceName, Precision, autocast
from segapp.base.errors import UserError
from segapp.models.deeplabv3plus import DeepLabV3PlusConfig
from segapp.models.flops import Clock, finish

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
Length = Annotated[int, Field(gt=0)]


class NetworkBenchmarkConfig(Config):
    """Which network is timed, on what, and how often."""

    model: DeepLabV3PlusConfig
    size: tuple[Length, Length]
    rounds: int = Field(gt=0)
    device: DeviceName
    clock: Literal["wall", "cpu"]
    compile: bool


def clock_of(config: NetworkBenchmarkConfig, device: torch.device) -> Clock:
    """The clock that the config names.

    Raises:
        UserError: CPU time says nothing of this device, or of several threads.
    """
    if config.clock == "cpu" and (device.type != "cpu" or torch.get_num_threads() > 1):
        raise UserError("clock=cpu is for device=cpu and one thread: set OMP_NUM_THREADS=1, or take clock=wall")
    return CLOCKS[config.clock]


def seconds_of(run: Callable[[], object], device: torch.device, clock: Clock) -> float:
    """How long a call keeps the device, which has nothing else to do, or the CPU."""
    finish(device)
    begin = clock()
    run()
    finish(device)
    return clock() - begin


@contextmanager
def threads(number: int) -> Iterator[None]:
    """OpenCV and PyTorch on so many threads each."""
    before = cv2.getNumThreads(), torch.get_num_threads()
    cv2.setNumThreads(number)
    torch.set_num_threads(number)
    try:
        yield
    finally:
        cv2.setNumThreads(before[0])
        torch.set_num_threads(before[1])


def random_images(
    number: int, size: tuple[int, int], device: torch.device, memory_format: torch.memory_format
) -> Tensor:
    """N x 3 x H x W in [-1, 1]: times do not depend on what images show."""
    images = torch.rand(number, 3, *size, device=device)
    return images.mul(2).sub(1).to(memory_format=memory_format)


def forward_pass(network: Callable[[Tensor], Tensor], images: Tensor, precision: Precision) -> Callable[[], Tensor]:
    """A function that runs a network, compiled or not, over the images."""

    def run() -> Tensor:
        with autocast(images.device, precision):
            return network(images)

    return run


def machine(device: torch.device) -> str:
    """What was timed on, for the line above a table."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return f"{name}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}"


def milliseconds(seconds: Sequence[float]) -> list[str]:
    """Three cells of a table: median, least and most."""
    return [f"{each * 1e3:.2f}" for each in (statistics.median(seconds), min(seconds), max(seconds))]


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """In Markdown, in columns; all but the `left` first are numbers."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        sides = ["<"] * left + [">"] * (len(cells) - left)
        return " | ".join(f"{cell:{side}{width}}" for cell, side, width in zip(cells, sides, widths, strict=True))

    rule = ["-" * width if at < left else "-" * (width - 1) + ":" for at, width in enumerate(widths)]
    return "\n".join(f"| {line(cells)} |" for cells in (header, rule, *rows))
