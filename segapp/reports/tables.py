"""Writes an evaluation's metrics as tables: CSV for spreadsheets, Markdown for a README."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from segapp.base.files import write_csv, write_text
from segapp.evaluation.confusion import mean_iou, ratio
from segapp.evaluation.details import Details
from segapp.evaluation.evaluate import Evaluation
from segapp.reports.numbers import percent


def write_per_class(path: Path, values: Mapping[str, Any]) -> None:
    """A row a class, of what metrics.json holds by class; empty where nothing was counted."""
    names = [name for name in values if name.startswith("per_class_")]
    rows = [[label, *(values[name][label] for name in names)] for label in values["per_class_iou"]]
    write_csv(path, ["class", *(name.removeprefix("per_class_") for name in names)], rows)


def write_per_image(path: Path, details: Details) -> None:
    """A row an image: id, mIoU over the classes in its truth or prediction, pixel accuracy, pixels not ignored."""
    right, true, _ = details.areas.sum(2).T
    columns = [mean_iou(details.areas).tolist(), ratio(right, true).tolist(), true.tolist()]
    write_csv(path, ["id", "miou", "pixel_accuracy", "pixels"], zip(details.ids, *columns, strict=True))


def write_markdown(path: Path, evaluation: Evaluation) -> None:
    """The mIoU and the pixel accuracy with their protocol, and a table of the classes."""
    scores, details = evaluation.scores, evaluation.details
    spread = ""
    if details is not None and details.interval.known:
        low, high = percent(details.interval.low).removesuffix("%"), percent(details.interval.high)
        spread = f" (95 % interval {low} to {high})"
    lines = [
        f"**mIoU {percent(scores.miou)}**{spread} on {cell(evaluation.dataset)}, {evaluation.images} images; "
        f"pixel accuracy {percent(scores.pixel_accuracy)}.",
        "",
        f"Protocol: {cell(evaluation.protocol)}.",
        "",
    ]
    if not evaluation.complete:
        lines += [f"Incomplete: {len(evaluation.problems)} more could not be scored.", ""]
    columns = {
        "IoU": scores.per_class_iou,
        "precision": scores.per_class_precision,
        "recall": scores.per_class_accuracy,
        "Dice": scores.per_class_dice,
    }
    if details is not None:
        columns["Boundary IoU"] = details.counts.boundary.per_class_iou
    lines += [row(["class", *columns]), row(["---", *["---:"] * len(columns)])]
    for index, name in enumerate(scores.classes):
        lines.append(row([cell(name), *(percent(values[index]) for values in columns.values())]))
    write_text(path, "\n".join(lines) + "\n")


def row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def cell(text: str) -> str:
    """Text that neither ends a cell nor becomes a tag."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
