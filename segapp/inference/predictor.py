"""From an image of any size to labels at that size: the only place that pads, scales and resizes for inference."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, field_validator
from torch import Tensor
from torch.nn.functional import interpolate

from segapp.config import Config
from segapp.devices import Precision, autocast, to_network_input
from segapp.images import read_image
from segapp.models.deeplabv3plus import DeepLabV3Plus
from segapp.models.layers import resize

log = logging.getLogger(__name__)

Array = npt.NDArray[np.uint8]

STRIP_PIXELS = 1 << 20
"""Class scores are brought to the image's size in strips of rows of about so many pixels."""


class InferenceConfig(Config):
    """`canvas`: side in pixels to which images are padded; None takes each as it is. See conf/inference."""

    canvas: int | None = Field(gt=0, le=4097)

    @field_validator("canvas")
    @classmethod
    def _aligned(cls, value: int | None) -> int | None:
        if value is not None and value % 8 != 1:
            raise ValueError("the canvas must be k * output_stride + 1, such as 513")
        return value

    def describe(self) -> str:
        """The protocol in words, for reports."""
        if self.canvas is None:
            return "whole image as it is, single scale"
        return f"whole image padded to {self.canvas} x {self.canvas} (a longer side scaled to it), single scale"


@dataclass(frozen=True)
class Prediction:
    """`labels`: H x W uint8 on the predictor's device. `probabilities`: K x H x W float16, if asked for."""

    labels: Tensor
    probabilities: npt.NDArray[np.float16] | None


class Predictor:
    """Labels images with one network.

    With a canvas (arXiv:1802.02611, section 4) the image is padded to it at bottom and right with the network's zero
    and not resized; only one with a longer side than the canvas is scaled down to it, and its class scores back up.
    Without one it is padded to the next k * output_stride + 1.

    Args:
        model: moved to the device in channels_last, and put in evaluation mode for each call.
        classes: names by index.
        output_stride: of the model.
    """

    def __init__(
        self,
        model: DeepLabV3Plus,
        classes: tuple[str, ...],
        *,
        output_stride: int,
        inference: InferenceConfig,
        device: torch.device,
        precision: Precision = "auto",
    ) -> None:
        self.model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.classes = classes
        self.output_stride = output_stride
        self.inference = inference
        self.device = device
        self.precision = precision
        self._told = False

    @property
    def protocol(self) -> str:
        """How images are shown to the network, for reports."""
        return f"{self.inference.describe()}, output stride {self.output_stride}"

    def __call__(self, image: Array | str | Path) -> Array:
        """Labels of one image, H x W uint8: H x W x 3 uint8 RGB, or a file.

        Raises:
            UserError: the file cannot be read.
        """
        if isinstance(image, str | Path):
            image = read_image(Path(image))
        return self.predict([image])[0].labels.cpu().numpy()

    def predict(self, images: Sequence[Array], *, probabilities: bool = False) -> list[Prediction]:
        """Labels of H x W x 3 uint8 RGB images of any sizes, each at its own size."""
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                if self.inference.canvas is not None:
                    return self._predict(images, (self.inference.canvas, self.inference.canvas), probabilities)
                return [p for image in images for p in self._predict([image], self._aligned(image), probabilities)]
        finally:
            self.model.train(was_training)

    def _aligned(self, image: Array) -> tuple[int, int]:
        stride = self.output_stride
        height, width = (-(-(length - 1) // stride) * stride + 1 for length in image.shape[:2])
        return height, width

    def _predict(self, images: Sequence[Array], canvas: tuple[int, int], probabilities: bool) -> list[Prediction]:
        fitted = [self._fit(image, canvas) for image in images]
        batch = torch.zeros(len(images), 3, *canvas, device=self.device).to(memory_format=torch.channels_last)
        for place, image in zip(batch, fitted, strict=True):
            pixels = torch.from_numpy(image).to(self.device)
            place[:, : image.shape[0], : image.shape[1]] = to_network_input(pixels[None])[0]
        with autocast(self.device, self.precision):
            logits = self.model(batch)
        return [
            self._read(row[None].float(), canvas, small.shape[:2], image.shape[:2], probabilities)
            for row, small, image in zip(logits, fitted, images, strict=True)
        ]

    def _fit(self, image: Array, canvas: tuple[int, int]) -> Array:
        height, width = image.shape[:2]
        scale = min(canvas[0] / height, canvas[1] / width)
        if scale >= 1:
            return np.ascontiguousarray(image)
        size = max(1, round(height * scale)), max(1, round(width * scale))
        if not self._told:
            self._told = True
            message = "images larger than the canvas are scaled down to it, the first from %d x %d to %d x %d"
            log.info(message, width, height, size[1], size[0])
        return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]

    def _read(
        self,
        logits: Tensor,
        canvas: tuple[int, int],
        content: tuple[int, ...],
        size: tuple[int, ...],
        probabilities: bool,
    ) -> Prediction:
        """The canvas's logits, 1 x K x h x w, to labels: its top left `content` (h, w) at the image's `size`."""
        scores = resize(logits, canvas)[:, :, : content[0], : content[1]]
        labels = torch.empty(size, dtype=torch.uint8, device=self.device)
        kept = np.empty((logits.shape[1], *size), np.float16) if probabilities else None
        for rows, strip in strips(scores, (size[0], size[1])):
            labels[rows] = strip.max(1).indices[0]
            if kept is not None:
                kept[:, rows] = strip.softmax(1)[0].half().cpu().numpy()
        return Prediction(labels, kept)


def strips(scores: Tensor, size: tuple[int, int]) -> Iterator[tuple[slice, Tensor]]:
    """Bilinear resize with align_corners=True, in strips of rows, so that the whole is never held at once.

    Args:
        scores: 1 x K x h x w.
        size: H, W.

    Yields:
        The rows' slice and their scores, 1 x K x rows x W.
    """
    height, width = size
    if (scores.shape[2], scores.shape[3]) == size:
        yield slice(0, height), scores
        return
    step = max(1, STRIP_PIXELS // width)
    source = torch.linspace(0, scores.shape[2] - 1, height, device=scores.device)
    for top in range(0, height, step):
        at = source[top : top + step]
        upper = at.floor().long()
        lower = at.ceil().long()
        mixed = torch.lerp(scores[:, :, upper], scores[:, :, lower], (at - upper)[:, None])
        strip = interpolate(mixed, (len(at), width), mode="bilinear", align_corners=True)
        yield slice(top, top + len(at)), strip
