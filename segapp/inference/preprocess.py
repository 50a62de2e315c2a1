"""From an image as people have it to what a network is given."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from segapp.base.devices import to_device
from segapp.base.images import AS_USUAL, Decoding, as_rgb, is_dim, read_image
from segapp.base.normalization import Normalization
from segapp.inference.arrays import Size

if TYPE_CHECKING:
    import torch
    from torch import Tensor

log = logging.getLogger(__name__)

Array = npt.NDArray[np.uint8]


def normalize(images: "Tensor", normalization: Normalization) -> "Tensor":
    """uint8 N x H x W x 3 to float32 N x 3 x H x W, (x / 255 - mean) / std.

    Permuted and not copied, it is channels_last.
    """
    floats = images.permute(0, 3, 1, 2).float()
    factors, offsets = _as_product(normalization)
    if len({*zip(factors, offsets, strict=True)}) == 1:  # a number is applied sooner than one a channel
        return floats.mul_(factors[0]).sub_(offsets[0])
    per_channel = floats.new_tensor([factors, offsets])[:, :, None, None]
    return floats.mul_(per_channel[0]).sub_(per_channel[1])


def _as_product(normalization: Normalization) -> tuple[list[float], list[float]]:
    """By what a value of 0 to 255 is multiplied, and what is then taken from it, per channel."""
    mean, std = normalization.mean, normalization.std
    return [1 / (255 * each) for each in std], [m / s for m, s in zip(mean, std, strict=True)]


def padded(images: list[Array], canvas: Size, normalization: Normalization, device: "torch.device | None") -> Any:
    """N normalised images at the top left of canvases of zeros, N x 3 x H x W: on a device in channels_last, else
    NumPy's."""
    if device is None:
        return _padded_by_numpy(images, canvas, normalization)
    import torch

    batch = torch.zeros(len(images), 3, *canvas, device=device).to(memory_format=torch.channels_last)
    for canvas_of_one, image in zip(batch, images, strict=True):
        pixels = normalize(to_device(image, device)[None], normalization)[0]
        canvas_of_one[:, : image.shape[0], : image.shape[1]] = pixels
    return batch


def _padded_by_numpy(images: list[Array], canvas: Size, normalization: Normalization) -> npt.NDArray[np.float32]:
    batch = np.zeros((len(images), 3, *canvas), np.float32)
    for canvas_of_one, image in zip(batch, images, strict=True):
        channels = zip(canvas_of_one, cv2.split(image), *_as_product(normalization), strict=True)
        for plane, channel, factor, offset in channels:
            content = plane[: image.shape[0], : image.shape[1]]
            np.multiply(channel, np.float32(factor), out=content)
            content -= np.float32(offset)
    return batch


def squeezed(image: Array, size: Size) -> Array:
    """Resized to `size`, whatever its proportions are."""
    shrinks = image.shape[0] >= size[0] and image.shape[1] >= size[1]
    kind = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(image, (size[1], size[0]), interpolation=kind)  # type: ignore[return-value]


def fitted(image: Array, canvas: Size) -> Array:
    """As it is where the canvas has room for it, else scaled down until a side is the canvas's."""
    height, width = image.shape[:2]
    scale = min(canvas[0] / height, canvas[1] / width)
    if scale >= 1:
        return np.ascontiguousarray(image)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]


def as_pixels(image: npt.NDArray[Any] | Image.Image | str | Path, decoding: Decoding = AS_USUAL) -> Array:
    """Any image as H x W x 3 uint8 RGB: a file by `read_image`, what is in memory by `as_rgb`.

    Raises:
        UserError: a file that cannot be read, or an array that is no picture.
    """
    if isinstance(image, str | Path):
        if is_dim(Path(image), decoding.white_level):
            log.warning("%s: nearly black, for 16 bits; white_level says which value is white", image)
        return read_image(Path(image), decoding=decoding)
    return as_rgb(image, decoding.white_level)
