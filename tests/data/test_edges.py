"""Masks with mixed edges are known, and clean ones not taken for them."""

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from segapp.data.edges import has_mixed_edges
from tests.data.checks.samples import Array


def disc(low: int, high: int, side: int = 120) -> Array:
    """A disc of one label on another, without anti-aliasing."""
    image = Image.new("L", (side, side), low)
    ImageDraw.Draw(image).ellipse((side * 0.2, side * 0.2, side * 0.75, side * 0.7), fill=high)
    return np.array(image)


def resized(mask: Array, scale: float, interpolation: int) -> Array:
    return np.asarray(cv2.resize(mask, None, fx=scale, fy=scale, interpolation=interpolation), np.uint8)


@pytest.mark.parametrize("labels", [(0, 15), (15, 0), (0, 5), (3, 200), (0, 255), (0, 4)])
@pytest.mark.parametrize("scale", [0.4, 0.77, 1.3, 2.0, 3.0])
def test_blurred_masks_are_known(labels: tuple[int, int], scale: float) -> None:
    mask = disc(*labels)
    assert has_mixed_edges(resized(mask, scale, cv2.INTER_LINEAR))
    assert not has_mixed_edges(mask)
    assert not has_mixed_edges(resized(mask, scale, cv2.INTER_NEAREST))


def test_blur_is_known_among_many_labels_and_in_part_of_a_mask() -> None:
    drawn = np.concatenate([np.concatenate([disc(0, a), disc(0, b)], 1) for a, b in ((7, 12), (3, 20))])
    assert not has_mixed_edges(drawn)
    assert has_mixed_edges(resized(drawn, 0.7, cv2.INTER_AREA))
    drawn[:120] = resized(resized(drawn[:120], 0.5, cv2.INTER_NEAREST), 2, cv2.INTER_LINEAR)
    assert has_mixed_edges(drawn)


def outlined(object_: int, void: int) -> Array:
    """VOC's manner: an object in a contour of void five pixels wide."""
    mask = disc(0, object_)
    contour = cv2.dilate(mask, np.ones((3, 3))) - cv2.erode(mask, np.ones((3, 3)))
    return np.where(cv2.dilate(np.asarray(contour), np.ones((3, 3))) > 0, void, mask).astype(np.uint8)


def specks() -> Array:
    """Twelve labels in single pixels and thin lines, all over: small objects, not blur."""
    mask = disc(0, 30)
    rng = np.random.default_rng(0)
    for value in range(1, 13):
        for y, x in rng.integers(0, 118, (4, 2)):
            mask[y, x : x + 3] = value
    return mask


@pytest.mark.parametrize(
    "mask",
    [
        np.zeros((40, 40), np.uint8),
        np.full((40, 40), 255, np.uint8),
        np.arange(256, dtype=np.uint8).repeat(3 * 20).reshape(-1, 20),  # each value three rows high
        np.kron(np.arange(21, dtype=np.uint8).reshape(3, 7), np.ones((8, 8), np.uint8)),
        outlined(15, 255),
        np.where(outlined(9, 255) == 255, 1, outlined(9, 255)).astype(np.uint8),  # one outline class, between two
        specks(),
        np.zeros((1, 1), np.uint8),
        np.array([[0, 3, 9]], np.uint8),
    ],
)
def test_clean_masks_are_not_taken_for_blurred(mask: Array) -> None:
    assert not has_mixed_edges(mask)
