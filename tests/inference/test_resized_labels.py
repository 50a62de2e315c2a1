"""Labels of resized scores beside the argmax of PyTorch's own resize, in float64."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segapp.inference import resized_labels as module
from segapp.inference.geometry import Geometry
from segapp.inference.resized_labels import labels_of_resized

SHAPES = [
    ((9, 13), (65, 97)),
    ((33, 29), (301, 77)),
    ((20, 20), (7, 9)),
    ((1, 5), (4, 33)),
    ((5, 1), (33, 4)),
    ((1, 1), (8, 9)),
]


def reference(scores: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and how far the second class is behind the first."""
    resized = F.interpolate(torch.from_numpy(scores).double(), size, mode="bilinear", align_corners=True)[0]
    first, second = resized.topk(2, 0).values
    return resized.argmax(0).numpy(), (first - second).numpy()


def scores_of(kind: str, shape: tuple[int, int], classes: int = 6) -> np.ndarray:
    """Noise, whose every place is another class's, or even areas as a network gives them."""
    generator = torch.Generator().manual_seed(0)
    if kind == "noise":
        return torch.randn(1, classes, *shape, generator=generator).numpy()
    coarse = torch.randn(1, classes, 3, 3, generator=generator) * 8
    return F.interpolate(coarse, shape, mode="bicubic", align_corners=True).numpy()


@pytest.mark.parametrize("kind", ["noise", "areas"])
@pytest.mark.parametrize(("shape", "size"), SHAPES)
def test_they_are_those_of_the_whole_resize(
    kind: str, shape: tuple[int, int], size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIXELS", 100)
    scores = scores_of(kind, shape)
    expected, ahead = reference(scores, size)
    for rows in (slice(0, size[0]), slice(1, 3), slice(size[0] - 1, size[0])):
        labels = labels_of_resized(scores, size, rows)
        clear = ahead[rows] > 1e-5
        assert labels.dtype == np.uint8
        assert labels.shape == expected[rows].shape
        assert np.array_equal(labels[clear], expected[rows][clear])
        assert clear.mean() > 0.99


def test_a_part_of_the_rows_will_do() -> None:
    scores = scores_of("areas", (33, 29))
    expected, ahead = reference(scores, (300, 77))
    labels = labels_of_resized(scores[:, :, 8:20], (300, 77), slice(90, 150), first=8, height=33)
    clear = ahead[90:150] > 1e-5
    assert np.array_equal(labels[clear], expected[90:150][clear])


def test_a_class_that_is_highest_in_no_corner_may_be_so_between_them() -> None:
    scores = np.zeros((1, 3, 1, 2), np.float32)
    scores[0, :, 0, 0] = 4, 3, 0
    scores[0, :, 0, 1] = 0, 3, 4
    assert labels_of_resized(scores, (1, 5), slice(0, 1)).tolist() == [[0, 0, 1, 1, 2]]  # ties are the lower class's


def test_scores_that_are_not_numbers_are_highest_as_in_argmax() -> None:
    scores = np.zeros((1, 3, 2, 2), np.float32)
    scores[0, 2] = np.nan
    assert (labels_of_resized(scores, (5, 5), slice(0, 5)) == 2).all()
    scores[0, 2, 1, 1] = 0
    assert (labels_of_resized(scores, (5, 5), slice(0, 5))[:-1] == 2).all()


@pytest.mark.parametrize(
    ("content", "size"),
    [((257, 257), (257, 257)), ((100, 257), (100, 257)), ((193, 257), (1500, 2000)), ((257, 30), (600, 70))],
)
def test_of_a_canvas_they_are_the_argmax_of_its_scores(content: tuple[int, int], size: tuple[int, int]) -> None:
    logits = scores_of("areas", (65, 65), classes=21)
    geometry = Geometry((257, 257), content, size)
    strips = geometry.scores([torch.from_numpy(logits)], probabilities=False)
    scores = torch.cat([strip for _, strip in strips], 2)[0].numpy()
    labels = np.concatenate([strip for _, strip in geometry.labels(logits)])
    at_label = np.take_along_axis(scores, labels[None].astype(np.int64), 0)[0]
    assert labels.shape == size
    assert (labels == scores.argmax(0)).mean() > 0.9999
    assert (scores.max(0) - at_label).max() < 1e-3  # of up to 20: what the resize in two steps rounds
