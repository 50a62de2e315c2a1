"""The bootstrap against scipy's, against a truth known from a model, and on cases worked by hand."""

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from segapp.evaluation.bootstrap import _resampled, miou_difference, miou_interval
from segapp.evaluation.confusion import Areas

Sizes = npt.NDArray[np.int64]


def draw_images(rng: np.random.Generator, number: int) -> tuple[Sizes, npt.NDArray[np.float64]]:
    """True pixels, N x 3 of three classes of which the rarest is in few images, and each image's ease in [0, 1]."""
    there = rng.random((number, 3)) < (1, 0.6, 0.3)
    return there * rng.integers(50, 400, (number, 3)), rng.beta(4, 2, (number, 1))


def predict(rng: np.random.Generator, true: Sizes, ease: npt.NDArray[np.float64], skill: float) -> Areas:
    """Some of the true pixels are right; every class is given as many false ones as others' pixels were missed."""
    right = rng.binomial(true, np.broadcast_to(np.clip(ease * skill, 0, 1), true.shape))
    false = np.roll(true - right, 1, axis=1)
    return np.stack([right, true, right + false], 1)


def miou(areas: Areas) -> float:
    """Of the whole data set."""
    right, true, predicted = areas.sum(0)
    union = true + predicted - right
    return float(np.mean(right[union > 0] / union[union > 0]))


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    """300 data sets of 150 images: 95 % is 285, with a standard deviation of 3.8."""
    rng = np.random.default_rng(0)
    truth = miou(predict(rng, *draw_images(rng, 100_000), 0.9))
    held = 0
    for seed in range(300):
        interval = miou_interval(predict(rng, *draw_images(rng, 150), 0.9), resamples=400, seed=seed)
        held += interval.low <= truth <= interval.high
    assert 285 - 3 * 3.8 <= held <= 285 + 3 * 3.8


def test_agrees_with_scipy() -> None:
    """Ends of intervals from 4000 resamples agree within a few hundredths of the interval's width."""
    rng = np.random.default_rng(1)
    images = draw_images(rng, 40)
    first, second = predict(rng, *images, 0.8), predict(rng, *images, 0.9)
    options = {"n_resamples": 4000, "vectorized": False, "method": "percentile", "rng": 5}

    expected = stats.bootstrap((np.arange(40),), lambda at: miou(first[at]), **options).confidence_interval
    interval = miou_interval(first, resamples=4000)
    assert interval.value == pytest.approx(miou(first))
    assert (interval.low, interval.high) == pytest.approx(expected, abs=0.05 * (expected.high - expected.low))

    gain = stats.bootstrap((np.arange(40),), lambda at: miou(second[at]) - miou(first[at]), **options)
    expected = gain.confidence_interval
    difference = miou_difference(first, second, resamples=4000)
    ends = (difference.gain.low, difference.gain.high)
    assert difference.gain.value == pytest.approx(miou(second) - miou(first))
    assert ends == pytest.approx(expected, abs=0.05 * (expected.high - expected.low))
    assert difference.better == pytest.approx(np.mean(gain.bootstrap_distribution > 0), abs=0.02)


def test_pairing_sees_what_two_intervals_hide() -> None:
    """B is a little better on every image: beyond doubt, though the intervals of A and B overlap."""
    rng = np.random.default_rng(2)
    images = draw_images(rng, 80)
    first, second = predict(rng, *images, 0.85), predict(rng, *images, 0.9)
    a, b = miou_interval(first), miou_interval(second)
    assert a.high > b.low
    difference = miou_difference(first, second)
    assert difference.gain.low > 0
    assert difference.better == 1
    assert difference.gain.high - difference.gain.low < 0.5 * (a.high - a.low)
    back = miou_difference(second, first)
    assert back.better == 0
    assert back.gain.high == pytest.approx(-difference.gain.low)
    same = miou_difference(first, first)
    assert (same.gain.low, same.gain.high, same.better) == (0, 0, 0)


def test_absent_classes_are_left_out() -> None:
    """Two images: one has the classes a and c, the other only a; b is nowhere.

    A resample is both (one half of all), twice the first or twice the second, whose mIoU is that of a alone.
    """
    areas = np.array([[[6, 0, 1], [8, 0, 2], [7, 0, 3]], [[1, 0, 0], [2, 0, 0], [1, 0, 0]]])
    both = (7 / 11 + 1 / 4) / 2
    first, second = (6 / 9 + 1 / 4) / 2, 1 / 2
    interval = miou_interval(areas, level=0.999)
    assert interval.value == pytest.approx(both)
    assert (interval.low, interval.high) == pytest.approx((min(both, first), second))


def test_one_image_has_no_interval() -> None:
    areas = np.array([[[6, 1], [8, 2], [7, 3]]])
    interval = miou_interval(areas)
    assert interval.value == pytest.approx((6 / 9 + 1 / 4) / 2)
    assert not interval.known
    assert not miou_difference(areas, areas).gain.known
    assert miou_interval(np.concatenate([areas, areas])).known


def test_seeded_and_the_same_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    areas = predict(rng, *draw_images(rng, 30), 0.9)
    (whole,) = _resampled([areas], 50, 7)
    monkeypatch.setattr("segapp.evaluation.bootstrap._DRAWS_AT_ONCE", 30 * 8)
    pieces = list(_resampled([areas], 50, 7))
    assert [len(piece[0]) for piece in pieces] == [8, 8, 8, 8, 8, 8, 2]
    assert np.array_equal(np.concatenate([piece[0] for piece in pieces]), whole[0])
    assert miou_interval(areas, seed=1) == miou_interval(areas, seed=1) != miou_interval(areas, seed=2)
    for totals in whole[0][:3]:
        assert (totals[0] <= totals[1]).all()


def test_nothing_to_score_and_other_images() -> None:
    for areas in (np.zeros((0, 3, 2), np.int64), np.zeros((4, 3, 2), np.int64)):
        interval = miou_interval(areas)
        assert np.isnan([interval.value, interval.low, interval.high]).all()
        assert np.isnan(miou_difference(areas, areas).better)
    rng = np.random.default_rng(4)
    first, second = (predict(rng, *draw_images(rng, 10), 0.9) for _ in range(2))
    with pytest.raises(ValueError, match="same images"):
        miou_difference(first, second)
