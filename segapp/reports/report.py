"""The evaluation report: one HTML file that needs nothing beside it."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType

import numpy as np
from PIL import Image

from segapp.evaluation.calibration import Reliability
from segapp.evaluation.components import AREAS, ComponentCounts
from segapp.evaluation.confusion import Floats, Scores, mean, ratio
from segapp.evaluation.details import Details
from segapp.evaluation.examples import Example
from segapp.reports.curves import Chart, Line, chart
from segapp.reports.grid import legend
from segapp.reports.kit import Array, css_colour, data_uri, render

WRONG = (239, 50, 50)
IGNORED = (150, 150, 150)


def write_report(
    path: Path,
    *,
    title: str,
    scores: Scores,
    palette: Array,
    protocol: str,
    images: int,
    figures: Sequence[tuple[str, float, str]],
    examples: Sequence[Example],
    problems: Sequence[str],
    provenance: Mapping[str, str],
    worst: Mapping[str, Example] = MappingProxyType({}),
    details: Details | None = None,
    config: str = "",
) -> None:
    """Writes the page whole or not at all.

    Args:
        palette: 256 x 3 RGB.
        protocol: how the images were scored.
        images: how many images were scored.
        figures: further measures (name, value in [0, 1] or NaN, a note).
        examples: in the order to show.
        problems: one line for each image that could not be scored; any marks the result incomplete.
        provenance: what the result came from (checkpoint, command, versions, date...).
        worst: examples by the class of which most pixels are wrong in them.
        config: the whole of it, as text.
    """
    matrix = scores.confusion_matrix
    truth = matrix.sum(1)
    absent = set(scores.absent)
    figures = [
        ("Pixel accuracy", scores.pixel_accuracy, ""),
        ("Mean accuracy", scores.mean_accuracy, ""),
        ("Frequency-weighted IoU", scores.frequency_weighted_iou, ""),
        ("Mean Dice", float(mean(scores.per_class_dice)), ""),
        *figures,
    ]
    charts: list[Chart | None] = []
    sizes, boundary_iou = [], None
    if details is not None:
        boundary = details.counts.boundary
        boundary_iou = boundary.per_class_iou
        figures += [
            ("Boundary IoU", float(mean(boundary_iou)), "within 2 % of the diagonal of a contour"),
            ("Boundary F-score", float(mean(boundary.per_class_f)), "tolerance 0.75 % of the diagonal"),
        ]
        charts = [_trimap(details.widths, boundary.trimap_miou), _by_size(details.counts.components)]
        sizes = _sizes(details.counts.components)
        if details.reliability is not None:
            figures.append(("Calibration error", details.reliability.ece, "mean distance of confidence from accuracy"))
            charts.append(_calibration(details.reliability))
    render(
        "report.html.j2",
        path,
        title=title,
        miou=scores.miou,
        interval=None if details is None else details.interval,
        figures=figures,
        charts=[each for each in charts if each],
        sizes=sizes,
        protocol=protocol,
        images=images,
        problems=problems,
        rows=[
            {
                "name": name,
                "colour": css_colour(palette[index]),
                "absent": name in absent,
                "iou": float(scores.per_class_iou[index]),
                "boundary": None if boundary_iou is None else float(boundary_iou[index]),
                "precision": float(scores.per_class_precision[index]),
                "recall": float(scores.per_class_accuracy[index]),
                "dice": float(scores.per_class_dice[index]),
                "share": float(truth[index] / max(truth.sum(), 1)),
            }
            for index, name in enumerate(scores.classes)
        ],
        confusion=(matrix / np.maximum(truth, 1)[:, None]).tolist(),
        examples=[_shown(example, scores.classes, palette) for example in examples],
        worst=[
            _shown(example, scores.classes, palette)
            | {"class": name, "iou": float(example.per_class_iou[scores.classes.index(name)])}
            for name, example in worst.items()
        ],
        provenance=provenance,
        config=config,
    )


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


def _calibration(reliability: Reliability) -> Chart | None:
    """A point a bin that has pixels, at their mean confidence."""
    lines = [
        Line(reliability.mean_confidence, reliability.accuracy, "right", "c0", marked=True),
        Line(np.array([0.0, 1.0]), np.array([0.0, 1.0]), "as right as sure", "c1 d1"),
    ]
    about = "The share of the pixels that are right by the probability of their label; below the line, too sure of it."
    return chart("Accuracy by confidence", lines, x_name="probability of the label", about=about)


def _sizes(counts: ComponentCounts) -> list[dict[str, object]]:
    """A row a bucket of areas that has any components."""
    sides = [round(area**0.5) for area in AREAS]
    names = [f"below {sides[0]}²", *(f"{a}² to {b}²" for a, b in pairwise(sides)), f"from {sides[-1]}²"]
    numbers = counts.components.sum(0).tolist()
    rows = zip(names, numbers, mean(counts.iou).tolist(), mean(counts.recall).tolist(), strict=True)
    return [
        {"name": name, "number": number, "iou": iou, "recall": recall} for name, number, iou, recall in rows if number
    ]


def _shown(example: Example, classes: Sequence[str], palette: Array) -> dict[str, object]:
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
