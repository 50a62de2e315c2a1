"""What an evaluation has counted so far: plain numbers of some images, which add up to those of all."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from segapp.evaluation.calibration import Reliability
from segapp.evaluation.confusion import Areas, Counts
from segapp.evaluation.details import DetailCounts

T = TypeVar("T")


@dataclass(frozen=True)
class EvaluationState:
    """What was counted of N images of a data set; the sum of its parts' states is the whole's, to the bit.

    Attributes:
        indices: N, in the data set.
        areas: N x 3 x K pixels, right, true and predicted.
        matrix: K x K counts: row = truth, column = prediction.
        problems: what is wrong with those that could not be scored, by index.
        counts: None if nothing but areas was asked for, or N is 0.
        reliability: None if the labels come without confidences, too.
    """

    indices: npt.NDArray[np.int64]
    areas: Areas
    matrix: Counts
    problems: dict[int, str]
    counts: DetailCounts | None = None
    reliability: Reliability | None = None

    def __add__(self, other: "EvaluationState") -> "EvaluationState":
        return EvaluationState(
            np.concatenate([self.indices, other.indices]),
            np.concatenate([self.areas, other.areas]),
            self.matrix + other.matrix,
            self.problems | other.problems,
            _sum([self.counts, other.counts]),
            _sum([self.reliability, other.reliability]),
        )

    def in_order(self) -> "EvaluationState":
        """By index."""
        order, problems = np.argsort(self.indices), dict(sorted(self.problems.items()))
        return replace(self, indices=self.indices[order], areas=self.areas[order], problems=problems)


def _sum(parts: Iterable[T | None]) -> T | None:
    present: list[Any] = [each for each in parts if each is not None]
    return reduce(add, present) if present else None
