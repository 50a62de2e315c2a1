"""The boundary measures against slow, obvious implementations, and cases worked by hand."""

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage

import segapp.evaluation.boundary
from segapp.evaluation.boundary import (
    BoundaryCounts,
    contour_f_scores,
    count_boundaries,
    region_counts,
    trimap_counts,
)

K = 4
Labels = npt.NDArray[np.uint8]


def blobs(seed: int, height: int = 23, width: int = 31, void: float = 0.1) -> tuple[Labels, Labels]:
    """A truth with patches of classes and void, and a prediction much like it."""
    rng = np.random.default_rng(seed)
    smooth = [ndimage.gaussian_filter(rng.normal(size=(height, width)), 2.5) for _ in range(K)]
    other = [each + ndimage.gaussian_filter(rng.normal(size=(height, width)), 2) * 0.4 for each in smooth]
    truth, prediction = (np.argmax(each, 0).astype(np.uint8) for each in (smooth, other))
    hidden = ndimage.gaussian_filter(rng.normal(size=(height, width)), 1.5)
    truth[hidden > np.quantile(hidden, 1 - void)] = 255
    return truth, prediction


def slow_trimap(truth: Labels, prediction: Labels, width: int) -> npt.NDArray[np.int64]:
    counts = np.zeros((K, K), np.int64)
    for row, column in np.argwhere(truth != 255):
        around = truth[max(0, row - width) : row + width + 1, max(0, column - width) : column + width + 1]
        counts[truth[row, column], prediction[row, column]] += (around == 255).any()
    return counts


def slow_region(mask: npt.NDArray[np.bool_], distance: int) -> npt.NDArray[np.bool_]:
    """By `distance` erosions, as published."""
    kept: npt.NDArray[np.bool_] = ndimage.binary_erosion(mask, np.ones((3, 3)), iterations=distance, border_value=0)
    return mask & ~kept


def slow_f_score(truth: Labels, prediction: Labels, index: int, tolerance: float) -> float:
    """Every contour pixel against every other."""

    def contour(labels: Labels) -> list[tuple[int, int]]:
        mask = labels == index
        inner = ndimage.binary_erosion(mask, np.ones((3, 3)), border_value=1)
        return [(int(row), int(column)) for row, column in np.argwhere(mask & ~inner)]

    true, found = contour(truth), contour(prediction)
    if not true and not found:
        return math.nan
    if not true or not found:
        return 0.0
    recall = np.mean([min(math.dist(a, b) for b in found) <= tolerance for a in true])
    precision = np.mean([min(math.dist(a, b) for b in true) <= tolerance for a in found])
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


@pytest.mark.parametrize("strip_pixels", [1 << 21, 5 * 31, 1])
@pytest.mark.parametrize("seed", range(4))
def test_equals_the_slow_implementations(seed: int, strip_pixels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one strip, in strips of 5 rows, and row by row."""
    monkeypatch.setattr(segapp.evaluation.boundary, "STRIP_PIXELS", strip_pixels)
    truth, prediction = blobs(seed, void=0 if seed == 3 else 0.1)
    widths = (3, 1, 7, 40)
    expected = [slow_trimap(truth, prediction, width) for width in widths]
    assert np.array_equal(trimap_counts(truth, prediction, K, widths), expected)

    prediction = np.where(truth == 255, truth, prediction)
    for distance in (1, 2, 5):
        shared, united = region_counts(truth, prediction, K, distance)
        for index in range(K):
            true, found = (slow_region(labels == index, distance) for labels in (truth, prediction))
            assert (shared[index], united[index]) == ((true & found).sum(), (true | found).sum())

    for tolerance in (0.5, 1.0, 1.5, 2.3):
        scores = contour_f_scores(truth, prediction, K, tolerance)
        assert scores == pytest.approx([slow_f_score(truth, prediction, i, tolerance) for i in range(K)], nan_ok=True)
        assert 0 < np.nanmean(scores) < 1


def test_f_scores_of_many_classes() -> None:
    """20 in small patches, and a tolerance beyond the image's height."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 20, (4, 9)).astype(np.uint8).repeat(3, 0).repeat(3, 1)
    prediction = np.roll(truth, (1, 1), (0, 1))
    truth[rng.random(truth.shape) < 0.1] = 255
    for tolerance in (0.0, 1.0, 15.5):
        scores = contour_f_scores(truth, prediction, 20, tolerance)
        expected = [slow_f_score(truth, prediction, index, tolerance) for index in range(20)]
        assert scores == pytest.approx(expected, nan_ok=True)
        assert np.isfinite(scores).sum() > 8


def test_trimap_by_hand() -> None:
    """One row: distances 2 1 . 1 2 3 from the void; the pixel at 2 on the right is wrong."""
    truth = np.array([[0, 0, 255, 1, 1, 1]], np.uint8)
    prediction = np.array([[0, 0, 0, 1, 0, 1]], np.uint8)
    counts = trimap_counts(truth, prediction, 2, (1, 2, 3))
    assert counts.tolist() == [[[1, 0], [0, 1]], [[2, 0], [1, 1]], [[2, 0], [1, 2]]]
    curve = count_boundaries(truth, prediction, 2, widths=(1, 2, 3)).trimap_miou
    assert curve == pytest.approx([1, (2 / 3 + 1 / 2) / 2, (2 / 3 + 2 / 3) / 2])


def test_trimap_reaches_over_corners() -> None:
    """A dilation by a square, not by a disc: 8 pixels at width 1, 24 at width 2."""
    truth = np.zeros((7, 7), np.uint8)
    truth[3, 3] = 255
    assert trimap_counts(truth, np.zeros_like(truth), 1, (1, 2)).ravel().tolist() == [8, 24]


def test_boundary_iou_by_hand() -> None:
    """A square of 4 x 4 found one column off: rings of 12 pixels each that share two rows of 3 pixels.

    The ring of columns 1 to 4 and that of columns 2 to 5 share the pixels of columns 2 to 4 in the first and the last
    row; their sides (columns 1 and 4, 2 and 5) meet nowhere else.
    """
    truth, prediction = np.zeros((10, 10), np.uint8), np.zeros((10, 10), np.uint8)
    truth[3:7, 1:5] = 1
    prediction[3:7, 2:6] = 1
    shared, united = region_counts(truth, prediction, 2, 1)
    assert (shared[1], united[1]) == (6, 12 + 12 - 6)


def test_the_image_ends_a_boundary_iou_region_but_makes_no_contour() -> None:
    truth = np.zeros((10, 12), np.uint8)
    shared, united = region_counts(truth, truth, 2, 2)
    assert shared.tolist() == united.tolist() == [10 * 12 - 6 * 8, 0]
    assert np.isnan(contour_f_scores(truth, truth, 2, 1.0)).all()


def test_f_score_by_hand() -> None:
    """Halves of a 10 x 10 image, parted after column 4; found parted after column 6, and a stray pixel.

    Class 1's true contour is column 5, its predicted one column 7 and the stray pixel (0, 0), one of 11; two columns
    off are all found at tolerance 2 and none at 1.9.
    """
    truth, prediction = np.zeros((10, 10), np.uint8), np.zeros((10, 10), np.uint8)
    truth[:, 5:] = 1
    prediction[:, 7:] = 1
    prediction[0, 0] = 1
    precision = 10 / 11
    assert contour_f_scores(truth, prediction, 2, 2.0)[1] == pytest.approx(2 * precision / (precision + 1))
    assert contour_f_scores(truth, prediction, 2, 1.9)[1] == 0


def test_a_class_that_only_one_side_has_scores_nothing() -> None:
    truth, prediction = np.zeros((9, 9), np.uint8), np.zeros((9, 9), np.uint8)
    prediction[4:6, 4:6] = 2
    counts = count_boundaries(truth, prediction, 3, widths=(1,))
    assert counts.per_class_iou[2] == 0
    assert counts.per_class_f[2] == 0
    assert counts.images.tolist() == [1, 0, 1], "class 1 occurs nowhere"
    assert np.isnan([counts.per_class_iou[1], counts.per_class_f[1], counts.trimap_miou[0]]).all()


def test_ignored_pixels_count_for_nothing() -> None:
    """What is predicted in the void makes no difference, and a prediction right elsewhere scores 1."""
    truth, _ = blobs(5)
    rng = np.random.default_rng(0)
    for _ in range(3):
        prediction = np.where(truth == 255, rng.integers(0, K, truth.shape), truth).astype(np.uint8)
        counts = count_boundaries(truth, prediction, K, widths=(1, 4), region_share=0.1, tolerance_share=0.03)
        assert np.nanmin(counts.per_class_iou) == np.nanmin(counts.per_class_f) == counts.trimap_miou.min() == 1
    nothing = count_boundaries(np.full((5, 6), 255, np.uint8), np.zeros((5, 6), np.uint8), K, widths=(1, 4))
    assert not any(each.any() for each in (nothing.trimap, nothing.united, nothing.images))


def test_counts_add_up_and_shares_are_of_the_diagonal() -> None:
    """30 x 40 has a diagonal of 50: 2 % are 1 pixel, 4 % are 2, and the tolerance of 0.75 % is 0.375."""
    pairs = [blobs(seed, 30, 40) for seed in (1, 2)]
    first, second = (count_boundaries(*pair, K, widths=(2, 5)) for pair in pairs)
    total: BoundaryCounts = first + second
    hidden = [(truth, np.where(truth == 255, truth, prediction)) for truth, prediction in pairs]
    united = sum(region_counts(*pair, K, 1)[1] for pair in hidden)
    assert np.array_equal(total.united, united)
    wider = count_boundaries(*pairs[0], K, widths=(), region_share=0.04)
    assert np.array_equal(wider.united, region_counts(*hidden[0], K, 2)[1])
    f_scores = [contour_f_scores(*pair, K, 0.375) for pair in hidden]
    assert total.per_class_f == pytest.approx(np.nanmean(f_scores, 0))
    assert np.array_equal(total.trimap, sum(trimap_counts(*pair, K, (2, 5)) for pair in pairs))
