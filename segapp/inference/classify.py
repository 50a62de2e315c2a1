"""From images of any size to the probabilities of classes: what is shown of them, and test-time augmentation."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from segapp.base.devices import Precision, autocast, compute_dtype
from segapp.base.images import AS_USUAL, Decoding
from segapp.inference.options import Center
from segapp.inference.preprocess import Array, as_pixels, normalize, squeezed
from segapp.models.classifier import Classifier
from segapp.models.encoders.interface import Normalization


class ClassPredictor:
    """Classifies images with one network, trained on or not: it is in evaluation mode for each call alone.

    The square in the middle of an image, `inference.share` of its shorter side, is resized to `inference.size`. Of
    several scales of it, and their mirror images, the probabilities are averaged.

    Args:
        model: moved to the device, its encoder in channels_last.
        classes: names by index.
        inference: with a size in pixels, not "trained".
        decoding: of files; whoever reads them for `predict` is to take the same.
        precision: parameters stay float32.
    """

    def __init__(
        self,
        model: Classifier,
        classes: tuple[str, ...],
        inference: Center,
        decoding: Decoding = AS_USUAL,
        *,
        normalization: Normalization,
        device: torch.device,
        precision: Precision = "auto",
    ) -> None:
        assert isinstance(inference.size, int)  # whoever reads a checkpoint has resolved it
        self.model = model.to(device)
        model.encoder.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.classes = classes
        self.inference = inference
        self.size = inference.size
        self.decoding = decoding
        self.normalization = normalization
        self.device = device
        self.precision = precision

    @property
    def protocol(self) -> str:
        """How images are shown to the network, for reports: two that differ have different ones."""
        dtype = str(compute_dtype(self.device, self.precision)).removeprefix("torch.")
        shown = f"square of {self.inference.share:g} of the shorter side, resized to {self.size} x {self.size}"
        return f"{shown}, {self.inference.augmentation.describe()}, {self.decoding.describe()}, {dtype}"

    def __call__(self, image: Array | Image.Image | str | Path) -> npt.NDArray[np.float32]:
        """The probabilities of the classes of one image, K float32: H x W x 3 uint8 RGB, a PIL image, or a file.

        Raises:
            UserError: the file cannot be read, or the array is no such image.
        """
        probabilities: npt.NDArray[np.float32] = self.predict([as_pixels(image, self.decoding)])[0].cpu().numpy()
        return probabilities

    def predict(self, images: Sequence[Array]) -> Tensor:
        """The probabilities of N images, H x W x 3 uint8 RGB of any sizes: N x K float32 on the device."""
        pixels = np.stack([squeezed(central(image, self.inference.share), (self.size, self.size)) for image in images])
        inputs = normalize(torch.from_numpy(pixels).to(self.device), self.normalization)
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode(), autocast(self.device, self.precision):
                shown = [self._variant(inputs, *each) for each in self.inference.augmentation.variants]
                return torch.stack([self.model(each).float().softmax(1) for each in shown]).mean(0)
        finally:
            self.model.train(was_training)

    def _variant(self, inputs: Tensor, scale: float, mirrored: bool) -> Tensor:
        if scale != 1:
            side = max(1, round(self.size * scale))
            inputs = F.interpolate(inputs, (side, side), mode="bilinear", antialias=scale < 1)
        return inputs.flip(3) if mirrored else inputs


def central(image: Array, share: float) -> Array:
    """The square in the middle of H x W x 3, `share` of the shorter side."""
    height, width = image.shape[:2]
    side = max(1, round(share * min(height, width)))
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(image[top : top + side, left : left + side])
