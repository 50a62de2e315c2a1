"""Writes the page of a training run, finished or not: one HTML file that needs nothing beside it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from segapp.base.errors import UserError
from segapp.base.images import read_image
from segapp.reports.curves import Chart, Line, chart, smoothed, thinned
from segapp.reports.kit import data_uri, render
from segapp.reports.numbers import decimal, duration, short
from segapp.runs.history import Run, read_run
from segapp.runs.layout import METRICS, PICTURES, REPORT, RUN_PAGE

COLUMNS = 14
"""Validations that the table of classes shows, of many: the first, the last, the best and some between."""
NEWEST_SIDE, EARLIER_SIDE = 1600, 420
"""Longer side, in pixels, of the newest picture and of earlier ones."""
EARLIER = 5
"""Earlier pictures."""


@dataclass(frozen=True)
class Measure:
    """A value of metrics.jsonl that has a plot of its own; with "%", a share in [0, 1]."""

    key: str
    title: str
    unit: str = ""


MEASURES = (
    Measure("lr", "Learning rate"),
    Measure("images_per_second", "Images a second"),
    Measure("data_wait", "Time spent waiting for data", "%"),
    Measure("flop_utilisation", "FLOP utilisation", "%"),
    Measure("gpu_memory_gb", "GPU memory", " GB"),
    Measure("grad_norm", "Gradient norm"),
)


def write_run_page(folder: Path) -> None:
    """Writes run.html into a run's folder, whole or not at all, from the files that are there.

    These are config.yaml, environment.json, metrics.jsonl and pictures/ITERATION.png; any may be missing.
    """
    run = read_run(folder)
    render(
        "run.html.j2",
        folder / RUN_PAGE,
        title=run.name,
        run=run,
        as_of=_date(run.time),
        tiles=list(_tiles(run)),
        notices=list(_notices(run)),
        charts=[each for each in _charts(run) if each],
        classes=_classes(run),
        pictures=list(_pictures(folder / PICTURES)),
        environment=run.environment,
        report=REPORT if (folder / REPORT).exists() else None,
    )


def _date(time: float) -> str:
    """Here and for people; empty if it is none."""
    try:
        return f"{datetime.fromtimestamp(time):%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError, OSError):
        return ""


def _tiles(run: Run) -> Iterator[tuple[str, str, str]]:
    """(name, value, note) of what stands below the headline."""
    total = "" if run.iterations is None else f"of {run.iterations:,}"
    yield "Iterations", f"{run.iteration:,}", total
    last, ema, accuracy = (run[key] for key in (run.metric, run.ema_metric, "pixel_accuracy"))
    if len(last.finite):
        at = last.iterations[np.isfinite(last.values)][-1]
        note = f"iteration {at:,.0f}" + (f", EMA {decimal(ema.last)}" if len(ema.finite) else "")
        yield f"Last {run.metric_title}", decimal(last.last), note
    if len(accuracy.finite):
        yield "Last pixel accuracy", decimal(accuracy.last), "at the last validation"
    pauses = f", without {run.pauses} {'pause' if run.pauses == 1 else 'pauses'}" if run.pauses else ""
    yield "Time trained", duration(run.seconds), f"validations included{pauses}"
    if run.to_go > 0:
        yield "Time to go", duration(run.to_go), "at the mean pace so far"
    speed = run["images_per_second"]
    if len(speed.finite):
        yield "Images a second", short(speed.median), "median"


def _notices(run: Run) -> Iterator[str]:
    loss = run["loss"]
    lost = loss.iterations[~np.isfinite(loss.values)]
    if len(lost):
        where = ", ".join(f"{each:,.0f}" for each in lost[:3]) + (", ..." if len(lost) > 3 else "")
        yield f"The loss was not finite on {len(lost):,} of {len(loss.values):,} lines: iteration {where}."
    void = run["void_batches"].finite.sum()
    if void:
        yield f"{void:,.0f} {'batch' if void == 1 else 'batches'} held nothing but void pixels, and taught nothing."
    if run.damaged:
        lines = "line" if run.damaged == 1 else "lines"
        yield f"{run.damaged:,} {lines} of {METRICS} cannot be read; left out here."


def _charts(run: Run) -> Iterator[Chart | None]:
    loss = run["loss"]
    raw, mean = thinned(loss.iterations, loss.values), smoothed(loss.iterations, loss.values)
    yield chart(
        "Loss",
        [Line(*raw, "as logged", "c0 thin"), Line(*mean, "running mean", "c0")],
        note=f"last {short(loss.last)}",
    )
    titles = {run.metric: run.metric_title, "pixel_accuracy": "Pixel accuracy", "top5": "top-5"}
    for key, title in titles.items():
        plain, ema = run[key], run[f"ema_{key}"]
        lines = [
            Line(*thinned(series.iterations, series.values), name, style, marked=True)
            for series, name, style in ((plain, "network", "c0"), (ema, "EMA of its weights", "c1 d1"))
        ]
        note = f"last {decimal(plain.last)}" + (f", EMA {decimal(ema.last)}" if len(ema.finite) else "")
        yield chart(title, lines, note=note, from_zero=False)
    for measure in MEASURES:
        series = run[measure.key]
        factor = 100 if measure.unit == "%" else 1
        line = Line(*thinned(series.iterations, factor * series.values), marked=True)
        name, value = ("last", series.last) if measure.key == "lr" else ("median", series.median)
        yield chart(measure.title, [line], note=f"{name} {short(factor * value)}{measure.unit}")


def _classes(run: Run) -> dict[str, object]:
    """The heat table: some validations' iterations, and for each class its last IoU, its best and those at them."""
    scored = [run[run.metric], run[run.ema_metric], *run.class_iou.values()]
    validations = np.unique(np.concatenate([series.iterations for series in scored])).astype(int).tolist()
    chosen = np.linspace(0, len(validations) - 1, min(len(validations), COLUMNS)).round().astype(int)
    best = [run.best.iteration] if run.best else []
    columns = sorted({*best, *(validations[at] for at in chosen)})
    rows = []
    for name, series in run.class_iou.items():
        highest = max(series.finite.tolist(), default=math.nan)
        where = series.iterations[series.values == highest]
        rows.append(
            {
                "name": name,
                "last": series.at(validations[-1]),
                "best": highest,
                "at": int(where[0]) if len(where) else None,
                "values": [series.at(iteration) for iteration in columns],
            }
        )
    return {"columns": columns, "rows": rows, "all": len(validations)}


def _pictures(folder: Path) -> Iterator[tuple[int, str]]:
    """(iteration, data URI), the newest first and large; those that cannot be read are left out."""
    files = {int(path.stem): path for path in folder.glob("*.png") if path.stem.isdecimal()}
    newest, *earlier = sorted(files, reverse=True) or [0]
    chosen = np.linspace(0, len(earlier) - 1, min(len(earlier), EARLIER)).round().astype(int)
    for iteration in [newest, *(earlier[at] for at in chosen)][: len(files)]:
        try:
            pixels = read_image(files[iteration])
        except UserError:
            continue
        yield iteration, data_uri(pixels, side=NEWEST_SIDE if iteration == newest else EARLIER_SIDE)
