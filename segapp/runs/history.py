"""What a run's folder tells of its training: config.yaml, environment.json, metrics.jsonl."""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from pydantic_core import from_json

METRICS = "metrics.jsonl"
LARGEST = float(np.finfo(np.float32).max)
"""No network computes more; what a damaged line says beyond it counts as not finite."""
PATIENCE, GRACE = 10, 60
"""A gap between two lines of more than PATIENCE times what is usual, and GRACE seconds, is a pause."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """One measure over a run, in the order of the file.

    Args:
        iterations: at which it was written.
        seconds: trained until then, without pauses; NaN if not known.
        values: NaN where the value was null or not finite.
    """

    iterations: Floats
    seconds: Floats
    values: Floats

    @property
    def finite(self) -> Floats:
        return self.values[np.isfinite(self.values)]

    @property
    def last(self) -> float:
        """NaN if there is none."""
        return float(self.finite[-1]) if len(self.finite) else math.nan

    def at(self, iteration: int) -> float:
        """NaN if there is none."""
        there = self.values[self.iterations == iteration]
        return float(there[-1]) if len(there) else math.nan

    @property
    def median(self) -> float:
        """NaN if there is none."""
        return float(np.median(self.finite)) if len(self.finite) else math.nan


NOTHING = Series(np.zeros(0), np.zeros(0), np.zeros(0))


@dataclass(frozen=True)
class Best:
    """The highest mIoU, in [0, 1], and whose it is: the network's or its EMA's."""

    miou: float
    iteration: int
    ema: bool


@dataclass(frozen=True)
class Run:
    """A run as far as it has come; whatever its folder lacks is empty.

    Args:
        config: the resolved one, nested.
        series: by key of metrics.jsonl, in the order of their first appearance.
        iteration: how many are done, by the last line.
        seconds: trained until then, without pauses; NaN if not known.
        time: of the last line, in seconds since 1970; NaN if not known.
        pauses: how often it was stopped and resumed.
        damaged: lines that could not be read.
    """

    folder: Path
    config_text: str
    config: dict[str, Any]
    environment: dict[str, Any]
    series: dict[str, Series]
    iteration: int
    seconds: float
    time: float
    pauses: int
    damaged: int

    def __getitem__(self, key: str) -> Series:
        """The series, empty if it is not there."""
        return self.series.get(key, NOTHING)

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def iterations(self) -> int | None:
        """Iterations to do."""
        total = self.config.get("iterations")
        return total if type(total) is int and total > 0 else None

    @property
    def finished(self) -> bool:
        return self.iterations is not None and self.iteration >= self.iterations

    @property
    def to_go(self) -> float:
        """Seconds still needed at the mean pace so far, validations included; NaN if not known."""
        if self.iterations is None or not self.iteration:
            return math.nan
        return max(0, self.iterations - self.iteration) * self.seconds / self.iteration

    @property
    def parameters(self) -> int | None:
        number = self.environment.get("parameters")
        return number if type(number) is int else None

    @cached_property
    def best(self) -> Best | None:
        """The earliest of the highest; None before the first validation."""
        found = [
            Best(float(series.values[at]), int(series.iterations[at]), key == "ema_miou")
            for key in ("miou", "ema_miou")
            if len((series := self[key]).finite)
            for at in [np.nanargmax(series.values)]
        ]
        return max(found, key=lambda each: each.miou, default=None)

    @cached_property
    def class_iou(self) -> dict[str, Series]:
        """By class, in the order in which metrics.jsonl names them."""
        return {key.removeprefix("iou/"): each for key, each in self.series.items() if key.startswith("iou/")}

    def best_class_iou(self) -> dict[str, float]:
        """By class, at the validation with the best mIoU; NaN where the class does not occur."""
        best = self.best
        if best is None:
            return {}
        return {name: each.at(best.iteration) for name, each in self.class_iou.items()}


def read_run(folder: Path) -> Run:
    """Reads what is there. Nothing but a disk that fails is an error."""
    text = _text(folder / "config.yaml")
    try:
        # What refers back to itself is no config of ours, and may be endless.
        aliased = any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader))
        config = None if aliased else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        config = None
    try:
        environment = from_json(_text(folder / "environment.json"))
    except ValueError:
        environment = None
    records, damaged = _records(_text(folder / METRICS))
    columns: dict[str, tuple[list[int], list[Any]]] = {}
    for index, record in enumerate(records):
        for key, value in record.items():
            places, values = columns.setdefault(key, ([], []))
            places.append(index)
            values.append(value)
    iterations = numbers(columns.pop("iteration", ([], []))[1])
    times = np.full(len(records), np.nan)
    places, values = columns.pop("time", ([], []))
    times[places] = numbers(values)
    validates = np.zeros(len(records), bool)
    validates[columns.get("miou", ([], []))[0]] = True
    seconds, pauses = trained_seconds(iterations, times, validates)
    return Run(
        folder,
        text,
        config if isinstance(config, dict) else {},
        environment if isinstance(environment, dict) else {},
        {key: Series(iterations[at], seconds[at], numbers(values)) for key, (at, values) in columns.items()},
        int(iterations[-1]) if records else 0,
        float(seconds[-1]) if records else math.nan,
        float(times[-1]) if records else math.nan,
        pauses,
        damaged,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _records(text: str) -> tuple[list[dict[str, Any]], int]:
    """The lines with an iteration, and how many others there are; the last one, which may be half written, aside."""
    lines = text.split("\n")
    records, damaged = [], 0
    for number, line in enumerate(lines, 1):
        try:
            record = from_json(line)
            if type(record["iteration"]) is not int or not 0 <= record["iteration"] < 2**53:
                raise ValueError("no iteration")
        except (ValueError, TypeError, LookupError):
            damaged += number < len(lines) and bool(line.strip())
        else:
            records.append(record)
    return records, damaged


def numbers(values: list[Any]) -> Floats:
    """NaN for what is null, no number, or not finite in float32."""
    array = np.array([value if type(value) is float else _number(value) for value in values], np.float64)
    array[~(np.abs(array) <= LARGEST)] = np.nan
    return array


def _number(value: Any) -> float:
    return float(value) if type(value) is int and abs(value) <= LARGEST else math.nan


def trained_seconds(iterations: Floats, times: Floats, validates: npt.NDArray[np.bool_]) -> tuple[Floats, int]:
    """Seconds trained until each line, and the number of pauses between them.

    The gaps between the lines are summed up. A pause, and what came before the first line, counts as the time that
    its iterations and its validation usually take.

    Args:
        times: of the lines, in seconds; NaN where not known.
        validates: which lines end a validation.

    Returns:
        NaN throughout if no two lines tell how long an iteration takes.
    """
    steps = np.diff(iterations, prepend=0).clip(0)
    gaps = np.diff(times, prepend=np.nan)
    timed = (steps > 0) & np.isfinite(gaps)
    training = timed & ~validates
    chosen = training if training.any() else timed
    if not chosen.any():
        return np.full(len(times), np.nan), 0
    pace = _usual(gaps[chosen] / steps[chosen])
    validations = (gaps - pace * steps)[validates & np.isfinite(gaps)]
    validation = max(0, _usual(validations)) if len(validations) else 0
    usual = pace * steps + validation * validates
    known = (gaps >= 0) & (gaps <= PATIENCE * usual + GRACE)
    return np.cumsum(np.where(known, gaps, usual)), int(np.count_nonzero(~known[1:]))


def _usual(values: Floats) -> float:
    """The median; of two in the middle the lower one, as the other may be a pause."""
    return float(np.quantile(values, 0.5, method="lower"))
