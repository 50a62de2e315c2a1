"""Predictions made up from masks, so that scoring can be timed without a trained network."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from segapp.base.classes import IGNORE_INDEX
from segapp.base.devices import to_device
from segapp.data.dataset import SegmentationDataset
from segapp.inference.arrays import Size
from segapp.inference.options import Whole
from segapp.inference.prediction import Prediction
from segapp.inference.predictor import Predictor
from segapp.models.deeplabv3plus import DeepLabV3Plus
from segapp.runtimes.interface import RuntimeSpec
from segapp.runtimes.pytorch import PyTorchRuntime

Labels = npt.NDArray[np.uint8]

SHIFT = 2.0
"""Pixels, the standard deviation of how far a made-up prediction's boundaries lie from the truth's, either way."""
SURENESS = 6.0
"""Of a made-up prediction's logits: how far its class's lie above the others'."""


@dataclass(frozen=True)
class ScoredImage:
    """An image as a network leaves it, on the device but for `pixels` and `mask`.

    Attributes:
        pixels: H x W x 3, to be predicted.
        mask: H x W, the truth; 255 is ignored.
        truth: the same.
        logits: 1 x K x h x w of the padded canvas, as the network would give them.
        labels, confidence: H x W, read off the logits.
    """

    pixels: Labels
    mask: Labels
    truth: Tensor
    logits: Tensor
    labels: Tensor
    confidence: Tensor


class FixedLogits:
    """A runtime in a network's place: gives the logits that it was given."""

    description = "fixed logits"

    def __init__(self, spec: RuntimeSpec, logits: Tensor) -> None:
        self.spec = spec
        self.device = logits.device
        self.logits = logits

    def __call__(self, images: Tensor) -> Tensor:
        return self.logits


class LogitsReader:
    """All that a predictor does but the network's pass: the one place here that knows how predictors are made.

    Args:
        network: whose logits are read.
        logits: 1 x K x h x w, what it gave for a canvas.
        side: of that canvas, in pixels.
    """

    def __init__(self, network: DeepLabV3Plus, logits: Tensor, side: int) -> None:
        self.side = side
        self.logits_shape = logits.shape
        self.device = logits.device
        classes = tuple(map(str, range(logits.shape[1])))
        spec = PyTorchRuntime(network, classes, device=logits.device).spec
        self._fixed = FixedLogits(spec, logits.float())
        self._predictor = Predictor(self._fixed, Whole(canvas=side, scales=(1,), flip=False))

    def read(self, pixels: Labels, logits: Tensor, *, confidence: bool) -> Prediction:
        """The prediction for an image of which the network gave these logits."""
        self._fixed.logits = logits
        return self._predictor.predict([pixels], confidence=confidence)[0]


def make_up(dataset: SegmentationDataset, number: int, reader: LogitsReader) -> list[ScoredImage]:
    """Predictions that are much like the masks of `number` images, evenly spread: the same at any time."""
    rng = np.random.default_rng(0)
    images = []
    for index in np.linspace(0, len(dataset) - 1, min(number, len(dataset))).astype(int).tolist():
        sample = dataset[index]
        assert sample.label is not None
        shape = reader.logits_shape
        labels = shrunk(moved(sample.label, len(dataset.classes), rng), reader.side, shape[2:])
        values = rng.normal(size=shape).astype(np.float32)
        values[0] += SURENESS * (labels == np.arange(shape[1])[:, None, None])
        logits = torch.from_numpy(values).to(reader.device, memory_format=torch.channels_last)
        prediction = reader.read(sample.image, logits, confidence=True)
        assert prediction.confidence is not None
        truth = to_device(sample.label, reader.device)
        images.append(ScoredImage(sample.image, sample.label, truth, logits, prediction.labels, prediction.confidence))
    return images


def moved(mask: Labels, num_classes: int, rng: np.random.Generator) -> Labels:
    """A mask with void filled from its neighbourhood, smoothly displaced, and with blobs of a random class."""

    def smooth(sigma: float) -> npt.NDArray[np.float32]:
        field = cv2.GaussianBlur(rng.normal(size=mask.shape).astype(np.float32), (0, 0), sigma)
        return field / max(field.std(), 1e-6)  # type: ignore[no-any-return]

    ignored = mask == IGNORE_INDEX
    nearest = ndimage.distance_transform_edt(ignored, return_distances=False, return_indices=True)
    filled = np.zeros_like(mask) if ignored.all() else mask[tuple(nearest)]
    rows, columns = np.indices(mask.shape, np.float32)
    labels = cv2.remap(filled, columns + SHIFT * smooth(8), rows + SHIFT * smooth(8), cv2.INTER_NEAREST)
    labels[smooth(6) > 3] = rng.integers(num_classes)
    return labels  # type: ignore[return-value]


def shrunk(labels: Labels, side: int, size: Sequence[int]) -> Labels:
    """On a canvas of `side`, a longer side scaled to it, of which evenly spread rows and columns are taken."""
    height, width = content_size(labels.shape, side)
    canvas = np.zeros((side, side), np.uint8)
    canvas[:height, :width] = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
    rows, columns = (np.linspace(0, side - 1, length).round().astype(int) for length in size)
    return canvas[rows[:, None], columns]  # type: ignore[no-any-return]


def content_size(shape: Sequence[int], side: int) -> Size:
    """Height and width of an image on a canvas of `side`: its own, unless it is larger."""
    scale = min(1, side / max(shape))
    height, width = (max(1, round(length * scale)) for length in shape)
    return height, width
