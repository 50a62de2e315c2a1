"""What the counts of images have in common: those of a data set are their sum."""

from dataclasses import dataclass, fields
from typing import Self


@dataclass(frozen=True)
class Additive:
    """The sum of two is that of each field."""

    def __add__(self, other: Self) -> Self:
        return type(self)(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))
