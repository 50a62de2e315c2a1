"""From a network's small logits to class scores at an image's size, in strips of rows: never all of them at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from segapp.inference.arrays import Size, contiguous, resize, warped
from segapp.inference.resized_labels import labels_of_resized
from segapp.inference.test_time_augmentation import mean_probabilities

STRIP_PIXELS = 1 << 20
"""Class scores are brought to the image's size in strips of rows of about so many pixels."""


@dataclass(frozen=True)
class Geometry:
    """An image of `size` lies at the top left of `canvas`, scaled to `content`, which is often its own size."""

    canvas: Size
    content: Size
    size: Size

    def scores(self, logits: Sequence[Any], *, probabilities: bool) -> Iterator[tuple[slice, Any]]:
        """The image's class scores: the mean of the softmax of all logits, or the logits, if they are one variant's.

        Args:
            logits: of each variant of the canvas, 1 x K x h x w.
            probabilities: softmax those of a single variant, too.

        Yields:
            Rows of the image, and their scores, 1 x K x rows x W.
        """
        for rows in self._strips():
            strips = (resize_rows(**self._last_resize(each, rows))[:, :, :, : self.size[1]] for each in logits)
            yield rows, mean_probabilities(strips) if probabilities or len(logits) > 1 else next(strips)

    def labels(self, logits: npt.NDArray[np.float32]) -> Iterator[tuple[slice, npt.NDArray[np.uint8]]]:
        """In a tenth of the time the classes with the highest `scores` of one variant, 1 x K x h x w.

        Where two scores are within rounding of each other, it may be the other one's.

        Yields:
            Rows of the image, and their labels, rows x W.
        """
        for rows in self._strips():
            yield rows, labels_of_resized(**self._last_resize(logits, rows))[:, : self.size[1]]

    def _strips(self) -> Iterator[slice]:
        height, width = self.size
        step = max(1, STRIP_PIXELS // (self.canvas[1] if self.content == self.size else width))
        return (slice(top, min(top + step, height)) for top in range(0, height, step))

    def _last_resize(self, logits: Any, rows: slice) -> dict[str, Any]:
        """What `resize_rows` is to do: to the canvas or, if the image was scaled to its content, from there to it."""
        if self.content == self.size:
            scores, size = self._needed(logits)
            return {"scores": scores, "size": size, "rows": rows}
        height, width = self.content
        ratio = (height - 1) / max(1, self.size[0] - 1)
        first = max(0, int(rows.start * ratio) - 1)  # a row to spare on either side, for rounding
        last = min(height, int((rows.stop - 1) * ratio) + 3)
        content = resize_rows(logits, self.canvas, slice(first, last))[:, :, :, :width]
        return {"scores": content, "size": self.size, "rows": rows, "first": first, "height": height}

    def _needed(self, logits: Any) -> tuple[Any, Size]:
        """The logits without the canvas's empty part, and what they are resized to: the canvas and all of them, if
        their places do not lie a whole number of pixels apart, by which alone each value stays as it was."""
        sides = list(zip(logits.shape[2:], self.canvas, self.size, strict=True))
        if any(places < 2 or (canvas - 1) % (places - 1) for places, canvas, _ in sides):
            return logits, self.canvas
        strides = [(canvas - 1) // (places - 1) for places, canvas, _ in sides]
        last = [max(1, -(-(size - 1) // stride)) for stride, (_, _, size) in zip(strides, sides, strict=True)]
        height, width = (at * stride + 1 for at, stride in zip(last, strides, strict=True))
        return contiguous(logits[:, :, : last[0] + 1, : last[1] + 1], logits), (height, width)


def resize_rows(scores: Any, size: Size, rows: slice, *, first: int = 0, height: int | None = None) -> Any:
    """Some rows of the bilinear resize with align_corners=True of scores to `size`.

    Args:
        scores: 1 x K x h x w; a part of the rows will do if it holds all that `rows` are made of.
        size: H, W.
        rows: of H.
        first: where the part begins.
        height: of the whole; None for that of `scores`.
    """
    height = height or scores.shape[2]
    if isinstance(scores, np.ndarray):
        return warped(scores, size, rows, first=first, height=height)
    if size[0] * size[1] <= STRIP_PIXELS and scores.shape[2] == height:
        return resize(scores, size)[:, :, rows]
    import torch

    at = torch.linspace(0, height - 1, size[0], device=scores.device)[rows]
    upper = at.floor().long()
    lower = at.ceil().long()
    mixed = torch.lerp(scores[:, :, upper - first], scores[:, :, lower - first], (at - upper)[:, None])
    return resize(mixed, (mixed.shape[2], size[1]))
