"""Reads the tables that a benchmark prints, and has options for a tiny network."""

import itertools
import math

import pytest
import torch

CPU = torch.device("cpu")
Capture = pytest.CaptureFixture[str]
TINY = ["device=cpu", "size=[33,33]", "rounds=2", "model=deeplabv3plus_xception41", "model.encoder.width=0.125"]
MEASURES = ["data=shapes", "data.train=1", "data.val=3", "data.height=48", "data.width=80", "model.aspp.channels=8"]


def tables(text: str) -> list[list[dict[str, str]]]:
    """Each table in Markdown, as rows by column."""
    result: list[list[dict[str, str]]] = []
    groups = itertools.groupby(text.splitlines(), key=lambda line: line.startswith("|"))
    for lines in (list(group) for is_table, group in groups if is_table):
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        assert set("".join(cells[1])) == {"-", ":"}
        result.append([dict(zip(cells[0], row, strict=True)) for row in cells[2:]])
    return result


def number(cell: str) -> float:
    """Of a cell, a percentage or not."""
    value = float(cell.removesuffix("%"))
    assert math.isfinite(value)
    return value
