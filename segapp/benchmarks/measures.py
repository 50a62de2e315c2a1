"""What tools/benchmark.py measures does: what scoring an image costs, beside torchmetrics and the network."""

import importlib.util
import os
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor, nn

from segapp.base.classes import IGNORE_INDEX
from segapp.base.devices import autocast, to_device
from segapp.base.errors import UserError
from segapp.benchmarks.layers import table
from segapp.data.dataset import SegmentationDataset
from segapp.evaluation.boundary import count_boundaries
from segapp.evaluation.calibration import BINS, ReliabilityHistogram
from segapp.evaluation.components import count_components
from segapp.evaluation.confusion import ConfusionMatrix, class_areas
from segapp.inference.geometry import Geometry
from segapp.inference.options import Whole
from segapp.inference.predictor import Predictor
from segapp.models.deeplabv3plus import ModelConfig, build_model
from segapp.models.flops import Clock, finish

Labels = npt.NDArray[np.uint8]

SHIFT = 2.0
"""Pixels, the standard deviation of how far a made-up prediction's boundaries lie from the truth's, either way."""
SURENESS = 6.0
"""Of a made-up prediction's logits: how far its class's lie above the others'."""

OURS, PEER = "segapp", "torchmetrics"
PEER_BARE = "torchmetrics, validate_args=False"
SOFTMAX = "softmax over all classes"
MATRIX, CALIBRATION = "confusion matrix, areas", "calibration histogram"
BOUNDARIES, COMPONENTS = "boundaries", "components"
LABELS, LABELS_AND_CONFIDENCE, CONFIDENCE = "labels of logits", "labels of logits, confidence", "confidence alone"
ALL = "all measures"
SCORING = (MATRIX, CONFIDENCE, CALIBRATION, BOUNDARIES, COMPONENTS)
ORDER = (LABELS, LABELS_AND_CONFIDENCE, *SCORING)

Row = tuple[str, str]
"""What is counted, and by what."""


@dataclass(frozen=True)
class Scored:
    """An image as a network leaves it, on the device but for `pixels` and `mask`.

    Attributes:
        pixels: H x W x 3, to be predicted.
        mask: H x W, the truth; 255 is ignored.
        truth: the same.
        logits: 1 x K x h x w of the padded canvas, as the network would give them.
        labels, confidence: H x W, read off the logits.
    """

    pixels: Labels
    mask: Labels
    truth: Tensor
    logits: Tensor
    labels: Tensor
    confidence: Tensor


@dataclass(frozen=True)
class Part:
    """What is timed: `update` of each image, or of what `prepare` makes of it, and `compute` at the end."""

    update: Callable[[Any], object]
    compute: Callable[[], Any] = lambda: None
    prepare: Callable[[Scored], Any] = lambda image: image


class Fixed(nn.Module):
    """In a network's place: gives the `logits` that it was given."""

    logits: Tensor

    def __init__(self, decoder: nn.Module | None) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, images: Tensor) -> Tensor:
        return self.logits


def time_measures(
    dataset: SegmentationDataset,
    model: ModelConfig,
    *,
    size: tuple[int, int],
    masks: int,
    rounds: int,
    widths: Sequence[int],
    compile: bool,
    device: torch.device,
    clock: Clock,
) -> None:
    """Prints milliseconds of an image: of passes through the network, and of each measure beside shares of these.

    Everything takes its turn in each round, the measures image by image. Predictions are made up from the masks.

    Args:
        dataset: with masks, of which `masks` are taken, evenly spread.
        size: of the canvas, which must be a square.
        widths: of the trimap.
        compile: also time the bfloat16 pass through torch.compile.

    Raises:
        UserError: no masks, or no square.
    """
    if dataset.masks is None:
        raise UserError(f"{dataset.name}: its images have no masks")
    if size[0] != size[1]:
        raise UserError(f"size=[{size[0]},{size[1]}]: the canvas of measures is a square")
    with opencv_threads(torch.get_num_threads()), torch.no_grad():
        passes, predictor = networks(model, len(dataset.classes), size[0], compile=compile, device=device)
        scored = make_up(dataset, masks, predictor)
        pass_times: dict[str, list[float]] = {name: [] for name in passes}
        times: dict[Row, list[float]] = {}
        for _ in range(rounds):
            for name, run in passes.items():
                pass_times[name].append(_seconds(run, device, clock))
            timed = parts(len(dataset.classes), widths, predictor)
            seconds, results = one_round(scored, timed, device, clock)
            check(results)
            for row, each in summed_up(seconds).items():
                times.setdefault(row, []).append(each)
    print(
        f"measures, {dataset.name}, {len(scored)} masks, {len(widths)} widths of the trimap; {model.encoder.name}, "
        f"output stride {model.output_stride}, {size[0]} x {size[1]}; {rounds} rounds"
    )
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    print(
        f"{name}, {torch.get_num_threads()} threads, load {os.getloadavg()[0]:.1f}, torch {torch.__version__}, "
        f"OpenCV {cv2.__version__}, {_peer_version()}\n"
    )
    print_times(pass_times, times)
    errors = [f"{by} {result:.6f}" for (what, by), result in results.items() if what == CALIBRATION]
    print(f"\nexpected calibration error, in {BINS} bins (torchmetrics sums in float32): {', '.join(errors)}")


def networks(
    model: ModelConfig, num_classes: int, side: int, *, compile: bool, device: torch.device
) -> tuple[dict[str, Callable[[], Tensor]], Predictor]:
    """Passes by name, float32's first, each warmed up; and a predictor with a `Fixed` network."""
    torch.manual_seed(0)
    network = build_model(model, num_classes).eval()
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    images = torch.rand(1, 3, side, side, device=device).mul(2).sub(1).to(memory_format=torch.channels_last)

    def in_bfloat16(run: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
        def forward() -> Tensor:
            with autocast(device, "bfloat16"):
                return run(images)

        return forward

    passes = {"float32": lambda: network(images), "bfloat16": in_bfloat16(network)}
    if compile:
        passes["bfloat16, compiled"] = in_bfloat16(torch.compile(network))
    for run in passes.values():
        for _ in range(2):  # some compile again in the second
            logits = run()
    fixed = Fixed(network.decoder).eval()  # a predictor leaves a network in the mode in which it was
    fixed.logits = logits.float()
    inference = Whole(canvas=side, scales=(1,), flip=False)
    predictor = Predictor(
        fixed,  # type: ignore[arg-type]
        tuple(map(str, range(num_classes))),
        output_stride=model.output_stride,
        inference=inference,
        device=device,
        precision="float32",
    )
    return passes, predictor


def make_up(dataset: SegmentationDataset, number: int, predictor: Predictor) -> list[Scored]:
    """Predictions that are much like the masks: the same at any time."""
    assert isinstance(predictor.model, Fixed)
    assert predictor.canvas is not None
    rng = np.random.default_rng(0)
    scored = []
    for index in np.linspace(0, len(dataset) - 1, min(number, len(dataset))).astype(int).tolist():
        sample = dataset[index]
        assert sample.label is not None
        shape = predictor.model.logits.shape
        labels = shrunk(moved(sample.label, len(dataset.classes), rng), predictor.canvas, shape[2:])
        logits = rng.normal(size=shape).astype(np.float32)
        logits[0] += SURENESS * (labels == np.arange(shape[1])[:, None, None])
        predictor.model.logits = torch.from_numpy(logits).to(predictor.device, memory_format=torch.channels_last)
        found = predictor.predict([sample.image], confidence=True)[0]
        assert found.confidence is not None
        truth = to_device(sample.label, predictor.device)
        logits_there = predictor.model.logits
        scored.append(Scored(sample.image, sample.label, truth, logits_there, found.labels, found.confidence))
    return scored


def moved(mask: Labels, num_classes: int, rng: np.random.Generator) -> Labels:
    """A mask with void filled from its neighbourhood, smoothly displaced, and with blobs of a random class."""

    def smooth(sigma: float) -> npt.NDArray[np.float32]:
        field = cv2.GaussianBlur(rng.normal(size=mask.shape).astype(np.float32), (0, 0), sigma)
        return field / max(field.std(), 1e-6)  # type: ignore[no-any-return]

    ignored = mask == IGNORE_INDEX
    nearest = ndimage.distance_transform_edt(ignored, return_distances=False, return_indices=True)
    filled = np.zeros_like(mask) if ignored.all() else mask[tuple(nearest)]
    rows, columns = np.indices(mask.shape, np.float32)
    found = cv2.remap(filled, columns + SHIFT * smooth(8), rows + SHIFT * smooth(8), cv2.INTER_NEAREST)
    found[smooth(6) > 3] = rng.integers(num_classes)
    return found  # type: ignore[return-value]


def shrunk(labels: Labels, side: int, size: Sequence[int]) -> Labels:
    """On a canvas of `side`, a longer side scaled to it, of which evenly spread rows and columns are taken."""
    scale = min(1, side / max(labels.shape))
    height, width = (max(1, round(length * scale)) for length in labels.shape)
    canvas = np.zeros((side, side), np.uint8)
    canvas[:height, :width] = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
    rows, columns = (np.linspace(0, side - 1, length).round().astype(int) for length in size)
    return canvas[rows[:, None], columns]  # type: ignore[no-any-return]


def parts(num_classes: int, widths: Sequence[int], predictor: Predictor) -> dict[Row, Part]:
    """Nothing counted yet. What differs between the two ways to read logits is what confidence costs."""
    device = predictor.device
    matrix, histogram = ConfusionMatrix(num_classes, device), ReliabilityHistogram(num_classes, device=device)

    def read(confidence: bool) -> Callable[[Scored], object]:
        def update(image: Scored) -> object:
            predictor.model.logits = image.logits
            return predictor.predict([image.pixels], confidence=confidence)

        return update

    found: dict[Row, Part] = {
        (MATRIX, OURS): Part(lambda image: class_areas(matrix.update(image.truth, image.labels)), matrix.compute),
        (LABELS, OURS): Part(read(confidence=False)),
        (LABELS_AND_CONFIDENCE, OURS): Part(read(confidence=True)),
        (CALIBRATION, OURS): Part(
            lambda image: histogram.update(image.truth, image.labels, image.confidence),
            lambda: histogram.compute().ece,
        ),
        (BOUNDARIES, OURS): Part(
            lambda image: count_boundaries(image.mask, image.labels.cpu().numpy(), num_classes, widths=widths)
        ),
        (COMPONENTS, OURS): Part(lambda image: count_components(image.mask, image.labels.cpu().numpy(), num_classes)),
    }
    return found | peers(num_classes, predictor)


def peers(num_classes: int, predictor: Predictor) -> dict[Row, Part]:
    """torchmetrics on the same pixels, where it is installed, and the softmax that its calibration error needs."""

    def scores(image: Scored) -> Tensor:
        return class_scores(image, predictor)

    found: dict[Row, Part] = {(CONFIDENCE, SOFTMAX): Part(lambda scores: scores.softmax(1), prepare=scores)}
    if not installed():
        return found
    from torchmetrics.classification import MulticlassCalibrationError, MulticlassJaccardIndex

    calibration = MulticlassCalibrationError(num_classes, BINS, ignore_index=IGNORE_INDEX, validate_args=False)
    calibration = calibration.to(predictor.device)

    def jaccard(validate_args: bool) -> Part:
        metric = MulticlassJaccardIndex(num_classes, ignore_index=IGNORE_INDEX, validate_args=validate_args)
        metric = metric.to(predictor.device)

        def compute() -> npt.NDArray[np.int64]:
            metric.compute()
            return metric.confmat.cpu().numpy()

        return Part(lambda image: metric.update(image.labels, image.truth), compute)

    return found | {
        (MATRIX, PEER): jaccard(validate_args=True),
        (MATRIX, PEER_BARE): jaccard(validate_args=False),
        (CALIBRATION, PEER_BARE): Part(
            lambda pair: calibration.update(*pair),
            lambda: float(calibration.compute()),
            prepare=lambda image: (scores(image).softmax(1), image.truth[None]),
        ),
    }


def class_scores(image: Scored, predictor: Predictor) -> Tensor:
    """1 x K x H x W, of which the predictor takes the highest."""
    assert predictor.canvas is not None
    side, (height, width) = predictor.canvas, image.mask.shape
    scale = min(1, side / max(height, width))
    content = max(1, round(height * scale)), max(1, round(width * scale))
    strips = Geometry((side, side), content, (height, width)).scores([image.logits], probabilities=False)
    return torch.cat([strip for _, strip in strips], 2)


def one_round(
    scored: Sequence[Scored], timed: dict[Row, Part], device: torch.device, clock: Clock
) -> tuple[dict[Row, float], dict[Row, Any]]:
    """Seconds of an image, and what each part computes."""
    seconds = dict.fromkeys(timed, 0.0)
    for image in scored:
        for row, part in timed.items():
            given = part.prepare(image)
            finish(device)
            begin = clock()
            part.update(given)
            finish(device)
            seconds[row] += clock() - begin
    results = {}
    for row, part in timed.items():
        begin = clock()
        results[row] = part.compute()
        seconds[row] += clock() - begin
    return {row: total / len(scored) for row, total in seconds.items()}, results


def check(results: dict[Row, Any]) -> None:
    """Raises:
    AssertionError: torchmetrics counts otherwise than we do.
    """
    for (what, by), result in results.items():
        if what == MATRIX and not np.array_equal(result, results[MATRIX, OURS]):
            raise AssertionError(f"{by} has another confusion matrix")


def print_times(passes: dict[str, list[float]], times: dict[Row, list[float]]) -> None:
    """Medians of the rounds' times, and what share they are of the float32 pass and of the fastest bfloat16 one."""
    median = statistics.median
    rows = [[name, *_milliseconds(seconds)] for name, seconds in passes.items()]
    print(table(["forward pass", "median ms", "min", "max"], rows), end="\n\n")
    fastest = min(list(passes)[1:], key=lambda name: median(passes[name]))
    rows = []
    for (what, by), seconds in times.items():
        ours = median(times[what, OURS])
        shares = [f"{median(seconds) / median(passes[name]):.2%}" for name in ("float32", fastest)]
        rows.append([what, by, *_milliseconds(seconds), f"{median(seconds) / ours:.2f}", *shares])
    columns = ["an image", "by", "median ms", "min", "max", f"x {OURS}", "of float32", f"of {fastest}"]
    print(table(columns, rows, left=2))


def summed_up(times: dict[Row, float]) -> dict[Row, float]:
    """A round's, with what confidence adds to the labels, and the sum of all that scoring an image takes."""
    labels, both = times[LABELS, OURS], times[LABELS_AND_CONFIDENCE, OURS]
    times = {(CONFIDENCE, OURS): both - labels} | times
    whole = {(ALL, OURS): sum(times[what, OURS] for what in SCORING)}
    return {(what, by): times[what, by] for what in ORDER for each, by in times if each == what} | whole


def _milliseconds(seconds: Sequence[float]) -> list[str]:
    return [f"{each * 1e3:.2f}" for each in (statistics.median(seconds), min(seconds), max(seconds))]


def _seconds(run: Callable[[], object], device: torch.device, clock: Clock) -> float:
    finish(device)
    begin = clock()
    run()
    finish(device)
    return clock() - begin


def installed() -> bool:
    """Whether torchmetrics, which only developers need, is."""
    return importlib.util.find_spec(PEER) is not None


def _peer_version() -> str:
    if not installed():
        return f"{PEER} is left out: it is not installed; pip install {PEER}"
    return f"{PEER} {version(PEER)}"


@contextmanager
def opencv_threads(number: int) -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(number)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
