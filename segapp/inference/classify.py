"""From images of any size to the probabilities of classes: what is shown of them, and test-time augmentation."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from segapp.base.devices import Precision, autocast, compute_dtype
from segapp.base.files import write_csv, write_json
from segapp.base.images import AS_USUAL, Decoding, read_image
from segapp.base.logs import progress_bar
from segapp.inference.options import Resized
from segapp.inference.predictor import BATCHES_AT_ONCE
from segapp.inference.preprocess import Array, as_pixels, normalize, squeezed
from segapp.inference.saving import THREADS, ahead, or_problem, output_names
from segapp.models.classifier import Classifier
from segapp.models.encoders.interface import Normalization

TOP = 5
"""Classes that are named of an image."""


class ClassPredictor:
    """Classifies images with one network, trained on or not: it is in evaluation mode for each call alone.

    The middle of an image, `inference.share` of either side, is resized to a square of `inference.size`, as in
    research/slim/preprocessing/inception_preprocessing.py. Of several scales of that, and their mirror images, the
    probabilities are averaged.

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
        inference: Resized,
        decoding: Decoding = AS_USUAL,
        *,
        normalization: Normalization,
        device: torch.device,
        precision: Precision = "auto",
    ) -> None:
        assert isinstance(inference.size, int)  # whoever reads a checkpoint has resolved it
        self.model = model.to(device)
        model.encoder.to(memory_format=torch.channels_last)
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
        shown = f"middle {self.inference.share:g} of either side resized to {self.size} x {self.size}"
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
    """The middle of H x W x 3: what is left when as much is cut off at either end (tf.image.central_crop)."""
    top, left = (int((side - side * share) / 2) for side in image.shape[:2])
    return np.ascontiguousarray(image[top : image.shape[0] - top, left : image.shape[1] - left])


Choices = list[tuple[str, float]]
"""The most probable classes with their probabilities, in order."""


def classify_files(
    images: Sequence[Path], predictor: ClassPredictor, *, max_pixels: int, number: int = TOP
) -> tuple[list[tuple[Path, Choices]], list[str]]:
    """The `number` most probable classes of each image that can be read, and a line for each that cannot; others are
    read meanwhile, in threads.

    Args:
        max_pixels: images of more are refused.
    """

    def classified(image: tuple[Path, Future[Array]]) -> Choices:
        top = predictor.predict([image[1].result()])[0].sort(descending=True)
        names = [predictor.classes[index] for index in top.indices[:number].tolist()]
        return list(zip(names, top.values[:number].tolist(), strict=True))

    results: list[tuple[Path, Choices]] = []
    problems = []
    with (
        ThreadPoolExecutor(THREADS) as pool,
        ThreadPoolExecutor(BATCHES_AT_ONCE) as network,
        progress_bar(len(images), "predicting", "image", leave=False) as progress,
    ):
        read = partial(read_image, max_pixels=max_pixels, decoding=predictor.decoding)
        reading = zip(images, ahead(pool, read, images, THREADS), strict=True)
        for path, work in zip(images, ahead(network, classified, reading, BATCHES_AT_ONCE - 1), strict=True):
            choices = or_problem(work.result, path)
            if isinstance(choices, str):
                problems.append(choices)
            else:
                results.append((path, choices))
            progress.update()
    return results, problems


def save_classes(path: Path, results: Sequence[tuple[Path, Choices]]) -> None:
    """A row for each choice of each image: the image, its rank from 1, the class, and its probability."""
    rows = [
        (str(image), rank, name, probability)
        for image, choices in results
        for rank, (name, probability) in enumerate(choices, 1)
    ]
    write_csv(path, ["image", "rank", "class", "probability"], rows)


def save_json(folder: Path, results: Sequence[tuple[Path, Choices]]) -> None:
    """A file for each image: its path, and its most probable classes with their probabilities, in order."""
    folder.mkdir(exist_ok=True)
    for name, (image, choices) in zip(output_names([image for image, _ in results]), results, strict=True):
        classes = [{"name": each, "probability": probability} for each, probability in choices]
        write_json(folder / f"{name}.json", {"image": str(image), "classes": classes})
