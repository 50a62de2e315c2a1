"""What does scoring an image cost, beside torchmetrics and beside the network's own pass?"""

import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import cv2
import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from segapp.base.devices import pick_device
from segapp.base.errors import UserError
from segapp.benchmarks.made_up import LogitsReader, ScoredImage, make_up
from segapp.benchmarks.scorers import (
    BOUNDARIES,
    CALIBRATION,
    COMPONENTS,
    CONFIDENCE,
    LABELS,
    LABELS_AND_CONFIDENCE,
    MATRIX,
    OURS,
    Scorer,
    ScorerName,
    new_scorers,
    peer_version,
)
from segapp.benchmarks.timing import (
    NetworkBenchmarkConfig,
    clock_of,
    forward_pass,
    machine,
    milliseconds,
    random_images,
    seconds_of,
    table,
    threads,
)
from segapp.data.config import DataConfig
from segapp.evaluation.calibration import BINS
from segapp.models.deeplabv3plus import DeepLabV3PlusConfig
from segapp.models.flops import Clock

ALL = "all measures"
SCORING = (MATRIX, CONFIDENCE, CALIBRATION, BOUNDARIES, COMPONENTS)
ORDER = (LABELS, LABELS_AND_CONFIDENCE, *SCORING)


class MeasuresBenchmarkConfig(NetworkBenchmarkConfig):
    """See conf/benchmark_measures.yaml."""

    data: DataConfig
    masks: int = Field(gt=0)


def time_measures(config: MeasuresBenchmarkConfig, trimap_widths: Sequence[int]) -> None:
    """Prints milliseconds of an image: of passes through the network, and of each measure beside shares of these.

    Everything takes its turn in each round, the measures image by image. Predictions are made up from the masks.

    Args:
        config: its size is that of the canvas, which must be a square.
        trimap_widths: in pixels.

    Raises:
        UserError: no masks, no square, or not by this clock.
    """
    device, size = pick_device(config.device), config.size
    clock = clock_of(config, device)
    dataset = config.data.dataset("val")
    if dataset.masks is None:
        raise UserError(f"{dataset.name}: its images have no masks")
    if size[0] != size[1]:
        raise UserError(f"size=[{size[0]},{size[1]}]: the canvas of measures is a square")
    with threads(torch.get_num_threads()), torch.no_grad():
        passes, reader = network_passes(
            config.model, len(dataset.classes), size[0], compile=config.compile, device=device
        )
        images = make_up(dataset, config.masks, reader)
        pass_times: dict[str, list[float]] = {name: [] for name in passes}
        times: dict[ScorerName, list[float]] = {}
        for _ in range(config.rounds):
            for name, run in passes.items():
                pass_times[name].append(seconds_of(run, device, clock))
            scorers = new_scorers(len(dataset.classes), trimap_widths, reader)
            seconds, results = one_round(images, scorers, device, clock)
            check(results)
            for row, each in summed_up(seconds).items():
                times.setdefault(row, []).append(each)
    print(
        f"measures, {dataset.name}, {len(images)} masks, {len(trimap_widths)} widths of the trimap; "
        f"{config.model.encoder.name}, output stride {config.model.output_stride}, {size[0]} x {size[1]}; "
        f"{config.rounds} rounds"
    )
    print(f"{machine(device)}, OpenCV {cv2.__version__}, {peer_version()}\n")
    print_times(pass_times, times)
    errors = [f"{by} {result:.6f}" for (what, by), result in results.items() if what == CALIBRATION]
    print(f"\nexpected calibration error, in {BINS} bins (torchmetrics sums in float32): {', '.join(errors)}")


def network_passes(
    model: DeepLabV3PlusConfig, num_classes: int, side: int, *, compile: bool, device: torch.device
) -> tuple[dict[str, Callable[[], Tensor]], LogitsReader]:
    """Passes over one canvas by name, float32's first, each warmed up; and what reads this network's logits."""
    torch.manual_seed(0)
    network = model.build(num_classes).eval()
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = random_images(1, (side, side), device, torch.channels_last)
    passes = {
        "float32": forward_pass(network, images, "float32"),
        "bfloat16": forward_pass(network, images, "bfloat16"),
    }
    if compile:
        passes["bfloat16, compiled"] = forward_pass(torch.compile(network), images, "bfloat16")
    for run in passes.values():
        for _ in range(2):  # some compile again in the second
            logits = run()
    return passes, LogitsReader(network, logits, side)


def one_round(
    images: Sequence[ScoredImage], scorers: dict[ScorerName, Scorer], device: torch.device, clock: Clock
) -> tuple[dict[ScorerName, float], dict[ScorerName, Any]]:
    """Seconds of an image, and what each scorer computes."""
    seconds = dict.fromkeys(scorers, 0.0)
    for image in images:
        for name, scorer in scorers.items():
            prepared = scorer.prepare(image)
            seconds[name] += seconds_of(partial(scorer.update, prepared), device, clock)
    results = {}
    for name, scorer in scorers.items():
        begin = clock()
        results[name] = scorer.compute()
        seconds[name] += clock() - begin
    return {name: total / len(images) for name, total in seconds.items()}, results


def check(results: dict[ScorerName, Any]) -> None:
    """Holds torchmetrics' counts against ours.

    Raises:
        AssertionError: they differ.
    """
    for (what, by), result in results.items():
        if what == MATRIX and not np.array_equal(result, results[MATRIX, OURS]):
            raise AssertionError(f"{by} has another confusion matrix")


def summed_up(seconds: dict[ScorerName, float]) -> dict[ScorerName, float]:
    """A round's, with what confidence adds to the labels, and the sum of all that scoring an image takes."""
    labels, both = seconds[LABELS, OURS], seconds[LABELS_AND_CONFIDENCE, OURS]
    seconds = {(CONFIDENCE, OURS): both - labels} | seconds
    whole = {(ALL, OURS): sum(seconds[what, OURS] for what in SCORING)}
    return {(what, by): seconds[what, by] for what in ORDER for each, by in seconds if each == what} | whole


def print_times(passes: dict[str, list[float]], times: dict[ScorerName, list[float]]) -> None:
    """Medians of the rounds' times, and what share they are of the float32 pass and of the fastest bfloat16 one."""
    median = statistics.median
    rows = [[name, *milliseconds(seconds)] for name, seconds in passes.items()]
    print(table(["forward pass", "median ms", "min", "max"], rows), end="\n\n")
    fastest = min(list(passes)[1:], key=lambda name: median(passes[name]))
    rows = []
    for (what, by), seconds in times.items():
        ours = median(times[what, OURS])
        shares = [f"{median(seconds) / median(passes[name]):.2%}" for name in ("float32", fastest)]
        rows.append([what, by, *milliseconds(seconds), f"{median(seconds) / ours:.2f}", *shares])
    columns = ["an image", "by", "median ms", "min", "max", f"x {OURS}", "of float32", f"of {fastest}"]
    print(table(columns, rows, left=2))
