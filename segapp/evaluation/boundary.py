"""Measures of how well boundaries are met: the trimap curve, Boundary IoU and the boundary F-score.

All three are counted image by image, and the counts add up over a data set.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from segapp.classes import IGNORE_INDEX
from segapp.evaluation.confusion import Floats, ratio

Labels = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]
Counts = npt.NDArray[np.int64]

REGION_SHARE = 0.02
"""Boundary IoU's d as a share of the image's diagonal (arXiv:2103.16562)."""
TOLERANCE_SHARE = 0.0075
"""The F-score's tolerance as a share of the image's diagonal (Csurka et al., BMVC 2013; MATLAB's bfscore)."""


@dataclass(frozen=True)
class BoundaryCounts:
    """What `count_boundaries` finds; the sum of several images' counts is their data set's.

    Attributes:
        trimap: W x K x K pixels (row = truth, column = prediction) in the band of each of the W widths.
        shared: K pixels in both the true and the predicted boundary region of the class.
        united: K pixels in either.
        f_scores: K sums of the images' F-scores.
        images: K images with a contour of the class in truth or prediction, whose F-scores were summed.
    """

    trimap: Counts
    shared: Counts
    united: Counts
    f_scores: Floats
    images: Counts

    def __add__(self, other: "BoundaryCounts") -> "BoundaryCounts":
        return BoundaryCounts(
            self.trimap + other.trimap,
            self.shared + other.shared,
            self.united + other.united,
            self.f_scores + other.f_scores,
            self.images + other.images,
        )

    @cached_property
    def trimap_miou(self) -> Floats:
        """mIoU in [0, 1] for each width, classes without a union in the band left out; NaN where the band is empty."""
        hits = self.trimap.diagonal(axis1=1, axis2=2)
        union = self.trimap.sum(1) + self.trimap.sum(2) - hits
        return ratio(np.nansum(ratio(hits, union), 1), (union > 0).sum(1))

    @cached_property
    def per_class_iou(self) -> Floats:
        """Boundary IoU in [0, 1] over the whole data set: its intersections' sum by its unions' sum; NaN without."""
        return ratio(self.shared, self.united)

    @cached_property
    def per_class_f(self) -> Floats:
        """Mean F-score in [0, 1] over the images in which the class has a contour; NaN where none has."""
        return ratio(self.f_scores, self.images)


def count_boundaries(
    truth: Labels,
    prediction: Labels,
    num_classes: int,
    *,
    widths: Sequence[int],
    region_share: float = REGION_SHARE,
    tolerance_share: float = TOLERANCE_SHARE,
) -> BoundaryCounts:
    """Counts one image.

    Of an ignored pixel nothing is known, so for Boundary IoU and the F-score the prediction is ignored there as the
    truth is. What touches such pixels has a contour there in both: where the truth's contour is hidden under void, as
    in VOC, a prediction may lay its own anywhere in the void, and a right one scores 1.

    Args:
        truth: H x W; values from num_classes up are ignored.
        prediction: H x W, 0 to num_classes - 1.
        widths: of the trimap, in pixels.
        region_share, tolerance_share: of the image's diagonal.
    """
    diagonal = float(np.hypot(*truth.shape))
    ignored = truth >= num_classes
    truth = np.where(ignored, np.uint8(IGNORE_INDEX), truth)
    trimap = trimap_counts(truth, prediction, num_classes, widths)
    prediction = np.where(ignored, np.uint8(IGNORE_INDEX), prediction)
    shared, united = region_counts(truth, prediction, num_classes, max(1, round(region_share * diagonal)))
    f_scores = contour_f_scores(truth, prediction, num_classes, tolerance_share * diagonal)
    return BoundaryCounts(trimap, shared, united, np.nan_to_num(f_scores), np.isfinite(f_scores).astype(np.int64))


def trimap_counts(truth: Labels, prediction: Labels, num_classes: int, widths: Sequence[int]) -> Counts:
    """W x K x K pixels within n pixels of void (255), itself left out, for each n of `widths`; row = truth.

    arXiv:1802.02611, section 4.4, says dilation. That of the authors' earlier evaluation (DeepLab v1,
    MyVOCevalsegBoundary.m) is by a square of 2n + 1: distance is the larger one of the rows' and the columns'.
    """
    order = np.argsort(widths, kind="stable")
    rings = np.zeros((len(widths), num_classes, num_classes), np.int64)
    void = truth == IGNORE_INDEX
    if len(widths) and void.any():
        distance = cv2.distanceTransform((~void).view(np.uint8), cv2.DIST_C, 3)
        band = np.flatnonzero((distance > 0) & (distance <= max(widths)))
        ring_at = np.searchsorted(np.asarray(widths)[order], np.arange(max(widths) + 1))
        cells = ring_at[distance.ravel()[band].astype(np.intp)]
        for labels in (truth, prediction):
            cells *= num_classes
            cells += labels.ravel()[band]
        rings = np.bincount(cells, minlength=rings.size).reshape(rings.shape)
    counts = np.empty_like(rings)
    counts[order] = rings.cumsum(0)
    return counts


def region_counts(truth: Labels, prediction: Labels, num_classes: int, distance: int) -> tuple[Counts, Counts]:
    """Pixels in both, and in either, of each class's true and predicted boundary regions (Boundary IoU).

    A class's boundary region is its mask without what is left of it after `distance` erosions by 3 x 3, outside the
    image being no class (arXiv:2103.16562; the authors' boundary-iou-api, mask_to_boundary).
    """
    of_truth, of_prediction = near_other(truth, distance, frame=True), near_other(prediction, distance, frame=True)
    both = of_truth & of_prediction & (truth == prediction)

    def count(labels: Labels, where: Mask) -> Counts:
        return np.bincount(labels[where], minlength=256)[:num_classes]

    shared = count(truth, both)
    return shared, count(truth, of_truth) + count(prediction, of_prediction) - shared


def near_other(labels: Labels, distance: int, *, frame: bool) -> Mask:
    """Which pixels have another value within `distance` rows and columns, or, with `frame`, the image's end.

    For all values at once, this is what erosion of each one's mask takes away: a pixel stays if its square of
    2 * distance + 1 is of one value, its lowest the same as its highest.
    """
    square = np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)
    near: Mask = cv2.erode(labels, square) != cv2.dilate(labels, square)
    if frame:
        near[:distance] = near[-distance:] = True
        near[:, :distance] = near[:, -distance:] = True
    return near


def contour_f_scores(truth: Labels, prediction: Labels, num_classes: int, tolerance: float) -> Floats:
    """Each class's F-score of contour pixels in [0, 1]; NaN where neither has a contour, 0 where one has none.

    Precision is the share of the predicted contour's pixels that have a pixel of the class's true contour within
    `tolerance` pixels (Euclidean), recall the reverse (Csurka et al., "What is a good evaluation measure for semantic
    segmentation?", BMVC 2013). A contour's pixels are the class's own that touch another's, by corners too; the
    image's end makes none.
    """
    scores = np.full(num_classes, np.nan)
    edges = [(labels, near_other(labels, 1, frame=False)) for labels in (truth, prediction)]
    present = np.bincount(np.concatenate([labels[edge] for labels, edge in edges]), minlength=256)
    for index in np.flatnonzero(present[:num_classes]):
        true, found = ((labels == index) & edge for labels, edge in edges)
        left, top, width, height = cv2.boundingRect((true | found).view(np.uint8))
        box = slice(top, top + height), slice(left, left + width)  # no match lies outside of it
        scores[index] = _f_score(true[box], found[box], tolerance)
    return scores


def _f_score(true: Mask, found: Mask, tolerance: float) -> float:
    """Of contours, H x W, not both empty."""
    recall = _share(true, _grown(found, tolerance))
    precision = _share(found, _grown(true, tolerance))
    return 2 * precision * recall / (precision + recall) if precision and recall else 0.0


def _grown(contour: Mask, tolerance: float) -> Mask:
    """All pixels within `tolerance`, Euclidean, of the contour's."""
    reach = int(tolerance)
    at = np.arange(-reach, reach + 1)
    disc = (np.hypot(at[:, None], at) <= tolerance).astype(np.uint8)
    return cv2.dilate(contour.view(np.uint8), disc).view(np.bool_)


def _share(contour: Mask, reached: Mask) -> float:
    """Share of the contour's pixels that are reached; 0 where there are none."""
    return int(np.count_nonzero(contour & reached)) / max(1, int(np.count_nonzero(contour)))
