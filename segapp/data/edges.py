"""Knows masks whose values were changed: blurred by resizing or anti-aliasing, or rung about by a JPEG."""

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.uint8]
MIN_VALUES = 4
"""Two labels, and two values between them: with fewer, a mask is not taken for changed."""
RINGING = 4
"""Values that nowhere fill 3 x 3 pixels, from which a mask is taken for one that a JPEG has changed."""
SHARE = 0.1
"""Of the pixels where one label meets another, at least as many have such values."""
BLOCK = 8
"""Side in pixels of the blocks that a JPEG computes: as far as an edge rings."""


def has_mixed_edges(label: Array) -> bool:
    """Whether values run along the edges (H x W) that nobody drew.

    A value is *thin* if it nowhere fills 3 x 3 pixels, and *mixed* if moreover nine in ten of its pixels have both a
    lower and a higher value within two pixels. A mask was resized smoothly, or drawn with anti-aliasing, if it has two
    mixed values or more. A JPEG has changed it if it has RINGING thin ones or more, which may lie above and below the
    labels, nine in ten of their pixels within a block of an edge. Either way with at least SHARE as many pixels as
    there are steps from one other label straight to another. So one thin class between two others (an outline class)
    is not taken for blur, nor are small objects, nor is blur seen between labels that differ by no more than 2.
    """
    if min(label.shape) < 3:  # where no value can fill 3 x 3
        return False
    three, five = np.ones((3, 3), np.uint8), np.ones((5, 5), np.uint8)
    pixels = np.bincount(label.ravel(), minlength=256)
    fills = np.zeros(256, bool)
    fills[label[cv2.erode(label, three) == cv2.dilate(label, three)]] = True
    thin = (pixels > 0) & ~fills
    between = label[(cv2.erode(label, five) < label) & (label < cv2.dilate(label, five))]
    mixed = thin & (np.bincount(between, minlength=256) >= 0.9 * pixels)
    if mixed.sum() >= 2 and _are_many(label, mixed):
        return True
    return thin.sum() >= RINGING and _are_many(label, thin) and _are_near_edges(label, thin)


def _are_many(label: Array, values: npt.NDArray[np.bool_]) -> bool:
    """Whether their pixels are SHARE or more of the steps straight from one other label to another."""
    straight = sum(
        np.count_nonzero((one != other) & ~values[one] & ~values[other])
        for one, other in ((label[1:], label[:-1]), (label[:, 1:], label[:, :-1]))
    )
    return bool(np.count_nonzero(values[label]) >= SHARE * straight)


def _are_near_edges(label: Array, values: npt.NDArray[np.bool_]) -> bool:
    """Whether nine in ten of their pixels have two other labels within a block."""
    theirs = values[label]
    block = np.ones((2 * BLOCK + 1, 2 * BLOCK + 1), np.uint8)
    lowest = cv2.erode(np.where(theirs, np.uint8(255), label), block)
    highest = cv2.dilate(np.where(theirs, np.uint8(0), label), block)
    return bool(np.count_nonzero(theirs & (lowest < highest)) >= 0.9 * np.count_nonzero(theirs))
