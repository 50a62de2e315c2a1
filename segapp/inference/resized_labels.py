"""The labels of resized class scores, without most of those scores."""

import numpy as np
import numpy.typing as npt

from segapp.inference.arrays import Size, best

PIXELS = 1 << 16
"""So many are computed at once, which a processor's cache holds."""


def labels_of_resized(
    scores: npt.NDArray[np.float32], size: Size, rows: slice, *, first: int = 0, height: int | None = None
) -> npt.NDArray[np.uint8]:
    """The classes with the highest scores of `resize_rows`, whose arguments these are, rows x W.

    Each resized score is a mean of four. A class that is highest in all four is so in every mean of them: scores are
    computed only of the pixels between places that differ, and of the classes that may be highest there.
    """
    down = _places(size[0], height or scores.shape[2])[rows] - first
    top = int(down[0])
    down -= top
    planes = np.ascontiguousarray(scores[0, :, top : top + int(down[-1]) + 2])
    labels: npt.NDArray[np.uint8] = best(planes)[1]
    across = _places(size[1], labels.shape[1])
    upper, left = down.astype(np.int64), across.astype(np.int64)
    result: npt.NDArray[np.uint8] = labels[upper].take(left, 1)

    below, right = (np.minimum(np.arange(1, length + 1), length - 1) for length in labels.shape)
    lower = labels[below]
    mixed = (labels != lower) | (labels != labels[:, right]) | (labels != lower[:, right])
    pixels = np.flatnonzero(mixed[upper].take(left, 1))
    if not pixels.size:
        return result

    candidates = _candidates(planes, mixed, below, right)
    planes = planes[candidates].reshape(len(candidates), -1)
    width = labels.shape[1]
    starts, starts_below = upper * width, below[upper] * width
    downwards, sidewards = (down - upper).astype(np.float32), (across - left).astype(np.float32)
    flat = result.reshape(-1)
    for begin in range(0, len(pixels), PIXELS):
        part = pixels[begin : begin + PIXELS]
        row, column = np.divmod(part, size[1])
        at = [start[row] + side[column] for start in (starts, starts_below) for side in (left, right[left])]
        values = np.empty((len(candidates), len(part)), planes.dtype)
        for plane, value in zip(planes, values, strict=True):
            upper_left, upper_right, lower_left, lower_right = (plane[each] for each in at)
            upper_left += (lower_left - upper_left) * downwards[row]
            upper_right += (lower_right - upper_right) * downwards[row]
            np.add(upper_left, (upper_right - upper_left) * sidewards[column], out=value)
        flat[part] = candidates[best(values)[1]]
    return result


def _places(length: int, source: int) -> npt.NDArray[np.float64]:
    """Where each pixel of a side lies on its source's, align_corners=True."""
    return np.arange(length, dtype=np.float64) * ((source - 1) / max(1, length - 1))


def _candidates(
    planes: npt.NDArray[np.float32],
    mixed: npt.NDArray[np.bool_],
    below: npt.NDArray[np.int64],
    right: npt.NDArray[np.int64],
) -> npt.NDArray[np.uint8]:
    """Classes that may be highest between places that differ: no other's lowest there is above their highest."""
    row, column = np.nonzero(mixed)
    corners = np.stack([planes[:, y, x] for y in (row, below[row]) for x in (column, right[column])])
    lowest = corners.min(0).max(0)
    beaten = (corners.max(0) < lowest).all(1)
    return np.flatnonzero(~beaten).astype(np.uint8)
