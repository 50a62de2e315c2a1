"""The measures against torchmetrics, and a hand-worked example."""

from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_confusion_matrix, multiclass_jaccard_index

from segapp.evaluation.confusion import ConfusionMatrix, Scores

K = 5
NAMES = tuple("abcde")


def random_labels(seed: int, void: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, K, (3, 40, 50), generator=generator).to(torch.uint8)
    truth[torch.rand(truth.shape, generator=generator) < void] = 255
    prediction = torch.randint(0, K, (3, 40, 50), generator=generator).to(torch.uint8)
    return truth, prediction


DEGENERATE = {
    "one class": (torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)),
    "all wrong": (torch.zeros(1, 4, 4), torch.ones(1, 4, 4)),
    "class only predicted": (torch.zeros(1, 4, 4), torch.eye(4)[None] * 3),
    "one pixel": (torch.full((1, 1, 1), 2), torch.full((1, 1, 1), 2)),
}


@pytest.mark.parametrize("case", [*DEGENERATE, "random", "random, mostly void"])
def test_equals_torchmetrics(case: str) -> None:
    if case in DEGENERATE:
        truth, prediction = (labels.to(torch.uint8) for labels in DEGENERATE[case])
    else:
        truth, prediction = random_labels(0, 0.9 if "void" in case else 0.1)
    matrix = ConfusionMatrix(K)
    for image_truth, image_prediction in zip(truth, prediction, strict=True):
        matrix.update(image_truth, image_prediction)
    arguments: Any = {"num_classes": K, "ignore_index": 255}
    expected = multiclass_confusion_matrix(prediction.long(), truth.long(), **arguments)
    assert np.array_equal(matrix.compute(), expected.numpy())
    ious = multiclass_jaccard_index(prediction.long(), truth.long(), average="none", **arguments)
    scores = Scores(NAMES, matrix.compute())
    present = np.isfinite(scores.per_class_iou)
    assert np.allclose(scores.per_class_iou[present], ious.numpy()[present], atol=1e-6)
    assert scores.miou == pytest.approx(float(ious[torch.from_numpy(present)].mean()), abs=1e-6)


def test_update_leaves_its_arguments_alone_and_returns_their_counts() -> None:
    truth = torch.tensor([0, 1, 255])
    prediction = torch.tensor([0, 0, 1])
    matrix = ConfusionMatrix(2)
    matrix.update(truth, prediction)
    counts = matrix.update(truth, prediction)
    assert counts.tolist() == [[1, 0], [1, 0]]
    assert matrix.compute().tolist() == [[2, 0], [2, 0]]
    assert truth.tolist() == [0, 1, 255]


def test_measures_of_a_hand_worked_matrix() -> None:
    """Class c occurs nowhere; a: 6 right of 8 true and 7 predicted; b: 1 right of 2 true and 3 predicted."""
    scores = Scores(("a", "b", "c"), np.array([[6, 2, 0], [1, 1, 0], [0, 0, 0]]))
    assert scores.per_class_iou[:2].tolist() == [6 / 9, 1 / 4]
    assert np.isnan(scores.per_class_iou[2])
    assert scores.absent == ("c",)
    assert scores.miou == pytest.approx((6 / 9 + 1 / 4) / 2)
    assert scores.miou_of(("b", "c")) == pytest.approx(1 / 4)
    assert scores.pixel_accuracy == pytest.approx(0.7)
    assert scores.mean_accuracy == pytest.approx((6 / 8 + 1 / 2) / 2)
    assert scores.frequency_weighted_iou == pytest.approx(0.8 * 6 / 9 + 0.2 * 1 / 4)


def test_nothing_counted_is_nan_and_no_warning(recwarn: pytest.WarningsRecorder) -> None:
    scores = Scores(("a", "b"), ConfusionMatrix(2).compute())
    for value in (scores.miou, scores.pixel_accuracy, scores.mean_accuracy, scores.frequency_weighted_iou):
        assert np.isnan(value)
    assert not recwarn.list
