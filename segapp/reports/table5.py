"""The paper's Table 5 beside a checkpoint's: for programs, as Markdown, and on the terminal."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from segapp.base.files import write_json, write_text
from segapp.evaluation.table5 import Cell, Grid
from segapp.runs.layout import TABLE5, TABLE5_SUMMARY


def write_grid(folder: Path, grid: Grid) -> None:
    """table5.json and table5.md."""
    cells = [asdict(cell) | ({"miou": None} if np.isnan(cell.miou) else {}) for cell in grid.cells]
    values = asdict(grid) | {"cells": cells, "complete": not grid.problems}
    write_json(folder / TABLE5, {"data": values.pop("dataset")} | values)
    head = f"{grid.images} images of {grid.dataset}."
    if grid.problems:
        head += f" Incomplete: {len(grid.problems)} more could not be scored."
    rows = _rows(grid.cells)
    lines = [f"| {' | '.join(row)} |" for row in rows]
    lines.insert(1, "| ---: | --- |" + " ---: |" * (len(rows[0]) - 2))
    write_text(folder / TABLE5_SUMMARY, "\n".join([head, "", *lines]) + "\n")


def print_grid(grid: Grid) -> None:
    """A line for each cell, and what could not be scored."""
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
