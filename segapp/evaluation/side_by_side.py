"""Two predictors of one network on the same labelled images: what does the second one cost?"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from segapp.base.distributed import ALONE
from segapp.base.errors import UserError
from segapp.data.dataset import Sample, SegmentationDataset
from segapp.data.loading.loader import Workers
from segapp.evaluation.accumulate import accumulate
from segapp.evaluation.bootstrap import Difference, miou_difference
from segapp.evaluation.checks import check_any_scored
from segapp.evaluation.confusion import Scores
from segapp.evaluation.labellers import by_network
from segapp.inference.prediction import Prediction
from segapp.inference.predictor import Predictor


class SideBySide(NamedTuple):
    """mIoU in [0, 1] of either, the difference with its paired interval, and a line for each image left out."""

    first: float
    second: float
    difference: Difference
    problems: list[str]


def side_by_side(
    dataset: SegmentationDataset, first: Predictor, second: Predictor, *, batch_size: int = 1, workers: Workers = 0
) -> SideBySide:
    """Both on the CPU; each image is read once.

    Raises:
        UserError: the data set has no labels, or none of its images could be scored.
    """

    labellers = [by_network(each) for each in (first, second)]

    def label(samples: Sequence[Sample]) -> list[Sequence[Prediction | UserError]]:
        return [each(samples) for each in labellers]

    states = accumulate(
        dataset,
        label,
        labellers=2,
        batch_size=batch_size,
        trimap_widths=None,
        workers=workers,
        device=torch.device("cpu"),
        processes=ALONE,
        description=f"scoring {dataset.name}",
    )
    problems = list(states[0].problems.values())
    scores = [Scores(dataset.classes, state.matrix) for state in states]
    check_any_scored(len(states[0].indices), problems, scores[0].confusion_matrix.sum())
    return SideBySide(scores[0].miou, scores[1].miou, miou_difference(states[0].areas, states[1].areas), problems)
