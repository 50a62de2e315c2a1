"""Makes crops of images and labels for training: albumentations lists from YAML, and the paper's own step."""

import math
import os
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, Any

os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"  # read at import: no look-up of newer versions

import albumentations as A
import cv2
import numpy as np
import numpy.typing as npt
from albumentations.core.type_definitions import Targets
from pydantic import Field

from segapp.base.config import Config
from segapp.base.errors import UserError

Array = npt.NDArray[np.uint8]
Into = tuple[Array | None, Array | None]
"""Places for a crop's image and label."""


class TransformConfig(Config):
    """`train`: steps in order, each {name: {argument: value}}; see conf/transform."""

    crop: int = Field(gt=0, le=4097)
    train: list[dict[str, dict[str, Any] | None]]


class ScaleCropFlip(A.DualTransform):  # type: ignore[misc]
    """Scales the image by one of `scales`, pads it at bottom and right, crops at random and flips, all in one.

    The result is that of the steps in this order on the whole image, but only what the crop shows is resized (see
    `part_to_resize`): bilinear, within one grey level; labels by the nearest pixel, equal.

    Who has a place for the crop may call with `into=(image, label)` besides: arrays that it is written to if they are
    of its shape and type.

    Args:
        scales: one of which is drawn for each image.
        height, width: of the crop, in pixels.
        p_flip: the probability of the horizontal flip.
        fill, fill_mask: the values of padding.
    """

    _targets = (Targets.IMAGE, Targets.MASK)

    class InitSchema(A.DualTransform.InitSchema):  # type: ignore[misc]
        scales: list[Annotated[float, Field(gt=0, allow_inf_nan=False)]] = Field(min_length=1)
        height: int = Field(gt=0)
        width: int = Field(gt=0)
        p_flip: float = Field(ge=0, le=1)
        fill: int = Field(ge=0, le=255)
        fill_mask: int = Field(ge=0, le=255)

    def __init__(
        self,
        scales: Sequence[float],
        height: int,
        width: int,
        p_flip: float = 0.5,
        fill: int = 128,
        fill_mask: int = 255,
        p: float = 1,
    ) -> None:
        super().__init__(p=p)
        self.scales = scales
        self.height = height
        self.width = width
        self.p_flip = p_flip
        self.fill = fill
        self.fill_mask = fill_mask

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        scale = self.py_random.choice(self.scales)
        height, width = (max(1, round(length * scale)) for length in params["shape"][:2])
        return {
            "size": (height, width),
            "top": self.py_random.randint(0, max(0, height - self.height)),
            "left": self.py_random.randint(0, max(0, width - self.width)),
            "flip": self.py_random.random() < self.p_flip,
            "into": data.pop("into", (None, None)),  # taken out: another such step would write to what it reads
        }

    def apply(
        self, img: Array, size: tuple[int, int], top: int, left: int, flip: bool, into: Into, **params: Any
    ) -> Array:
        (height, width), (bottom, right) = img.shape[:2], self._end(size, top, left)
        rows, above = part_to_resize(height, size[0], top, bottom)
        columns, before = part_to_resize(width, size[1], left, right)
        part = img[rows, columns]
        if size != (height, width):
            part = cv2.resize(part, None, fx=size[1] / width, fy=size[0] / height, interpolation=cv2.INTER_LINEAR)  # type: ignore[assignment]
        part = part[above : above + bottom - top, before : before + right - left]
        return self._flip_and_pad(part, flip, self.fill, into[0])

    def apply_to_mask(
        self, mask: Array, size: tuple[int, int], top: int, left: int, flip: bool, into: Into, **params: Any
    ) -> Array:
        bottom, right = self._end(size, top, left)
        rows = nearest(mask.shape[0], size[0])[top:bottom]
        columns = nearest(mask.shape[1], size[1])[left:right]
        part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        # Whole rows are taken far quicker than single pixels.
        part = cv2.transpose(cv2.transpose(part).take(columns - columns[0], 0)).take(rows - rows[0], 0)
        return self._flip_and_pad(part, flip, self.fill_mask, into[1])

    def _end(self, size: tuple[int, int], top: int, left: int) -> tuple[int, int]:
        """Where in the scaled image the crop ends: (bottom, right)."""
        return min(size[0], top + self.height), min(size[1], left + self.width)

    def _flip_and_pad(self, part: Array, flip: bool, fill: int, into: Array | None) -> Array:
        """The crop, which is `into` where that fits."""
        shape = (self.height, self.width, *part.shape[2:])
        fits = into is not None and (into.shape, into.dtype) == (shape, part.dtype)
        crop = into if into is not None and fits else np.empty(shape, part.dtype)
        height, width = part.shape[:2]
        if (height, width) != shape[:2]:
            crop.fill(fill)
        if flip:
            cv2.flip(part, 1, dst=crop[:height, self.width - width :])
        else:
            crop[:height, :width] = part
        return crop


def part_to_resize(length: int, scaled: int, start: int, stop: int) -> tuple[slice, int]:
    """What of one axis must be resized by scaled / length to get pixels `start` to `stop` of the whole's result.

    `cv2.resize` reads pixel x at (x + 0.5) * length / scaled - 0.5, so a part gives the same as the whole where it
    begins at an x whose x * length / scaled is an integer: at a multiple of scaled / gcd(length, scaled). With the
    paper's scales that is at most 8 where the length is a multiple of 4; at worst, it is the axis' own beginning.

    Returns:
        The part, and the number of its resized pixels that come before `start`.
    """
    period = scaled // math.gcd(length, scaled)
    outside = max(0, -((length - scaled) // (2 * length)))  # so many pixels read left of the part's first one
    first = max(0, start - outside) // period * period
    begin = first * length // scaled
    end = min(-(-stop * length // scaled) + 2, length)  # the last one's right neighbour, and one more
    if scaled != length and round((end - begin) * (scaled / length)) == end - begin:
        return slice(0, length), start  # where the size stays the same, OpenCV only copies
    return slice(begin, end), start - first


@lru_cache(maxsize=2048)
def nearest(length: int, scaled: int) -> npt.NDArray[np.int64]:
    """The pixel whose centre is nearest, for each of `scaled` ones, as OpenCV chooses it."""
    pixels = np.arange(length, dtype=np.float32)[None]
    chosen = cv2.resize(pixels, (scaled, 1), interpolation=cv2.INTER_NEAREST_EXACT)  # INTER_NEAREST: half a pixel off
    indices = np.asarray(chosen[0], np.int64)
    indices.flags.writeable = False
    return indices


OWN = {"ScaleCropFlip": ScaleCropFlip}


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
