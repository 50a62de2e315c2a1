"""Writes and prints an evaluation's results: metrics for programs; a page, a picture and tables for people."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from segapp.base.classes import voc_palette
from segapp.base.files import write_json
from segapp.base.images import write_image
from segapp.evaluation.config import EvalConfig
from segapp.evaluation.confusion import mean
from segapp.evaluation.evaluate import Evaluation
from segapp.evaluation.metrics import metrics
from segapp.reports.grid import picture_grid
from segapp.reports.numbers import decimal
from segapp.reports.report import write_report
from segapp.reports.tables import write_markdown, write_per_class, write_per_image
from segapp.runs.environment import environment
from segapp.runs.layout import EXAMPLES, PER_CLASS, PER_IMAGE, RESULTS, SUMMARY


def write_results(
    folder: Path,
    evaluation: Evaluation,
    config: EvalConfig,
    *,
    title: str,
    source: Mapping[str, str],
    colour_table: float | None = None,
) -> None:
    """Writes metrics.json, per_class.csv, results.md and report.html; with details per_image.csv, and with examples
    pictures.png.

    Args:
        source: what was scored: names and values for the page's provenance.
        colour_table: the mIoU of a colour look-up table on the same images, in [0, 1].
    """
    values = metrics(evaluation, config)
    further = []
    if config.classes is not None:
        further.append((f"mIoU of {', '.join(config.classes)}", evaluation.scores.miou_of(config.classes), ""))
    if colour_table is not None:
        values["colour_table_miou"] = colour_table
        further.append(("mIoU of a colour table", colour_table, "each pixel by its colour alone"))
    values["source"] = dict(source)
    write_json(folder / RESULTS, values)
    write_per_class(folder / PER_CLASS, values)
    write_markdown(folder / SUMMARY, evaluation)
    if evaluation.details is not None:
        write_per_image(folder / PER_IMAGE, evaluation.details)
    write_report(folder, evaluation, title=title, provenance=dict(source) | environment(), further=further)
    if evaluation.examples:
        write_image(folder / EXAMPLES, picture_grid(evaluation.examples, evaluation.scores.classes, voc_palette()))


def print_results(evaluation: Evaluation, config: EvalConfig, colour_table: float | None = None) -> None:
    """A per-class table, what could not be scored, and a last line `mIoU 0.xxxx`."""
    scores = evaluation.scores
    width = max(map(len, scores.classes))
    print(f"{'class':{width}}     IoU  accuracy")
    for name, iou, accuracy in zip(scores.classes, scores.per_class_iou, scores.per_class_accuracy, strict=True):
        values = f"{iou:.4f}    {decimal(accuracy):>6}"
        print(f"{name:{width}}  {'absent, left out of the mean' if np.isnan(iou) else values}")
    for problem in evaluation.problems[:20]:
        print(f"not scored: {problem}")
    if len(evaluation.problems) > 20:
        print(f"not scored: {len(evaluation.problems) - 20} more, named in {RESULTS}")
    print(f"{evaluation.dataset}: {evaluation.images} images; {evaluation.protocol}")
    print(f"pixel accuracy {scores.pixel_accuracy:.4f}")
    if evaluation.details is not None:
        interval, boundary = evaluation.details.interval, evaluation.details.counts.boundary
        spread = f"{interval.low:.4f} to {interval.high:.4f}" if interval.known else "unknown: too few images"
        print(f"Boundary IoU {mean(boundary.per_class_iou):.4f}, boundary F-score {mean(boundary.per_class_f):.4f}")
        print(f"95 % interval of the mIoU {spread}")
    if config.classes is not None:
        print(f"mIoU of {', '.join(config.classes)}: {scores.miou_of(config.classes):.4f}")
    if colour_table is not None:
        print(f"colour table mIoU {colour_table:.4f}")
    incomplete = "" if evaluation.complete else f" (incomplete: {len(evaluation.problems)} not scored)"
    print(f"mIoU {scores.miou:.4f}{incomplete}")
