"""A train and a val set that are sound, to be damaged."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from segapp.data.checks.audit import Audit, audit
from segapp.data.dataset import SegmentationDataset
from segapp.data.packed_strings import PackedStrings

Array = npt.NDArray[np.uint8]


CLASSES = ("background", "cat", "dog")
HEIGHT, WIDTH = 30, 40


def a_mask() -> Array:
    """20 rows of 0 over 5 of 1 over 5 of 2, a void column at the left."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[20:25] = 1
    mask[25:] = 2
    mask[:, 0] = 255
    return mask


class Pair:
    """A train set of 6 images and a val set of 3, all different and all sound."""

    def __init__(self, root: Path) -> None:
        self.root = root
        rng = np.random.default_rng(0)
        for id in (*(f"t{index}" for index in range(6)), *(f"v{index}" for index in range(3))):
            self.write_image(id, rng.integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8))
            self.write_mask(id, a_mask())

    def image(self, id: str) -> Path:
        return self.root / f"{id}.jpg"

    def mask(self, id: str) -> Path:
        return self.root / f"{id}_mask.png"

    def write_image(self, id: str, pixels: Array, **options: Any) -> None:
        Image.fromarray(pixels).save(self.image(id), "png", **options)  # whatever the suffix: pixels must stay

    def write_mask(self, id: str, values: Array) -> None:
        Image.fromarray(values).save(self.mask(id))

    def dataset(self, role: str, ids: list[str] | None = None) -> SegmentationDataset:
        ids = ids or [f"{role[0]}{index}" for index in range(6 if role == "train" else 3)]
        images, masks = [self.image(id) for id in ids], [self.mask(id) for id in ids]
        return SegmentationDataset(f"test {role}", CLASSES, PackedStrings(ids), images, masks)

    def audit(self, train: list[str] | None = None) -> Audit:
        return audit(self.dataset("train", train), self.dataset("val"))
