"""Writes the page that puts training runs side by side: one HTML file that needs nothing beside it."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from segapp.reports.curves import Chart, Line, chart, smoothed, thinned
from segapp.reports.kit import render
from segapp.reports.numbers import duration, short
from segapp.runs.history import Run

MOST = 12
"""Runs on a page: so many have a colour and dash of their own."""
COLOURS, DASHES = 6, 4
"""Of curves.html.j2; one run and the next differ in both."""
UNITS = (("seconds", 1, 180), ("minutes", 60, 180 * 60), ("hours", 3600, math.inf))
"""Of the time trained: name, seconds, and up to how many seconds it is taken."""
OWN = ("output", "resume")
"""Keys that a run has for itself."""
TRAINED_ON = {f"data.{key}" for key in ("root", "title", "train", "download", "cache", "sampler")}
"""Keys of the data that say nothing of what is scored."""


def write_comparison(path: Path, runs: Sequence[Run], provenance: Mapping[str, str]) -> list[str]:
    """Writes the page whole or not at all. Returns the keys for which the runs are not scored alike.

    Runs that are judged by other metrics are among these: "metric".

    Args:
        runs: 2 or more; differences are to the first. Of more than MOST the page is of the first MOST.
        provenance: what made the page (command, versions, date...).
    """
    total, runs = len(runs), runs[:MOST]
    styles = [f"c{index % COLOURS} d{index % DASHES}" for index in range(len(runs))]
    rows = _runs(runs, styles)
    configs = differences([{key: run.config[key] for key in run.config if key not in OWN} for run in runs])
    titles = {run.metric: run.metric_title for run in runs}
    unlike = [*scored_unlike(configs), *(["metric"] if len(titles) > 1 else [])]
    render(
        "compare.html.j2",
        path,
        title=f"Comparison of {total} runs"
        if total == len(runs)
        else f"Comparison of the best {MOST} of {total} runs",
        runs=rows,
        score="score" if len(titles) > 1 else runs[0].metric_title,
        best=max((row for row in rows if row["score"] is not None), key=lambda row: row["score"], default=None),
        charts=[each for each in _charts(runs, styles, titles) if each],
        classes=_classes(runs),
        configs=configs,
        unlike=unlike,
        environments=differences([run.environment for run in runs]),
        provenance=provenance,
    )
    return unlike


def _runs(runs: Sequence[Run], styles: Sequence[str]) -> list[dict[str, Any]]:
    """A row a run, of its best score and what it took."""
    first = runs[0]
    rows = []
    for key, style, name, run in zip(ascii_uppercase, styles, names_apart(runs), runs, strict=False):
        speed, alike = run["images_per_second"].median, run.metric == first.metric
        rows.append(
            {
                "key": key,
                "style": style,
                "name": name,
                "run": run,
                "score": run.best.score if run.best else None,
                "difference": run.best.score - first.best.score if run.best and first.best and alike else None,
                "time": duration(run.seconds),
                "speed": (speed, short(speed)),
            }
        )
    return rows


def names_apart(runs: Sequence[Run]) -> list[str]:
    """The folders' names, with as many of the folders above as it takes to tell the runs apart."""
    parts = [run.folder.resolve().parts for run in runs]
    depth = 1
    while len({each[-depth:] for each in parts}) < len(set(parts)):
        depth += 1
    return ["/".join(each[-depth:]) for each in parts]


def differences(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str | None]]:
    """By dotted key, each config's value as text, of the keys that are not the same in all; None where absent."""
    flat = [dict(pair for key, value in config.items() for pair in _flat(str(key), value)) for config in configs]
    keys = dict.fromkeys(key for each in flat for key in each)
    rows = {key: [each.get(key) for each in flat] for key in keys}
    return {key: values for key, values in rows.items() if len(set(values)) > 1}


def scored_unlike(keys: Iterable[str]) -> list[str]:
    """Those config keys that decide which images are scored, or how they are preprocessed."""
    return [
        key
        for key in keys
        if key in ("model.output_stride", "precision")
        or key.startswith("inference.")
        or (key.startswith("data.") and key not in TRAINED_ON)
    ]


def _flat(key: str, value: Any) -> Iterator[tuple[str, str]]:
    """Dotted keys with values as text; a list of transforms is counted through, another list is a value."""
    if isinstance(value, list) and any(isinstance(each, dict) for each in value):
        value = dict(enumerate(value))
    if isinstance(value, dict) and value:
        for inner, each in value.items():
            yield from _flat(f"{key}.{inner}", each)
    else:
        yield key, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _charts(runs: Sequence[Run], styles: Sequence[str], titles: Mapping[str, str]) -> Iterator[Chart | None]:
    """The loss and each metric by iteration, and by the time trained; `titles`: of the metrics, by key."""
    longest = max((run.seconds for run in runs if not math.isnan(run.seconds)), default=0)
    unit, seconds, _ = next(each for each in UNITS if longest <= each[2])
    curves = {"loss": "Loss"}
    for metric, title in titles.items():
        curves |= {metric: title, f"ema_{metric}": f"{title} of the EMA"}
    for key, title in curves.items():
        for x_name, by_time in (("iteration", False), (f"{unit} trained", True)):
            thin, lines = [], []
            for letter, run, style in zip(ascii_uppercase, runs, styles, strict=False):
                series = run[key]
                x = series.seconds / seconds if by_time else series.iterations
                if key == "loss":
                    thin.append(Line(*thinned(x, series.values), "", f"{style} thin"))
                    lines.append(Line(*smoothed(x, series.values), letter, style, letter))
                else:
                    lines.append(Line(*thinned(x, series.values), letter, style, letter, marked=True))
            note = "thin: as logged; bold: running mean" if key == "loss" else ""
            yield chart(title, [*thin, *lines], x_name=x_name, note=note, from_zero=key == "loss")


def _classes(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """For each class of any run: its IoU in each run, NaN where it has none, and the difference to the first."""
    scores = [run.best_class_iou() for run in runs]
    rows: list[dict[str, Any]] = []
    for name in dict.fromkeys(name for each in scores for name in each):
        values = [each.get(name, math.nan) for each in scores]
        rows.append({"name": name, "values": [(value, value - values[0]) for value in values]})
    return rows
