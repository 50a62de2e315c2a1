"""Measures of how well boundaries are met: the trimap curve, Boundary IoU and the boundary F-score.

All three are counted image by image, and the counts add up over a data set.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from segapp.base.classes import IGNORE_INDEX
from segapp.evaluation.additive import Additive
from segapp.evaluation.confusion import Counts, Floats, Labels, mean_iou, ratio

Mask = npt.NDArray[np.bool_]

REGION_SHARE = 0.02
"""Boundary IoU's d as a share of the image's diagonal (arXiv:2103.16562)."""
TOLERANCE_SHARE = 0.0075
"""The F-score's tolerance as a share of the image's diagonal (Csurka et al., BMVC 2013; MATLAB's bfscore)."""
STRIP_PIXELS = 1 << 21
"""An image is counted in strips of rows of about so many pixels; OpenCV's histograms count to 2^24."""


@dataclass(frozen=True)
class BoundaryCounts(Additive):
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

    @cached_property
    def trimap_miou(self) -> Floats:
        """mIoU in [0, 1] for each width, classes without a union in the band left out; NaN where the band is empty."""
        hits = self.trimap.diagonal(axis1=1, axis2=2)
        return mean_iou(np.stack([hits, self.trimap.sum(2), self.trimap.sum(1)], 1))

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
    ignored = -(truth >= num_classes).view(np.uint8)  # IGNORE_INDEX there, else 0
    truth = truth | ignored
    trimap = trimap_counts(truth, prediction, num_classes, widths)
    prediction = prediction | ignored
    shared, united = region_counts(truth, prediction, num_classes, max(1, round(region_share * diagonal)))
    f_scores = contour_f_scores(truth, prediction, num_classes, tolerance_share * diagonal)
    return BoundaryCounts(trimap, shared, united, np.nan_to_num(f_scores), np.isfinite(f_scores).astype(np.int64))


def trimap_counts(truth: Labels, prediction: Labels, num_classes: int, widths: Sequence[int]) -> Counts:
    """W x K x K pixels within n pixels of void (255), itself left out, for each n of `widths`; row = truth.

    arXiv:1802.02611, section 4.4, says dilation. That of the authors' earlier evaluation (DeepLab v1,
    MyVOCevalsegBoundary.m) is by a square of 2n + 1: distance is the larger one of the rows' and the columns'.
    """
    order = np.argsort(widths, kind="stable")
    counts = np.zeros((len(widths), num_classes, num_classes), np.int64)
    for outer, inner in strips(truth.shape, max(widths, default=0)):
        band = (truth[outer] == IGNORE_INDEX).view(np.uint8)
        if not len(widths) or not band.any():
            continue
        ring, reached = np.full(band.shape, len(widths), np.uint8), 0
        for width in np.asarray(widths)[order].tolist():
            band = cv2.dilate(band, _square(width - reached))
            ring -= band
            reached = width
        images = [ring[inner], truth[outer][inner], prediction[outer][inner]]
        counts[order] += _histogram(images, None, counts.shape).cumsum(0)
    return counts


def region_counts(truth: Labels, prediction: Labels, num_classes: int, distance: int) -> tuple[Counts, Counts]:
    """Pixels in both, and in either, of each class's true and predicted boundary regions (Boundary IoU).

    A class's boundary region is its mask without what is left of it after `distance` erosions by 3 x 3, outside the
    image being no class (arXiv:2103.16562; the authors' boundary-iou-api, mask_to_boundary).
    """
    counts = np.zeros((num_classes + 1, num_classes + 1), np.int64)  # the last for what lies in no region
    for outer, inner in strips(truth.shape, distance):
        regions = []
        for labels in (truth[outer], prediction[outer]):
            far = near_other(labels, distance, frame=True).view(np.uint8) - np.uint8(1)  # 255, and 0 in a region
            regions.append(np.minimum(labels | far, num_classes)[inner])
        anywhere = (np.minimum(*regions) < num_classes).view(np.uint8)
        counts += _histogram(regions, anywhere, counts.shape)
    shared = counts.diagonal()[:num_classes]
    return shared, (counts.sum(0) + counts.sum(1))[:num_classes] - shared


def near_other(labels: Labels, distance: int, *, frame: bool) -> Mask:
    """Which pixels have another value within `distance` rows and columns, or, with `frame`, the image's end.

    For all values but 255 at once, this is what erosion of each one's mask takes away: a pixel stays if its square of
    2 * distance + 1 is of one value, its lowest the same as its highest.
    """
    square = _square(distance)
    outside = IGNORE_INDEX if frame else 0  # as the highest value, which 0 does not change
    highest = cv2.dilate(labels, square, borderType=cv2.BORDER_CONSTANT, borderValue=outside)
    near: Mask = cv2.erode(labels, square) != highest
    return near


def contour_f_scores(truth: Labels, prediction: Labels, num_classes: int, tolerance: float) -> Floats:
    """Each class's F-score of contour pixels in [0, 1]; NaN where neither has a contour, 0 where one has none.

    Precision is the share of the predicted contour's pixels that have a pixel of the class's true contour within
    `tolerance` pixels (Euclidean), recall the reverse (Csurka et al., "What is a good evaluation measure for semantic
    segmentation?", BMVC 2013). A contour's pixels are the class's own that touch another's, by corners too; the
    image's end makes none.
    """
    pixels, met = np.zeros((2, 2, 256), np.int64)  # of the true and of the predicted contours
    for outer, inner in strips(truth.shape, int(tolerance) + 1):
        pair = truth[outer], prediction[outer]
        shape, sides = pair[0].shape, (0, 1)
        positions = [np.flatnonzero(near_other(labels, 1, frame=False)) for labels in pair]
        values = [labels.ravel()[at] for labels, at in zip(pair, positions, strict=True)]
        present = [np.bincount(each, minlength=256)[:num_classes] > 0 for each in values]
        hits = [np.zeros(at.shape, np.bool_) for at in positions]
        classes = np.flatnonzero(present[0] & present[1])
        for some in np.split(classes, range(8, len(classes), 8)):  # eight at a time, a bit each
            bits = np.zeros(256, np.uint8)
            bits[some] = 1 << np.arange(len(some))
            for side, other in (sides, sides[::-1]):
                contours = np.zeros(shape, np.uint8)
                contours.ravel()[positions[other]] = bits[values[other]]
                near = _grown(contours, tolerance).ravel()[positions[side]]
                hits[side] |= (near & bits[values[side]]) > 0
        for side in sides:
            inside = positions[side] // shape[1]
            inside = (inner.start <= inside) & (inside < inner.stop)
            pixels[side] += np.bincount(values[side][inside], minlength=256)
            met[side] += np.bincount(values[side][inside & hits[side]], minlength=256)
    recall, precision = np.nan_to_num(ratio(met, pixels))
    scores = np.where(pixels.any(0), np.nan_to_num(ratio(2 * precision * recall, precision + recall)), np.nan)
    return scores[:num_classes]


def _grown(bits: Labels, tolerance: float) -> Labels:
    """At each pixel the bits of all that lie within `tolerance`, Euclidean: a disc, row by row of it."""
    at = np.arange(int(tolerance) + 1)
    halves = np.count_nonzero(np.hypot(at[:, None], at) <= tolerance, 1) - 1  # of the disc's rows
    wide, grown, half = bits.copy(), np.zeros_like(bits), 0
    for row in range(min(len(at), len(bits)) - 1, -1, -1):
        for shift in range(half + 1, halves[row] + 1):
            wide[:, shift:] |= bits[:, :-shift]
            wide[:, :-shift] |= bits[:, shift:]
        half = halves[row]
        grown[row:] |= wide[: len(wide) - row]
        grown[: len(wide) - row] |= wide[row:]
    return grown


def strips(shape: tuple[int, ...], reach: int) -> Iterator[tuple[slice, slice]]:
    """An image's rows with `reach` more on either side, where there are, and the strip's own among these."""
    step = max(1, STRIP_PIXELS // shape[1])
    for top in range(0, shape[0], step):
        first = max(0, top - reach)
        yield slice(first, top + step + reach), slice(top - first, top - first + step)


def _square(distance: int) -> Labels:
    return np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)


def _histogram(images: Sequence[Labels], where: Labels | None, shape: tuple[int, ...]) -> Counts:
    """Pixels by their values in each image; values beyond the shape are not counted."""
    ranges = [end for length in shape for end in (0, length)]
    return cv2.calcHist(images, list(range(len(shape))), where, list(shape), ranges).astype(np.int64).reshape(shape)
