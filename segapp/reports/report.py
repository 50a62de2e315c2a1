"""Writes the page of an evaluation: one HTML file that needs nothing beside it."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from PIL import Image

from segapp.base.classes import voc_palette
from segapp.base.drawing import Array, css_colour, legend
from segapp.evaluation.calibration import Reliability
from segapp.evaluation.components import AREAS, ComponentCounts
from segapp.evaluation.confusion import Floats, Scores, mean, ratio
from segapp.evaluation.details import Details
from segapp.evaluation.evaluate import Evaluation
from segapp.evaluation.examples import Example
from segapp.reports.curves import Chart, Line, chart
from segapp.reports.kit import data_uri, render
from segapp.runs.layout import CONFIG, REPORT

Metric = tuple[str, float, str]
"""Name, value in [0, 1] or NaN, and a note."""
WRONG = (239, 50, 50)
IGNORED = (150, 150, 150)


def write_report(
    folder: Path,
    evaluation: Evaluation,
    *,
    title: str,
    provenance: Mapping[str, str],
    further: Sequence[Metric] = (),
) -> None:
    """Writes report.html into an evaluation's folder, whole or not at all; shows the folder's config if there is one.

    Args:
        provenance: what the result came from (checkpoint, command, versions, date...).
        further: metrics that the evaluation itself does not hold.
    """
    scores, details, palette = evaluation.scores, evaluation.details, voc_palette()
    config = folder / CONFIG
    render(
        "report.html.j2",
        folder / REPORT,
        title=title,
        evaluation=evaluation,
        metrics=[*_metrics(scores), *further, *(_detailed_metrics(details) if details else ())],
        charts=[each for each in _charts(details) if each] if details else [],
        sizes=_sizes(details.counts.components) if details else [],
        rows=_rows(evaluation, palette),
        confusion=(scores.confusion_matrix / np.maximum(scores.confusion_matrix.sum(1), 1)[:, None]).tolist(),
        examples=[_pictured(example, scores.classes, palette) for example in evaluation.examples],
        worst=[
            _pictured(example, scores.classes, palette)
            | {"class": name, "iou": float(example.per_class_iou[scores.classes.index(name)])}
            for name, example in evaluation.worst.items()
        ],
        provenance=provenance,
        config=config.read_text(encoding="utf-8") if config.is_file() else "",
    )


def _metrics(scores: Scores) -> Iterator[Metric]:
    """Those of every evaluation."""
    yield "Pixel accuracy", scores.pixel_accuracy, ""
    yield "Mean accuracy", scores.mean_accuracy, ""
    yield "Frequency-weighted IoU", scores.frequency_weighted_iou, ""
    yield "Mean Dice", float(mean(scores.per_class_dice)), ""


def _detailed_metrics(details: Details) -> Iterator[Metric]:
    boundary, reliability = details.counts.boundary, details.reliability
    yield "Boundary IoU", float(mean(boundary.per_class_iou)), "within 2 % of the diagonal of a contour"
    yield "Boundary F-score", float(mean(boundary.per_class_f)), "tolerance 0.75 % of the diagonal"
    if reliability is not None:
        yield "Calibration error", reliability.ece, "mean distance of confidence from accuracy"


def _rows(evaluation: Evaluation, palette: Array) -> list[dict[str, object]]:
    """A row a class, of what the table of classes shows."""
    scores, details = evaluation.scores, evaluation.details
    truth, absent = scores.confusion_matrix.sum(1), set(scores.absent)
    columns = {
        "iou": scores.per_class_iou,
        "precision": scores.per_class_precision,
        "recall": scores.per_class_accuracy,
        "dice": scores.per_class_dice,
        "share": truth / max(truth.sum(), 1),
    }
    if details is not None:
        columns["boundary"] = details.counts.boundary.per_class_iou
    return [
        {"name": name, "colour": css_colour(palette[index]), "absent": name in absent}
        | {key: float(values[index]) for key, values in columns.items()}
        for index, name in enumerate(scores.classes)
    ]


def _charts(details: Details) -> Iterator[Chart | None]:
    yield _trimap(details.widths, details.counts.boundary.trimap_miou)
    yield _by_size(details.counts.components)
    if details.reliability is not None:
        yield calibration_chart(details.reliability, "pixels", "label")


def _trimap(widths: Sequence[int], mious: Floats) -> Chart | None:
    """Like Figure 5 of arXiv:1802.02611."""
    line = Line(np.array(widths, float), mious, marked=True)
    about = "Over the pixels at most so far from the labels' void, which outlines things (arXiv:1802.02611, Figure 5)."
    return chart("mIoU near void", [line], x_name="pixels from void, at most", about=about, from_zero=False)


def _by_size(counts: ComponentCounts) -> Chart | None:
    """A point a bucket of areas, at their mean area."""
    areas = ratio(counts.pixels.sum(0), counts.components.sum(0))
    lines = [
        Line(areas, mean(counts.iou), "IoU", "c0", marked=True),
        Line(areas, mean(counts.recall), "recall", "c1 d1", marked=True),
    ]
    about = "Of the truth's connected areas, mean over the classes; the table below has the figures."
    return chart("IoU and recall by size", lines, x_name="pixels of an area", about=about, log_x=True)


def calibration_chart(reliability: Reliability, what: str, choice: str) -> Chart | None:
    """A point a bin that has any, at their mean confidence. `what` is counted, and `choice` what is chosen for it."""
    lines = [
        Line(reliability.mean_confidence, reliability.accuracy, "right", "c0", marked=True),
        Line(np.array([0.0, 1.0]), np.array([0.0, 1.0]), "as right as sure", "c1 d1"),
    ]
    about = f"The share of the {what} that are right by the probability of their {choice}; below the line, too sure."
    return chart("Accuracy by confidence", lines, x_name=f"probability of the {choice}", about=about)


def _sizes(counts: ComponentCounts) -> list[dict[str, object]]:
    """A row a bucket of areas that has any components."""
    sides = [round(area**0.5) for area in AREAS]
    names = [f"below {sides[0]}²", *(f"{a}² to {b}²" for a, b in pairwise(sides)), f"from {sides[-1]}²"]
    numbers = counts.components.sum(0).tolist()
    rows = zip(names, numbers, mean(counts.iou).tolist(), mean(counts.recall).tolist(), strict=True)
    return [
        {"name": name, "number": number, "iou": iou, "recall": recall} for name, number, iou, recall in rows if number
    ]


def _pictured(example: Example, classes: Sequence[str], palette: Array) -> dict[str, object]:
    """An example with its pictures as the page holds them."""
    return {
        "id": example.id,
        "miou": example.miou,
        "pictures": {
            "image": data_uri(example.image),
            "truth": data_uri(example.truth, palette),
            "prediction": data_uri(example.prediction, palette),
            "errors": data_uri(_error_map(example, len(classes))),
        },
        "legend": legend([example.truth, example.prediction], classes, palette),
    }


def _error_map(example: Example, num_classes: int) -> Array:
    """H x W x 3: wrong pixels red, right ones the image in dim greys, ignored ones grey."""
    grey = np.array(Image.fromarray(example.image).convert("L")) // 3
    errors = np.repeat(grey[..., None], 3, axis=-1)
    errors[example.truth != example.prediction] = WRONG
    errors[example.truth >= num_classes] = IGNORED
    return errors
