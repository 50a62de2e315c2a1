"""From an image of any size to labels at that size: the only place that pads, scales and resizes for inference."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from segapp.base.errors import UserError
from segapp.base.images import AS_USUAL, Decoding
from segapp.inference.arrays import (
    Size,
    best,
    mirrored,
    no_gradients,
    on_device,
    resize,
    share_of_best,
    softmax,
    to_halves,
    to_numpy,
)
from segapp.inference.geometry import Geometry
from segapp.inference.options import Resized, Sliding, Whole
from segapp.inference.prediction import Confidence, Outputs, Prediction, empty_prediction
from segapp.inference.preprocess import Array, as_pixels, fitted, padded, squeezed
from segapp.inference.stitcher import WindowStitcher, window_starts
from segapp.inference.test_time_augmentation import TestTimeAugmentation, Variant
from segapp.runtimes.interface import Runtime

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

BATCH_PIXELS = 1 << 20
"""Windows of about so many pixels at the largest scale, at least one, go through the network at once."""
BATCHES_AT_ONCE = 2
"""Worth giving to a predictor from so many threads: while the network computes one, another's images are brought to
its size, or its scores to the images'."""


class Predictor:
    """Labels images with one network.

    The whole image, with a canvas (arXiv:1802.02611, section 4), is padded to it at bottom and right with the
    network's zero and not resized; only one with a longer side than the canvas is scaled down to it, and its class
    scores back up. Without a canvas it is padded to the next k * output_stride + 1. Sliding windows lie evenly, the
    last ones at the border, and are padded where the image is smaller.

    Of each variant of test-time augmentation, a scale or the mirror image of one, the logits are brought to the padded
    image's size, and their softmax is averaged (predict_labels_multi_scale in research/deeplab/model.py).

    Args:
        runtime: computes the logits.
        inference: the geometry, and test-time augmentation; its side k * output_stride + 1 or None, not "trained".
        decoding: of files; whoever reads them for `predict` is to take the same.

    Raises:
        UserError: a side of another size, or a side or a scale that is not the runtime's only one.
    """

    def __init__(self, runtime: Runtime, inference: Whole | Sliding | Resized, decoding: Decoding = AS_USUAL) -> None:
        side, output_stride = inference.side, runtime.spec.output_stride
        assert side != "trained"  # whoever reads a checkpoint has resolved it
        if side is not None and side % output_stride != 1:
            near = max(1, side // output_stride) * output_stride + 1
            raise UserError(
                f"a {inference.key} of {side} is not k * output_stride + 1 at output stride {output_stride}; "
                f"take {near}"
            )
        only = runtime.spec.input_size
        if only is not None and (only != (side, side) or inference.scales != (1,)):
            at = f"inference.{inference.key}={only[0]}, at scale 1"
            raise UserError(f"this network takes images of {only[1]} x {only[0]} alone: {at}")
        self.runtime = runtime
        self.inference = inference
        self.decoding = decoding
        self.canvas = side
        self._told = False
        self._stopped = False

    @property
    def classes(self) -> tuple[str, ...]:
        return self.runtime.spec.classes

    @property
    def output_stride(self) -> int:
        return self.runtime.spec.output_stride

    @property
    def device(self) -> "torch.device":
        """Where predictions lie; the CPU also where they are NumPy's."""
        import torch

        return self.runtime.device or torch.device("cpu")

    @property
    def protocol(self) -> str:
        """How images are shown to the network, for reports: two that differ have different ones."""
        return self.protocol_with(self.inference.augmentation)

    def protocol_with(self, augmentation: TestTimeAugmentation) -> str:
        """`protocol` with other scales, as in `predict_many`."""
        shown = f"{self._geometry()}, {augmentation.describe()}"
        return f"{shown}, {self.decoding.describe()}, {self.runtime.description}"

    def _geometry(self) -> str:
        side = self.canvas
        if isinstance(self.inference, Sliding):
            return f"windows of {side} x {side} at most {self.inference.step} apart, their probabilities averaged"
        if isinstance(self.inference, Resized):
            return f"whole image resized to {side} x {side}"
        if side is None:
            return "whole image as it is"
        return f"whole image padded to {side} x {side} (a longer side scaled to it)"

    def __call__(self, image: Array | Image.Image | str | Path) -> Array:
        """Labels of one image, H x W uint8: H x W x 3 uint8 RGB, a PIL image, or a file.

        Raises:
            UserError: the file cannot be read, or the array is no such image.
        """
        return self.predict([as_pixels(image, self.decoding)])[0].mask()

    def probabilities(self, image: Array | Image.Image | str | Path) -> npt.NDArray[np.float16]:
        """Class probabilities of one image, K x H x W float16; else as a call."""
        result = self.predict([as_pixels(image, self.decoding)], probabilities=True)[0].probabilities
        assert result is not None
        return result

    def predict(
        self, images: Sequence[Array], *, probabilities: bool = False, confidence: Confidence = False
    ) -> list[Prediction]:
        """Labels of H x W x 3 uint8 RGB images of any sizes, each at its own size."""
        augmentations = [self.inference.augmentation]
        return self.predict_many(images, augmentations, probabilities=probabilities, confidence=confidence)[0]

    def predict_many(
        self,
        images: Sequence[Array],
        augmentations: Sequence[TestTimeAugmentation],
        *,
        probabilities: bool = False,
        confidence: Confidence = False,
    ) -> list[list[Prediction]]:
        """For each augmentation what `predict` with its scales gives of each image; no variant is computed twice."""
        outputs = Outputs(probabilities, confidence)
        with no_gradients(self.runtime.device):
            groups = [self._predict_group(*group, augmentations, outputs) for group in self._grouped(images)]
        return [[each for group in groups for each in group[at]] for at in range(len(augmentations))]

    def stop(self) -> None:
        """Ends by CancelledError, at its next window or scale, what threads compute, and all that comes later."""
        self._stopped = True

    def _grouped(self, images: Sequence[Array]) -> Iterator[tuple[Sequence[Array], Size | None]]:
        """What goes through the network at once, and its canvas; None: in windows."""
        if any(self.is_alone(_size(image)) for image in images):
            for image in images:
                yield [image], self.canvas_of(_size(image))
        elif images:
            yield images, self.canvas_of(_size(images[0]))

    def is_alone(self, size: Size) -> bool:
        """Whether an image of a size, and all that are given with it, go through the network one by one."""
        return self.canvas is None or self.canvas_of(size) is None

    def canvas_of(self, size: Size) -> Size | None:
        """What an image of a size is shown on at scale 1; None: in windows."""
        side = self.canvas
        if side is None:
            height, width = (-(-(length - 1) // self.output_stride) * self.output_stride + 1 for length in size)
            return height, width
        return None if isinstance(self.inference, Sliding) and max(size) > side else (side, side)

    def pixels_shown(self, size: Size) -> int:
        """How many the network is shown of an image of a size, in all windows, scales and mirror images together."""
        variants = sum(variant.scale**2 for variant in self.inference.augmentation.variants)
        canvas = self.canvas_of(size)
        if canvas is not None:
            return round(variants * canvas[0] * canvas[1])
        assert isinstance(self.inference, Sliding)
        assert self.canvas is not None
        rows, columns = (len(window_starts(length, self.canvas, self.inference.step)) for length in size)
        return round(variants * rows * columns * self.canvas**2)

    def _predict_group(
        self,
        images: Sequence[Array],
        canvas: Size | None,
        augmentations: Sequence[TestTimeAugmentation],
        outputs: Outputs,
    ) -> list[list[Prediction]]:
        if canvas is None:
            return [[each] for each in self._slide(images[0], augmentations, outputs)]
        contents = [self._fit(image, canvas) for image in images]
        logits = self._logits(contents, canvas, augmentations)
        sizes = [(_size(content), _size(image)) for content, image in zip(contents, images, strict=True)]
        return [
            [
                self._read(_of(logits, augmentation, at), Geometry(canvas, content, size), outputs)
                for at, (content, size) in enumerate(sizes)
            ]
            for augmentation in augmentations
        ]

    def _fit(self, image: Array, canvas: Size) -> Array:
        if isinstance(self.inference, Resized):
            return squeezed(image, canvas)
        content = fitted(image, canvas)
        if not self._told and content.shape != image.shape:
            self._told = True
            message = "images larger than the canvas are scaled down to it, the first from %d x %d to %d x %d"
            log.info(message, image.shape[1], image.shape[0], content.shape[1], content.shape[0])
        return content

    def _logits(
        self, images: Sequence[Array], canvas: Size, augmentations: Iterable[TestTimeAugmentation]
    ) -> dict[Variant, Any]:
        """Of each variant of all images, padded to the canvas: N x K x h x w, those of mirror images turned back.

        As in research/deeplab/model.py, it is the mirrored canvas that is resized, not the resized one mirrored: in
        float32 the two differ. At a scale below 1 the logits are resized to the size of the canvas's own.
        """
        batch = padded(list(images), canvas, self.runtime.spec.normalization, self.runtime.device)
        height, width = ((length - 1) // self.runtime.spec.logits_stride + 1 for length in canvas)
        result = {}
        for variant in sorted({variant for each in augmentations for variant in each.variants}):
            if self._stopped:
                raise CancelledError
            shown = mirrored(batch) if variant.mirrored else batch
            logits = self.runtime(shown if variant.scale == 1 else resize(shown, scaled(canvas, variant.scale)))
            if variant.scale < 1:
                logits = resize(logits, (height, width))
            result[variant] = mirrored(logits) if variant.mirrored else logits
        return result

    def _read(self, logits: Sequence[Any], geometry: Geometry, outputs: Outputs) -> Prediction:
        if outputs.confidence == "as_shown" and geometry.content != geometry.size:
            shown = Geometry(geometry.canvas, geometry.content, geometry.content)
            confidence = self._read(logits, shown, Outputs(confidence=True)).confidence
            return replace(self._read(logits, geometry, outputs._replace(confidence=False)), confidence=confidence)
        device = self.runtime.device
        result = empty_prediction(len(self.classes), geometry.size, device, outputs)
        has_labels = len(logits) == 1 and (device is None or device.type == "cpu")
        if has_labels:
            for rows, labels in geometry.labels(to_numpy(logits[0])):
                result.labels[rows] = on_device(labels, device)
            if not any(outputs):
                return result
        for rows, scores in geometry.scores(logits, probabilities=False):
            highest, labels = best(scores[0])
            if not has_labels:
                result.labels[rows] = labels
            if result.confidence is not None:
                result.confidence[rows] = highest if len(logits) > 1 else share_of_best(scores[0], highest)
            if result.probabilities is not None:
                result.probabilities[:, rows] = to_halves((scores if len(logits) > 1 else softmax(scores))[0])
        return result

    def _slide(
        self, image: Array, augmentations: Sequence[TestTimeAugmentation], outputs: Outputs
    ) -> list[Prediction]:
        """An image in windows, row by row of them: what no later row touches is done."""
        assert isinstance(self.inference, Sliding)
        assert self.canvas is not None
        side, size = self.canvas, _size(image)
        tops, lefts = (window_starts(length, side, self.inference.step) for length in size)
        num_classes = len(self.classes)
        device = self.runtime.device
        stitchers = [WindowStitcher(num_classes, tops, lefts, side, size, device, outputs) for _ in augmentations]
        largest = max(1, *(scale for each in augmentations for scale in each.scales))
        at_once = max(1, int(BATCH_PIXELS / (side * largest) ** 2))
        for top, end in zip(tops, [*tops[1:], size[0]], strict=True):
            for start in range(0, len(lefts), at_once):
                row = lefts[start : start + at_once]
                windows = [image[top : top + side, left : left + side] for left in row]
                logits = self._logits(windows, (side, side), augmentations)
                for augmentation, stitcher in zip(augmentations, stitchers, strict=True):
                    for at, (left, window) in enumerate(zip(row, windows, strict=True)):
                        geometry = Geometry((side, side), _size(window), _size(window))
                        for rows, scores in geometry.scores(_of(logits, augmentation, at), probabilities=True):
                            stitcher.add(rows, left, scores[0])
            for stitcher in stitchers:
                stitcher.finish(end)
        return [stitcher.result for stitcher in stitchers]


def _size(image: Array) -> Size:
    return image.shape[0], image.shape[1]


def scaled(canvas: Size, scale: float) -> Size:
    """Of k * output_stride + 1 one such, where the scale allows it: 513 by 0.5 is 257.

    Else rounded down (scale_dimension in research/deeplab/core/utils.py): 513 by 0.9 is 461.
    """
    height, width = (int((length - 1.0) * scale + 1.0) for length in canvas)
    return height, width


def _of(logits: dict[Variant, Any], augmentation: TestTimeAugmentation, at: int) -> list[Any]:
    return [logits[variant][at : at + 1] for variant in augmentation.variants]
