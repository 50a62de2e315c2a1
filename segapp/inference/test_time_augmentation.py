"""Several scales of an image and their mirror images, whose class probabilities are averaged."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from segapp.inference.arrays import softmax


class Variant(NamedTuple):
    """One of what is computed of a canvas: the canvas resized by `scale`, or the mirror image of that."""

    scale: float
    mirrored: bool


class TestTimeAugmentation(NamedTuple):
    """The variants whose class probabilities are averaged: every scale and, with `flip`, its mirror image."""

    scales: tuple[float, ...]
    flip: bool

    @property
    def variants(self) -> list[Variant]:
        """In one order, whatever that of the scales is: sums of floats depend on it."""
        return [
            Variant(scale, mirrored) for scale in sorted(self.scales) for mirrored in (False, True)[: 1 + self.flip]
        ]

    def describe(self) -> str:
        single = self.scales == (1,)
        numbers = ", ".join(str(float(scale)).removesuffix(".0") for scale in sorted(self.scales))
        scales = "single scale" if single else f"scale{'s' if len(self.scales) > 1 else ''} {numbers}"
        return f"{scales} and the mirror image" if self.flip else scales


def mean_probabilities(logits: Iterable[Any]) -> Any:
    """The mean of the softmax of each variant's logits, 1 x K x H x W; one after the other, so that few are held."""
    variants = iter(logits)
    total, number = softmax(next(variants)), 1
    for each in variants:
        total += softmax(each)
        number += 1
    total /= number
    return total
