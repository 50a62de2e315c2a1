"""A finding: something that ails the data, how bad it is, and what to do."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from segapp.base.errors import number_of
from segapp.data.checks.labels import ScannedSet
from segapp.data.dataset import Role

Severity = Literal["error", "warning", "note"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""Error: training would fail or be wrong. Warning: it may well be. Note: good to know."""


@dataclass(frozen=True)
class Finding:
    """Something that ails the data.

    kind: its name for programs. title: what, and how often. advice: what to do. count: of files, or of classes.
    files: one line for each, path first. pictures: (role, index) of those worth looking at.
    """

    severity: Severity
    kind: str
    title: str
    advice: str
    count: int
    files: tuple[str, ...] = ()
    pictures: tuple[tuple[Role, int], ...] = ()

    @property
    def line(self) -> str:
        """All of it, with the first of the files, in one line."""
        first = f", first {self.files[0]}" if self.files else ""
        return f"{self.title}{first}; {self.advice[0].lower()}{self.advice[1:].rstrip('.')}"


def counted(count: int, title: str) -> str:
    """3 and "mask of another size" to "3 masks of another size"."""
    noun, _, rest = title.partition(" ")
    return f"{number_of(count, noun)} {rest}"


def sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def some(values: Sequence[object], most: int = 5) -> str:
    """The first of them, in one line."""
    return ", ".join(map(str, values[:most])) + (", ..." if len(values) > most else "")


Case = tuple[ScannedSet, int, str]
"""A set, an index, and the line that is shown for it."""


def on_files(
    severity: Severity, kind: str, title: str, advice: str, cases: Sequence[Case], show: bool = True
) -> Iterator[Finding]:
    """A finding on files, if there are any; `title` begins with the noun that their number goes before."""
    if cases:
        lines = tuple(line for _, _, line in cases)
        pictures = tuple((each.role, index) for each, index, _ in cases[:2]) if show else ()
        yield Finding(severity, kind, counted(len(cases), title), advice, len(cases), lines, pictures)


def masks_of_set(each: ScannedSet) -> Sequence[Path]:
    return each.dataset.masks or ()
