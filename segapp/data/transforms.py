"""Training transforms: albumentations lists from YAML."""

import os
import warnings
from collections.abc import Sequence
from typing import Any

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # read at import: no look-up of newer versions

import albumentations as A
import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from segapp.config import Config
from segapp.errors import UserError

Array = npt.NDArray[np.uint8]


class TransformConfig(Config):
    """`train`: steps in order, each {name: {argument: value}}; see conf/transform."""

    crop: int = Field(gt=0, le=4097)
    train: list[dict[str, dict[str, Any] | None]]


class RandomDiscreteScale(A.DualTransform):  # type: ignore[misc]
    """Scales the whole image by one of `scales`: bilinear, labels by the nearest pixel."""

    class InitSchema(A.DualTransform.InitSchema):  # type: ignore[misc]
        scales: Sequence[float] = Field(min_length=1)

    def __init__(self, scales: Sequence[float], p: float = 1) -> None:
        super().__init__(p=p)
        self.scales = scales

    def get_params(self) -> dict[str, Any]:
        return {"scale": self.py_random.choice(self.scales)}

    def apply(self, img: Array, scale: float, **params: Any) -> Array:
        return self._resize(img, scale, cv2.INTER_LINEAR)

    def apply_to_mask(self, mask: Array, scale: float, **params: Any) -> Array:
        return self._resize(mask, scale, cv2.INTER_NEAREST_EXACT)  # the plain INTER_NEAREST is half a pixel off

    @staticmethod
    def _resize(array: Array, scale: float, interpolation: int) -> Array:
        height, width = (max(1, round(length * scale)) for length in array.shape[:2])
        if (height, width) == array.shape[:2]:
            return array
        return cv2.resize(array, (width, height), interpolation=interpolation)  # type: ignore[return-value]


OWN = {"RandomDiscreteScale": RandomDiscreteScale}


def build_transform(steps: Sequence[dict[str, dict[str, Any] | None]]) -> A.Compose:
    """The transform of `image` (H x W x 3 uint8) and `mask` (H x W uint8) that a YAML list describes.

    Raises:
        UserError: a name that neither albumentations nor this file has, or an argument it does not take.
    """
    transforms = []
    for step in steps:
        if len(step) != 1:
            raise UserError(f"transform.train: one name a step is expected, not {', '.join(step) or 'none'}")
        ((name, arguments),) = step.items()
        kind = OWN.get(name) or getattr(A, name, None)
        if not (isinstance(kind, type) and issubclass(kind, A.BasicTransform)):
            raise UserError(f"transform.train: {name} is no transform of albumentations, nor one of {', '.join(OWN)}")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # albumentations only warns of an unknown argument
                transforms.append(kind(**(arguments or {})))
        except (ValueError, TypeError, UserWarning) as error:
            raise UserError(f"transform.train: {name}: {' '.join(str(error).split())}") from None
    return A.Compose(transforms)
