"""What an evaluation leaves behind: figures for programs, a page, a picture and a table for people."""

import platform
import shlex
import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import numpy as np
import torch

from segapp.base.classes import voc_palette
from segapp.base.files import write_json
from segapp.base.images import write_image
from segapp.evaluation.config import EvalConfig
from segapp.evaluation.confusion import mean
from segapp.evaluation.evaluate import Evaluation
from segapp.evaluation.metrics import metrics
from segapp.reports.grid import picture_grid
from segapp.reports.report import write_report
from segapp.reports.tables import write_markdown, write_per_class, write_per_image


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
    palette = voc_palette()
    values, figures = metrics(evaluation, config), []
    if config.classes is not None:
        named = evaluation.scores.miou_of(config.classes)
        figures.append((f"mIoU of {', '.join(config.classes)}", named, ""))
    if colour_table is not None:
        values["colour_table_miou"] = colour_table
        figures.append(("mIoU of a colour table", colour_table, "each pixel by its colour alone"))
    values["source"] = dict(source)
    details = evaluation.details
    write_json(folder / "metrics.json", values)
    write_per_class(folder / "per_class.csv", values)
    write_markdown(folder / "results.md", evaluation)
    if details is not None:
        write_per_image(folder / "per_image.csv", details)
    config_file = folder / "config.yaml"
    write_report(
        folder / "report.html",
        title=title,
        scores=evaluation.scores,
        palette=palette,
        protocol=evaluation.protocol,
        images=evaluation.images,
        figures=figures,
        examples=evaluation.examples,
        problems=evaluation.problems,
        provenance=dict(source) | environment(),
        worst=evaluation.worst,
        details=details,
        config=config_file.read_text(encoding="utf-8") if config_file.is_file() else "",
    )
    if evaluation.examples:
        write_image(folder / "pictures.png", picture_grid(evaluation.examples, evaluation.scores.classes, palette))


def print_results(evaluation: Evaluation, config: EvalConfig, colour_table: float | None = None) -> None:
    """A per-class table, what could not be scored, and a last line `mIoU 0.xxxx`."""
    scores = evaluation.scores
    width = max(map(len, scores.classes))
    print(f"{'class':{width}}     IoU  accuracy")
    for name, iou, accuracy in zip(scores.classes, scores.per_class_iou, scores.per_class_accuracy, strict=True):
        found = "   n/a" if np.isnan(accuracy) else f"{accuracy:.4f}"
        figures = "absent, left out of the mean" if np.isnan(iou) else f"{iou:.4f}    {found}"
        print(f"{name:{width}}  {figures}")
    for problem in evaluation.problems[:20]:
        print(f"not scored: {problem}")
    if len(evaluation.problems) > 20:
        print(f"not scored: {len(evaluation.problems) - 20} more, named in metrics.json")
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


def environment() -> dict[str, str]:
    """The command and the versions that made a result."""
    cpu = platform.processor() or platform.machine()
    return {
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": torch.cuda.get_device_name() if torch.cuda.is_available() else cpu,
    }
