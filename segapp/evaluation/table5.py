"""What tools/eval.py does with table5=true: the grid of the paper's Table 5, on one checkpoint."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from segapp.base.distributed import Processes
from segapp.base.errors import UserError
from segapp.base.files import write_json, write_text
from segapp.data.dataset import SegmentationDataset
from segapp.data.loading.loader import Workers
from segapp.evaluation.confusion import Scores
from segapp.evaluation.evaluate import masks_of
from segapp.evaluation.state import EvaluationCheckpoint, count
from segapp.inference.options import TestTimeAugmentation
from segapp.inference.predictor import Predictor
from segapp.models.flops import forward_flops
from segapp.runtimes.pytorch import PyTorchRuntime

log = logging.getLogger(__name__)

SINGLE = TestTimeAugmentation((1.0,), flip=False)
SCALES = TestTimeAugmentation((0.5, 0.75, 1.0, 1.25, 1.5, 1.75), flip=False)
MIRRORED = SCALES._replace(flip=True)
CELLS = {16: (SINGLE, MIRRORED), 8: (SINGLE, SCALES, MIRRORED)}
"""Settings by output stride."""
NAMES = {SINGLE: "single scale", SCALES: "six scales", MIRRORED: "six scales, mirrored"}
PUBLISHED = {
    (16, SINGLE): (0.7979, 0.8220),
    (16, MIRRORED): (0.8121, 0.8334),
    (8, SINGLE): (0.8002, 0.8245),
    (8, MIRRORED): (0.8139, 0.8358),
}
"""mIoU on VOC 2012 val of Xception-65 with decoder and separable convolutions, without COCO and with it."""
PUBLISHED_ON = "voc2012 val"
"""The name of that data set."""


@dataclass(frozen=True)
class Cell:
    """Measures are in [0, 1]; None: not published.

    multiply_adds: of an image's forward passes on the canvas, in billions.
    """

    output_stride: int
    setting: str
    protocol: str
    miou: float
    multiply_adds: float
    paper: float | None
    paper_coco: float | None


@dataclass(frozen=True)
class Grid:
    """`problems`: a line for each image that could not be scored."""

    dataset: str
    images: int
    problems: list[str]
    cells: list[Cell]


def score_row(
    dataset: SegmentationDataset,
    predictor: Predictor,
    *,
    batch_size: int,
    workers: Workers,
    processes: Processes,
    kept: EvaluationCheckpoint,
) -> tuple[list[Cell], int, list[str]]:
    """The cells of the predictor's output stride, every forward pass computed once; the images scored; the problems.

    Raises:
        UserError: the data set has no labels, or images are not shown on a canvas of one size.
    """
    masks_of(dataset)
    if predictor.inference.key != "canvas" or predictor.canvas is None:
        raise UserError("table5=true shows whole images on a canvas: leave inference as it is, or take canvas")
    assert isinstance(predictor.runtime, PyTorchRuntime)  # whose multiply-adds are counted
    settings = CELLS[predictor.output_stride]
    tallies = count(
        dataset,
        lambda samples: predictor.predict_many([sample.image for sample in samples], settings),
        labellers=len(settings),
        batch_size=batch_size,
        trimap_widths=None,
        workers=workers,
        device=predictor.device,
        processes=processes,
        kept=kept,
        what=f"output stride {predictor.output_stride}",
    )
    cells = []
    for setting, tally in zip(settings, tallies, strict=True):
        published = PUBLISHED if dataset.name == PUBLISHED_ON else {}
        paper, paper_coco = published.get((predictor.output_stride, setting), (None, None))
        cells.append(
            Cell(
                predictor.output_stride,
                NAMES[setting],
                predictor.protocol_with(setting),
                Scores(dataset.classes, tally.matrix).miou,
                multiply_adds(predictor.runtime.model, predictor.canvas, setting) / 1e9,
                paper,
                paper_coco,
            )
        )
    return cells, len(tallies[0].places), list(tallies[0].problems.values())


def multiply_adds(model: torch.nn.Module, canvas: int, setting: TestTimeAugmentation) -> int:
    """Of all views of an image on a square canvas."""
    sides = [round(scale * (canvas - 1)) + 1 for scale in setting.scales]
    return (1 + setting.flip) * sum(forward_flops(model, (1, 3, side, side)) // 2 for side in sides)


def write_grid(folder: Path, grid: Grid) -> None:
    """table5.json and table5.md."""
    cells = [asdict(cell) | ({"miou": None} if np.isnan(cell.miou) else {}) for cell in grid.cells]
    values = asdict(grid) | {"cells": cells, "complete": not grid.problems}
    write_json(folder / "table5.json", {"data": values.pop("dataset")} | values)
    head = f"{grid.images} images of {grid.dataset}."
    if grid.problems:
        head += f" Incomplete: {len(grid.problems)} more could not be scored."
    rows = _rows(grid.cells)
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "| ---: | --- |" + " ---: |" * (len(rows[0]) - 2))
    write_text(folder / "table5.md", "\n".join([head, "", *lines]) + "\n")


def print_grid(grid: Grid) -> None:
    rows = _rows(grid.cells)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{text:>{width}}" for text, width in zip(row, widths, strict=True)))
    for problem in grid.problems[:20]:
        print(f"not scored: {problem}")
    print(f"{grid.dataset}: {grid.images} images" + (f", {len(grid.problems)} not scored" if grid.problems else ""))


def _rows(cells: Sequence[Cell]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [
        ("stride", "setting", "multiply-adds", "mIoU", "paper", "difference", "paper + COCO", "difference")
    ]
    for cell in cells:
        compared: list[str] = []
        for paper in (cell.paper, cell.paper_coco):
            compared += ["", ""] if paper is None else [f"{paper:.2%}", f"{100 * (cell.miou - paper):+.2f}"]
        miou = "n/a" if np.isnan(cell.miou) else f"{cell.miou:.2%}"
        rows.append((str(cell.output_stride), cell.setting, f"{cell.multiply_adds:.2f} G", miou, *compared))
    return rows if any(cell.paper for cell in cells) else [row[:4] for row in rows]
