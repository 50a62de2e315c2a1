"""Lists of classes as annotation programs write them, as the document that classes.yaml would be."""

import csv
import re
from typing import Any

from segapp.base.classes import BACKGROUND
from segapp.base.errors import UserError

CVAT_LINE = re.compile(r"(.+):(\d+),(\d+),(\d+):[^:]*:[^:]*")
"""label:color_rgb:parts:actions (docs.cvat.ai, format "Segmentation Mask")."""
VOC_VOID = [224, 224, 192]
"""The colour of PASCAL VOC's 255."""
LABELME_IGNORE, LABELME_BACKGROUND = "__ignore__", "_background_"
"""What labelme calls them (examples/semantic_segmentation/labels.txt in its repository)."""


def parse_foreign(text: str, suffix: str) -> dict[str, Any]:
    """CVAT's labelmap.txt, a list of one name a line as labelme's labels.txt, or Roboflow's _classes.csv.

    Args:
        suffix: of the file, .txt or .csv.

    Raises:
        UserError: a line is none of these; it is named.
    """
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if suffix == ".csv":
        return _values(lines)
    if any(CVAT_LINE.fullmatch(line) for line in lines):
        return _colours(lines)
    names = [BACKGROUND if line == LABELME_BACKGROUND else line for line in lines if line != LABELME_IGNORE]
    return {"classes": names}


def _colours(lines: list[str]) -> dict[str, Any]:
    colours: dict[str, list[list[int]]] = {}
    for line in lines:
        match = CVAT_LINE.fullmatch(line)
        if match is None:
            raise UserError(f"cannot read {line!r}; label:red,green,blue:parts:actions is expected")
        if match[1] in colours:
            raise UserError(f"{match[1]} stands twice")
        colours[match[1]] = [[int(value) for value in match.groups()[1:]]]
    void = [] if [VOC_VOID] in colours.values() else [VOC_VOID]
    return {"colours": colours, "ignore": void}


def _values(lines: list[str]) -> dict[str, Any]:
    """After a head, "Pixel Value, Class", a value and a name a line."""
    values: dict[str, int] = {}
    for row in csv.reader(lines[1:], skipinitialspace=True):
        if len(row) != 2 or not row[0].strip().isdecimal():
            raise UserError(f"cannot read {', '.join(row)!r}; a pixel's value and a class are expected")
        name = row[1].strip()
        if name in values:
            raise UserError(f"{name} stands twice")
        values[name] = int(row[0])
    return {"values": values}
