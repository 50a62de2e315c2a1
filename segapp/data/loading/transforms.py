"""Makes crops of images and labels for training: albumentations lists from YAML, and the papers' own steps."""

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

    As research/deeplab does (core/preprocess_utils.py, input_preprocess.py): the scaled size is rounded down, both
    resizes have aligned corners, labels that of the nearest pixel. Google's images are then floats; these are the
    nearest grey levels, or one beside.

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
        height, width = (max(1, int(np.float32(length) * np.float32(scale))) for length in params["shape"][:2])
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
        bottom, right = self._end(size, top, left)
        crop, part = self._place(img, (bottom - top, right - left), flip, self.fill, into[0])
        if size == img.shape[:2]:
            part[:] = cv2.flip(img[top:bottom, left:right], 1) if flip else img[top:bottom, left:right]
        else:
            resize_into(part, img, size, top, left, flip=flip)
        return crop

    def apply_to_mask(
        self, mask: Array, size: tuple[int, int], top: int, left: int, flip: bool, into: Into, **params: Any
    ) -> Array:
        bottom, right = self._end(size, top, left)
        rows = nearest(mask.shape[0], size[0])[top:bottom]
        columns = nearest(mask.shape[1], size[1])[left:right]
        part = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        # Whole rows are taken far quicker than single pixels.
        columns = (columns[::-1] if flip else columns) - columns[0]
        labels = cv2.transpose(cv2.transpose(part).take(columns, 0))
        crop, part = self._place(mask, (len(rows), len(columns)), flip, self.fill_mask, into[1])
        part[:] = labels.take(rows - rows[0], 0)
        return crop

    def _end(self, size: tuple[int, int], top: int, left: int) -> tuple[int, int]:
        """Where in the scaled image the crop ends: (bottom, right)."""
        return min(size[0], top + self.height), min(size[1], left + self.width)

    def _place(
        self, of: Array, size: tuple[int, int], flip: bool, fill: int, into: Array | None
    ) -> tuple[Array, Array]:
        """The crop, padded, which is `into` where that fits; and in it the place of `size` for what is seen."""
        shape = (self.height, self.width, *of.shape[2:])
        fits = into is not None and (into.shape, into.dtype) == (shape, of.dtype)
        crop = into if into is not None and fits else np.empty(shape, of.dtype)
        height, width = size
        if size != shape[:2]:
            crop.fill(fill)
        return crop, crop[:height, self.width - width :] if flip else crop[:height, :width]


class BrightnessSaturation(A.ImageOnlyTransform):  # type: ignore[misc]
    """Changes an image's brightness and saturation, in either order: distort_color of
    research/slim/preprocessing/inception_preprocessing.py in its fast mode, which Inception's classifiers had.

    As there, values are clipped once both are done.

    Args:
        brightness: as many grey levels at most are added or taken away.
        saturation: bounds of its factor.
    """

    class InitSchema(A.ImageOnlyTransform.InitSchema):  # type: ignore[misc]
        brightness: float = Field(ge=0, le=255)
        saturation: tuple[Annotated[float, Field(ge=0)], Annotated[float, Field(ge=0)]]

    def __init__(self, brightness: float = 32, saturation: Sequence[float] = (0.5, 1.5), p: float = 1) -> None:
        super().__init__(p=p)
        self.brightness = brightness
        self.saturation = saturation

    def get_params(self) -> dict[str, Any]:
        return {
            "delta": self.py_random.uniform(-self.brightness, self.brightness),
            "factor": self.py_random.uniform(*self.saturation),
            "brightness_first": self.py_random.random() < 0.5,
        }

    def apply(self, img: Array, delta: float, factor: float, brightness_first: bool, **params: Any) -> Array:
        pixels = img.astype(np.float32)
        if brightness_first:
            pixels = saturated(pixels + np.float32(delta), factor)
        else:
            pixels = saturated(pixels, factor) + np.float32(delta)
        return np.asarray(np.rint(pixels.clip(0, 255)), np.uint8)


def saturated(pixels: npt.NDArray[np.float32], factor: float) -> npt.NDArray[np.float32]:
    """With `factor` times the saturation of HSV, but at most all of it: H x W x 3, of any range above 0.

    The greatest channel, the value, stays; the others' distances to it, which are saturation times value, are scaled.
    """
    value, low = pixels.max(2, keepdims=True), pixels.min(2, keepdims=True)
    spread = value - low
    most = np.divide(value, spread, out=np.full_like(spread, factor), where=(spread > 0) & (value > 0))
    return np.asarray(value - (value - pixels) * np.minimum(np.float32(factor), most), np.float32)


@lru_cache(maxsize=2048)
def nearest(length: int, scaled: int) -> npt.NDArray[np.int64]:
    """The nearest pixel for each of `scaled` ones with aligned corners, halves upwards.

    In float32, as tensorflow/core/kernels/image/resize_nearest_neighbor_op.cc computes it.
    """
    step = np.float32(length - 1) / np.float32(max(1, scaled - 1))
    positions = np.arange(scaled, dtype=np.float32) * step
    indices: npt.NDArray[np.int64] = np.minimum(np.floor(positions + np.float32(0.5)), length - 1).astype(np.int64)
    indices.flags.writeable = False
    return indices


def resize_into(
    part: npt.NDArray[Any], image: npt.NDArray[Any], size: tuple[int, int], top: int, left: int, *, flip: bool
) -> None:
    """Writes to `part`, h x w x C, what lies at `top` and `left` of the bilinear resize of H x W x C to `size`.

    With aligned corners, which OpenCV's resize has not; its affine transform is exact from version 5 on, of 1, 3 or 4
    channels.
    """
    height, width = part.shape[:2]
    first, last, down = _source(image.shape[0], size[0], top, height)
    begin, end, across = _source(image.shape[1], size[1], left, width)
    columns = (-across, (left + width - 1) * across - begin) if flip else (across, left * across - begin)
    source, is_rgb = image[first:last, begin:end], image.shape[2:] == (3,)
    warped = cv2.warpAffine(
        cv2.cvtColor(source, cv2.COLOR_RGB2RGBA) if is_rgb else source,  # of four channels: more than twice as fast
        np.array([[columns[0], 0, columns[1]], [0, down, top * down - first]]),
        (width, height),
        flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
        hint=cv2.ALGO_HINT_ACCURATE,
    )
    if is_rgb:
        cv2.cvtColor(warped, cv2.COLOR_RGBA2RGB, dst=part)
    else:
        part[:] = warped.reshape(part.shape)


def _source(length: int, scaled: int, start: int, number: int) -> tuple[int, int, float]:
    """What of an axis `number` pixels of the scaled one are made of, its begin and end, and pixels to a pixel."""
    step = (length - 1) / max(1, scaled - 1)
    return int(start * step), min(length, int((start + number - 1) * step) + 2), step


OWN: dict[str, type[A.BasicTransform]] = {
    "BrightnessSaturation": BrightnessSaturation,
    "ScaleCropFlip": ScaleCropFlip,
}


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
