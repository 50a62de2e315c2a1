"""Writes and prints a classifier's results: metrics for programs; a page and tables for people."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from segapp.base.files import write_csv, write_json, write_text
from segapp.evaluation.classification import Classification
from segapp.evaluation.confusion import mean
from segapp.evaluation.metrics import calibration, null_for_nan
from segapp.reports.kit import data_uri, render
from segapp.reports.numbers import decimal, percent
from segapp.reports.report import Metric, calibration_chart
from segapp.reports.tables import cell, row
from segapp.runs.environment import environment
from segapp.runs.layout import CONFIG, PER_CLASS, PER_IMAGE, REPORT, RESULTS, SUMMARY

HEAT = 60
"""Of up to so many classes, the whole confusion matrix is shown."""
CONFUSIONS = 20
"""Pairs of classes that are named."""


def write_classification(folder: Path, evaluation: Classification, *, title: str, source: Mapping[str, str]) -> None:
    """Writes metrics.json, per_class.csv, per_image.csv, results.md and report.html.

    Args:
        source: what was scored: names and values for the page's provenance.
    """
    write_json(folder / RESULTS, _metrics(evaluation) | {"source": dict(source)})
    rows = list(_rows(evaluation))
    write_csv(folder / PER_CLASS, ["class", *list(rows[0])[1:]], [list(each.values()) for each in rows])
    _write_per_image(folder / PER_IMAGE, evaluation)
    _write_markdown(folder / SUMMARY, evaluation, rows)
    scores, config = evaluation.scores, folder / CONFIG
    shares = scores.confusion_matrix / np.maximum(scores.confusion_matrix.sum(1), 1)[:, None]
    chart = calibration_chart(evaluation.reliability, "images", "first choice")
    render(
        "classification.html.j2",
        folder / REPORT,
        title=title,
        evaluation=evaluation,
        metrics=list(_tiles(evaluation)),
        rows=rows,
        confusions=evaluation.confusions(CONFUSIONS),
        confusion=shares.tolist() if len(scores.classes) <= HEAT else [],
        charts=[chart] if chart else [],
        worst=[vars(each) | {"picture": data_uri(each.image, side=480)} for each in evaluation.worst],
        provenance=dict(source) | environment(),
        config=config.read_text(encoding="utf-8") if config.is_file() else "",
    )


def print_classification(evaluation: Classification) -> None:
    """A per-class table, the commonest confusions, what could not be scored, and a last line `top-1 0.xxxx`."""
    rows = list(_rows(evaluation))
    width = max(len("class"), *(len(each["name"]) for each in rows))
    print(f"{'class':{width}}   top-1   top-5  images")
    for each in rows[:HEAT]:
        print(f"{each['name']:{width}}  {decimal(each['top1']):>6}  {decimal(each['top5']):>6}  {each['images']:6}")
    if len(rows) > HEAT:
        print(f"and {len(rows) - HEAT} more classes, in {PER_CLASS}")
    for truth, taken, number in evaluation.confusions(5):
        print(f"{number} of {truth} taken for {taken}")
    for problem in evaluation.problems[:20]:
        print(f"not scored: {problem}")
    if len(evaluation.problems) > 20:
        print(f"not scored: {len(evaluation.problems) - 20} more, named in {RESULTS}")
    print(f"{evaluation.dataset}: {evaluation.images} images; {evaluation.protocol}")
    print(f"top-5 {evaluation.top5:.4f}, calibration error {evaluation.reliability.ece:.4f}")
    incomplete = "" if evaluation.complete else f" (incomplete: {len(evaluation.problems)} not scored)"
    print(f"top-1 {evaluation.top1:.4f}{incomplete}")


def _metrics(evaluation: Classification) -> dict[str, Any]:
    """What metrics.json holds: measures are in [0, 1], null where nothing was counted."""
    scores = evaluation.scores
    by_class = {
        "per_class_top1": scores.per_class_accuracy,
        "per_class_top5": evaluation.per_class_top5,
        "per_class_precision": scores.per_class_precision,
        "per_class_images": evaluation.per_class_images,
    }
    values = {
        "top1": evaluation.top1,
        "top5": evaluation.top5,
        "mean_top1": evaluation.mean_top1,
        **{name: dict(zip(scores.classes, each.tolist(), strict=True)) for name, each in by_class.items()},
        **calibration(evaluation.reliability),
    }
    result: dict[str, Any] = null_for_nan(values)
    return result | {
        "data": evaluation.dataset,
        "images": evaluation.images,
        "complete": evaluation.complete,
        "problems": evaluation.problems,
        "confusions": [
            {"truth": truth, "taken_for": taken, "images": number}
            for truth, taken, number in evaluation.confusions(CONFUSIONS)
        ],
        "confusion_matrix": scores.confusion_matrix.tolist(),
        "protocol": evaluation.protocol,
    }


def _tiles(evaluation: Classification) -> Iterator[Metric]:
    yield "Top-5", evaluation.top5, "the truth is one of the five most probable classes"
    yield "Mean top-1", evaluation.mean_top1, "over the classes"
    yield "Mean precision", float(mean(evaluation.scores.per_class_precision)), "over the classes"
    yield "Calibration error", evaluation.reliability.ece, "mean distance of confidence from accuracy"


def _rows(evaluation: Classification) -> Iterator[dict[str, Any]]:
    """A row a class, of what the tables of classes show."""
    scores = evaluation.scores
    for index, name in enumerate(scores.classes):
        yield {
            "name": name,
            "top1": float(scores.per_class_accuracy[index]),
            "top5": float(evaluation.per_class_top5[index]),
            "precision": float(scores.per_class_precision[index]),
            "images": int(evaluation.per_class_images[index]),
        }


def _write_per_image(path: Path, evaluation: Classification) -> None:
    """A row an image: id, its class, the first choice and its probability, and that of its class."""
    choices, names = evaluation.choices, evaluation.scores.classes
    columns = (choices.truth, choices.classes[:, 0], choices.probabilities[:, 0], choices.of_truth)
    rows = [
        (id, names[truth], names[first], confidence, of_truth)
        for id, (truth, first, confidence, of_truth) in zip(
            evaluation.ids, zip(*(each.tolist() for each in columns), strict=True), strict=True
        )
    ]
    write_csv(path, ["id", "truth", "prediction", "confidence", "truth_probability"], rows)


def _write_markdown(path: Path, evaluation: Classification, rows: list[dict[str, Any]]) -> None:
    """Top-1 and top-5 with their protocol, and a table of the classes."""
    lines = [
        f"**top-1 {percent(evaluation.top1)}, top-5 {percent(evaluation.top5)}** on {cell(evaluation.dataset)}, "
        f"{evaluation.images} images.",
        "",
        f"Protocol: {cell(evaluation.protocol)}.",
        "",
    ]
    if not evaluation.complete:
        lines += [f"Incomplete: {len(evaluation.problems)} more could not be scored.", ""]
    lines += [row(["class", "top-1", "top-5", "precision", "images"]), row(["---", *["---:"] * 4])]
    for each in rows:
        measures = [percent(each[key]) for key in ("top1", "top5", "precision")]
        lines.append(row([cell(each["name"]), *measures, str(each["images"])]))
    write_text(path, "\n".join(lines) + "\n")
