"""How sure a mIoU is: the bootstrap over images (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 13).

Images are drawn anew, with replacement, as often as there are; the spread of the data-set-wide mIoU over many such
draws tells how far it would differ on another sample of images of the same kind. It tells nothing of another training
run.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from segapp.evaluation.confusion import Areas, Floats, mean_iou, ratio

RESAMPLES = 2000
LEVEL = 0.95
_DRAWS_AT_ONCE = 1 << 20  # images drawn in one piece, which bounds the memory at some 30 MB


@dataclass(frozen=True)
class Interval:
    """`value`: the measure of the images themselves; `low` and `high`: the percentile interval's ends. NaN: none."""

    value: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        return bool(np.isfinite([self.low, self.high]).all())


@dataclass(frozen=True)
class Difference:
    """Of two sets of predictions for the same images, A and B.

    Attributes:
        gain: B's mIoU less A's, in [-1, 1], and its interval; one that leaves out 0 is a difference beyond chance.
        better: share of the resamples in which B's mIoU is above A's, in [0, 1]; NaN without an image to score.
    """

    gain: Interval
    better: float


def miou_interval(areas: Areas, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0) -> Interval:
    """The mIoU in [0, 1] with its percentile interval of probability `level`.

    A class without a union in a resample is left out of that resample's mean, as in `Scores.miou`. That skews the
    interval where a poor class is in few images; giving it its own IoU there would make the interval half as wide, but
    too narrow: in a simulation of 100 images, two of them with the class, it held the truth 91 times of 100, not 93.

    Args:
        areas: N x 3 x K of the classes over which the mean is taken; ignored pixels are in none of them.
    """
    mious = np.concatenate([np.empty(0), *(mean_iou(totals) for (totals,) in _resampled([areas], resamples, seed))])
    return _interval(float(mean_iou(areas.sum(0))), mious, level)


def miou_difference(
    areas: Areas, other: Areas, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> Difference:
    """Whether `other` (B) is better than `areas` (A): both N x 3 x K, of the same images in the same order.

    Each resample draws the same images for both, so what makes an image hard for both does not widen the interval.

    Raises:
        ValueError: another number of images or classes, or other true pixels; these are not the same images.
    """
    if areas.shape != other.shape or not np.array_equal(areas[:, 1], other[:, 1]):
        raise ValueError("a paired comparison takes two predictions of the same images")
    gains = np.concatenate(
        [np.empty(0), *(mean_iou(b) - mean_iou(a) for a, b in _resampled([areas, other], resamples, seed))]
    )
    gain = float(mean_iou(other.sum(0)) - mean_iou(areas.sum(0)))
    known = gains[np.isfinite(gains)]
    return Difference(_interval(gain, gains, level), float(ratio((known > 0).sum(), len(known))))


def _resampled(sets: list[Areas], resamples: int, seed: int) -> Iterator[list[Floats]]:
    """For each set, R x 3 x K pixels of R resamples of the images, the same ones for all sets; R adds up.

    None of fewer than two images, which show no spread.
    """
    images = len(sets[0])
    resamples = resamples if images > 1 else 0
    rng = np.random.default_rng(seed)
    flat = [areas.reshape(images, -1).astype(np.float64) for areas in sets if images]
    step = max(1, _DRAWS_AT_ONCE // max(1, images))
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        drawn = rng.integers(0, images, (rows, images)) + np.arange(rows)[:, None] * images
        weights = np.bincount(drawn.ravel(), minlength=rows * images).reshape(rows, images).astype(np.float64)
        yield [(weights @ each).reshape(rows, *areas.shape[1:]) for each, areas in zip(flat, sets, strict=True)]


def _interval(value: float, resampled: Floats, level: float) -> Interval:
    known = resampled[np.isfinite(resampled)]
    if not len(known):
        return Interval(value, np.nan, np.nan)
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))
