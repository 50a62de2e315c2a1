"""Two runtimes of one network on the same images: do their logits and labels agree?"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch

from segapp.inference.preprocess import Array, fitted, padded
from segapp.models.layers import resize
from segapp.runtimes.interface import Runtime


class Agreement(NamedTuple):
    """Over all images.

    `difference`: the largest of two logits, in parts of the largest logit. `changed`: the share of pixels whose label
    is another.
    """

    difference: float
    changed: float


def agreement(original: Runtime, other: Runtime, images: Iterable[Array], canvas: int | None) -> Agreement:
    """Of `other` with `original`; both on the CPU.

    Args:
        images: H x W x 3 uint8 RGB, at least one.
        canvas: side in pixels, to which they are padded, or scaled where they are larger; None: each as it is.
    """
    difference, largest, changed, pixels = 0.0, 0.0, 0, 0
    for image in images:
        batch, (height, width) = shown(original, image, canvas)
        with torch.inference_mode():
            ours, theirs = original(batch), other(batch)
            difference = max(difference, _largest(theirs - ours))
            largest = max(largest, _largest(ours))
            size = batch.shape[2], batch.shape[3]
            labels = [resize(each, size)[0, :, :height, :width].argmax(0) for each in (ours, theirs)]
        changed += int((labels[0] != labels[1]).sum())
        pixels += height * width
    return Agreement(difference / largest if largest else difference, changed / pixels)


def shown(runtime: Runtime, image: Array, canvas: int | None) -> tuple[torch.Tensor, tuple[int, int]]:
    """What the network is given of an image, 1 x 3 x H x W normalised, and the image's height and width in it."""
    stride = runtime.spec.output_stride
    height, width = (canvas or -(-(side - 1) // stride) * stride + 1 for side in image.shape[:2])
    content = fitted(image, (height, width))
    batch = padded([content], (height, width), runtime.spec.normalization, torch.device("cpu"))
    return batch, (content.shape[0], content.shape[1])


def noise(side: int, number: int = 2) -> list[Array]:
    """Images of random pixels: the first of `side`, each further one narrower."""
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (side, max(1, side - at * side // 3), 3), np.uint8) for at in range(number)]


def _largest(values: torch.Tensor) -> float:
    """Infinite where one is no number."""
    return float(values.abs().nan_to_num(torch.inf).max())
