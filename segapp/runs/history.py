"""Reads how a training run has gone from its folder: its config, environment and logged metrics."""

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml
from pydantic_core import from_json

from segapp.base.config import parse_yaml
from segapp.runs.layout import CONFIG, ENVIRONMENT, METRICS

LARGEST = float(np.finfo(np.float32).max)
"""No network computes more; what a damaged line says beyond it counts as not finite."""
PATIENCE, GRACE = 10, 60
"""A gap between two lines of more than PATIENCE times what is usual, and GRACE seconds, is a pause."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """One metric over a run, in the order of the file.

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
    """A run's highest score, by the metric that it is judged by, and whose it is: the network's or its EMA's."""

    score: float
    iteration: int
    ema: bool


@dataclass(frozen=True)
class Run:
    """A run as far as it has come; whatever its folder lacks is empty.

    Args:
        config: the resolved one, nested.
        metric: key in metrics.jsonl of what the run is judged by; higher is better.
        metric_title: its name for people.
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
    metric: str
    metric_title: str
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
        """Seconds still needed at the mean speed so far, validations included; NaN if not known."""
        if self.iterations is None or not self.iteration:
            return math.nan
        return max(0, self.iterations - self.iteration) * self.seconds / self.iteration

    @property
    def parameters(self) -> int | None:
        """Of the network; older runs wrote them as text, such as "1,234"."""
        number = self.environment.get("parameters")
        if type(number) is str and number.replace(",", "").isdecimal():
            return int(number.replace(",", ""))
        return number if type(number) is int else None

    @property
    def ema_metric(self) -> str:
        """Key of the metric of the weights' moving average."""
        return f"ema_{self.metric}"

    @cached_property
    def best(self) -> Best | None:
        """The earliest of the highest; None before the first validation."""
        candidates = [
            Best(float(series.values[at]), int(series.iterations[at]), key == self.ema_metric)
            for key in (self.metric, self.ema_metric)
            if len((series := self[key]).finite)
            for at in [np.nanargmax(series.values)]
        ]
        return max(candidates, key=lambda each: each.score, default=None)

    @cached_property
    def class_iou(self) -> dict[str, Series]:
        """By class, in the order in which metrics.jsonl names them."""
        return {key.removeprefix("iou/"): each for key, each in self.series.items() if key.startswith("iou/")}

    def best_class_iou(self) -> dict[str, float]:
        """By class, at the validation with the best score; NaN where the class does not occur."""
        best = self.best
        if best is None:
            return {}
        return {name: each.at(best.iteration) for name, each in self.class_iou.items()}


def read_run(folder: Path) -> Run:
    """Reads what is there. Nothing but a disk that fails is an error."""
    config_text = _text(folder / CONFIG)
    environment = _environment(_text(folder / ENVIRONMENT))
    metric = _name(environment, "metric", "miou")
    records, damaged = _records(_text(folder / METRICS))
    columns: dict[str, tuple[list[int], list[Any]]] = {}
    for index, record in enumerate(records):
        for key, value in record.items():
            lines, values = columns.setdefault(key, ([], []))
            lines.append(index)
            values.append(value)
    iterations = numbers(columns.pop("iteration", ([], []))[1])
    times = np.full(len(records), np.nan)
    lines, values = columns.pop("time", ([], []))
    times[lines] = numbers(values)
    validates = np.zeros(len(records), bool)
    validates[columns.get(metric, ([], []))[0]] = True
    seconds, pauses = trained_seconds(iterations, times, validates)
    return Run(
        folder,
        config_text,
        _config(config_text),
        environment,
        metric,
        _name(environment, "metric_title", "mIoU"),
        {key: Series(iterations[at], seconds[at], numbers(values)) for key, (at, values) in columns.items()},
        int(iterations[-1]) if records else 0,
        float(seconds[-1]) if records else math.nan,
        float(times[-1]) if records else math.nan,
        pauses,
        damaged,
    )


def _config(text: str) -> dict[str, Any]:
    """Empty where it is none."""
    try:
        # What refers back to itself is no config of ours, and may be endless.
        aliased = any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader))
        config = None if aliased else parse_yaml(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return config if isinstance(config, dict) else {}


def _environment(text: str) -> dict[str, Any]:
    """Empty where it is none."""
    try:
        environment = from_json(text)
    except ValueError:
        return {}
    return environment if isinstance(environment, dict) else {}


def _name(environment: dict[str, Any], key: str, older: str) -> str:
    """What the environment says of the metric, which older runs did not."""
    name = environment.get(key)
    return name if type(name) is str and name else older


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
    """Tells training from pauses: seconds trained until each line, and the number of pauses between the lines.

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
    iteration = _usual(gaps[chosen] / steps[chosen])
    validations = (gaps - iteration * steps)[validates & np.isfinite(gaps)]
    validation = max(0, _usual(validations)) if len(validations) else 0
    usual = iteration * steps + validation * validates
    known = (gaps >= 0) & (gaps <= PATIENCE * usual + GRACE)
    return np.cumsum(np.where(known, gaps, usual)), int(np.count_nonzero(~known[1:]))


def _usual(values: Floats) -> float:
    """The median; of two in the middle the lower one, as the other may be a pause."""
    return float(np.quantile(values, 0.5, method="lower"))
