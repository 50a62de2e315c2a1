"""How many images wait to be counted, and that all of them are."""

import numpy as np
import pytest
import torch

import segapp.evaluation.details
from segapp.evaluation.boundary import count_boundaries
from segapp.evaluation.components import count_components
from segapp.evaluation.details import DetailsAccumulator

K = 3


@pytest.mark.parametrize(
    ("sides", "waiting"),
    [
        ([10] * 6, [1, 2, 3, 4, 4, 4]),  # 400 pixels
        ([4] * 8, [1, 2, 3, 4, 5, 5, 5, 5]),  # five images
        ([30, 30, 10, 10], [1, 1, 1, 2]),  # the network goes on while one of 900 pixels is counted
    ],
)
def test_what_waits_is_bounded(sides: list[int], waiting: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segapp.evaluation.details, "WAITING", 5)
    monkeypatch.setattr(segapp.evaluation.details, "WAITING_PIXELS", 400)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, K, (2, side, side)).astype(np.uint8) for side in sides]
    pairs = [(truth, prediction) for truth, prediction in images]
    seen = []
    with DetailsAccumulator(K, [1, 2]) as accumulator:
        for truth, prediction in pairs:
            accumulator.add(truth, torch.from_numpy(prediction))
            seen.append(len(accumulator._waiting))
        counts = accumulator.compute()
    assert seen == waiting
    assert counts is not None
    boundaries = [count_boundaries(truth, prediction, K, widths=[1, 2]) for truth, prediction in pairs]
    assert np.array_equal(counts.boundary.trimap, np.sum([each.trimap for each in boundaries], 0))
    components = [count_components(truth, prediction, K) for truth, prediction in pairs]
    assert np.array_equal(counts.components.right, np.sum([each.right for each in components], 0))
