"""From an image of any size to labels at that size: the only place that pads, scales and resizes for inference."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from segapp.base.devices import Precision, autocast, compute_dtype, to_device, to_network_input
from segapp.base.errors import UserError
from segapp.base.images import read_image
from segapp.inference.geometry import Geometry, Size
from segapp.inference.options import Resized, Sliding, TestTimeAugmentation, Variant, Whole
from segapp.models.deeplabv3plus import DeepLabV3Plus
from segapp.models.layers import resize

log = logging.getLogger(__name__)

Array = npt.NDArray[np.uint8]

BATCH_PIXELS = 1 << 20
"""Windows of about so many pixels at the largest scale, at least one, go through the network at once."""


@dataclass(frozen=True)
class Prediction:
    """Of one image; `labels` and `confidence` on the predictor's device.

    Attributes:
        labels: H x W uint8.
        probabilities: K x H x W float16, if asked for.
        confidence: H x W float32, the probability of the label, if asked for.
    """

    labels: Tensor
    probabilities: npt.NDArray[np.float16] | None = None
    confidence: Tensor | None = None


class Outputs(NamedTuple):
    """What a prediction holds beside the labels."""

    probabilities: bool = False
    confidence: bool = False


class Predictor:
    """Labels images with one network.

    The whole image, with a canvas (arXiv:1802.02611, section 4), is padded to it at bottom and right with the
    network's zero and not resized; only one with a longer side than the canvas is scaled down to it, and its class
    scores back up. Without a canvas it is padded to the next k * output_stride + 1. Sliding windows lie evenly, the
    last ones at the border, and are padded where the image is smaller.

    Of each scale (`Variant`) of the padded image the logits are brought to its size, and their softmax is averaged
    (predict_labels_multi_scale in research/deeplab/model.py).

    Args:
        model: moved to the device in channels_last, and put in evaluation mode for each call.
        classes: names by index.
        output_stride: of the model.
        inference: how images are shown; its side k * output_stride + 1 or None, not "trained".

    Raises:
        UserError: a side of another size.
    """

    def __init__(
        self,
        model: DeepLabV3Plus,
        classes: tuple[str, ...],
        *,
        output_stride: int,
        inference: Whole | Sliding | Resized,
        device: torch.device,
        precision: Precision = "auto",
    ) -> None:
        side = inference.side
        assert side != "trained"  # whoever reads a checkpoint has resolved it
        if side is not None and side % output_stride != 1:
            near = max(1, side // output_stride) * output_stride + 1
            raise UserError(
                f"a {inference.key} of {side} is not k * output_stride + 1 at output stride {output_stride}; "
                f"take {near}"
            )
        self.model = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.classes = classes
        self.output_stride = output_stride
        self.inference = inference
        self.canvas = side
        self.device = device
        self.precision = precision
        self._told = False

    @property
    def protocol(self) -> str:
        """How images are shown to the network, for reports: two that differ have different ones."""
        return self.protocol_with(self.inference.setting)

    def protocol_with(self, setting: TestTimeAugmentation) -> str:
        """`protocol` with other scales, as in `predict_many`."""
        dtype = str(compute_dtype(self.device, self.precision)).removeprefix("torch.")
        return f"{self._shown()}, {setting.describe()}, output stride {self.output_stride}, {dtype}"

    def _shown(self) -> str:
        side = self.canvas
        if isinstance(self.inference, Sliding):
            step = _step(self.inference)
            return f"windows of {side} x {side} at most {step} apart, their probabilities averaged"
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
        return self.predict([_pixels(image)])[0].labels.cpu().numpy()

    def probabilities(self, image: Array | Image.Image | str | Path) -> npt.NDArray[np.float16]:
        """Class probabilities of one image, K x H x W float16; else as a call."""
        found = self.predict([_pixels(image)], probabilities=True)[0].probabilities
        assert found is not None
        return found

    def predict(
        self, images: Sequence[Array], *, probabilities: bool = False, confidence: bool = False
    ) -> list[Prediction]:
        """Labels of H x W x 3 uint8 RGB images of any sizes, each at its own size."""
        settings = [self.inference.setting]
        return self.predict_many(images, settings, probabilities=probabilities, confidence=confidence)[0]

    def predict_many(
        self,
        images: Sequence[Array],
        settings: Sequence[TestTimeAugmentation],
        *,
        probabilities: bool = False,
        confidence: bool = False,
    ) -> list[list[Prediction]]:
        """For each setting what `predict` with its scales gives of each image; no view is computed twice."""
        wanted = Outputs(probabilities, confidence)
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                groups = [self._show(*group, settings, wanted) for group in self._grouped(images)]
        finally:
            self.model.train(was_training)
        return [[each for group in groups for each in group[at]] for at in range(len(settings))]

    def _grouped(self, images: Sequence[Array]) -> Iterator[tuple[Sequence[Array], Size | None]]:
        """What goes through the network at once, and its canvas; None: in windows."""
        side = self.canvas
        if side is None:
            stride = self.output_stride
            for image in images:
                height, width = (-(-(length - 1) // stride) * stride + 1 for length in _size(image))
                yield [image], (height, width)
        elif isinstance(self.inference, Sliding) and any(max(_size(image)) > side for image in images):
            for image in images:
                yield [image], (side, side) if max(_size(image)) <= side else None
        else:
            yield images, (side, side)

    def _show(
        self, images: Sequence[Array], canvas: Size | None, settings: Sequence[TestTimeAugmentation], wanted: Outputs
    ) -> list[list[Prediction]]:
        if canvas is None:
            return [[each] for each in self._slide(images[0], settings, wanted)]
        fitted = [self._fit(image, canvas) for image in images]
        logits = self._logits(fitted, canvas, settings)
        places = [Geometry(canvas, _size(small), _size(image)) for small, image in zip(fitted, images, strict=True)]
        return [
            [self._read(_of(logits, setting, at), place, wanted) for at, place in enumerate(places)]
            for setting in settings
        ]

    def _fit(self, image: Array, canvas: Size) -> Array:
        height, width = _size(image)
        if isinstance(self.inference, Resized):
            shrinks = height >= canvas[0] and width >= canvas[1]
            kind = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
            return cv2.resize(image, (canvas[1], canvas[0]), interpolation=kind)  # type: ignore[return-value]
        scale = min(canvas[0] / height, canvas[1] / width)
        if scale >= 1:
            return np.ascontiguousarray(image)
        size = max(1, round(height * scale)), max(1, round(width * scale))
        if not self._told:
            self._told = True
            message = "images larger than the canvas are scaled down to it, the first from %d x %d to %d x %d"
            log.info(message, width, height, size[1], size[0])
        return cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA)  # type: ignore[return-value]

    def _logits(
        self, images: Sequence[Array], canvas: Size, settings: Iterable[TestTimeAugmentation]
    ) -> dict[Variant, Tensor]:
        """Of each view of all images, padded to the canvas: N x K x h x w, those of mirror images turned back.

        At a scale below 1 they are resized to the size of the canvas's own, as in research/deeplab/model.py.
        """
        batch = torch.zeros(len(images), 3, *canvas, device=self.device).to(memory_format=torch.channels_last)
        for place, image in zip(batch, images, strict=True):
            pixels = to_device(image, self.device)
            place[:, : image.shape[0], : image.shape[1]] = to_network_input(pixels[None])[0]
        stride = self.output_stride if self.model.decoder is None else 4
        found = {}
        for view in sorted({view for setting in settings for view in setting.views}):
            shown = batch if view.scale == 1 else resize(batch, _scaled(canvas, view.scale))
            with autocast(self.device, self.precision):
                logits = self.model(shown.flip(3) if view.mirrored else shown)
            logits = logits.float()
            if view.scale < 1:
                logits = resize(logits, ((canvas[0] - 1) // stride + 1, (canvas[1] - 1) // stride + 1))
            found[view] = logits.flip(3) if view.mirrored else logits
        return found

    def _read(self, logits: Sequence[Tensor], place: Geometry, wanted: Outputs) -> Prediction:
        found = _empty(len(self.classes), place.size, self.device, wanted)
        for rows, scores in place.scores(logits, probabilities=False):
            best, found.labels[rows] = (each[0] for each in scores.max(1))
            if found.confidence is not None:
                # The softmax at its highest place, of which no other is needed.
                found.confidence[rows] = best if len(logits) > 1 else (scores[0] - best).exp_().sum(0).reciprocal_()
            if found.probabilities is not None:
                means = scores if len(logits) > 1 else scores.softmax(1)
                found.probabilities[:, rows] = means[0].half().cpu().numpy()
        return found

    def _slide(self, image: Array, settings: Sequence[TestTimeAugmentation], wanted: Outputs) -> list[Prediction]:
        """An image in windows, row by row of them: what no later row touches is done."""
        assert isinstance(self.inference, Sliding)
        assert self.canvas is not None
        side, step, size = self.canvas, _step(self.inference), _size(image)
        tops, lefts = (_starts(length, side, step) for length in size)
        mosaics = [WindowStitcher(len(self.classes), tops, lefts, side, size, self.device, wanted) for _ in settings]
        largest = max(1, *(scale for setting in settings for scale in setting.scales))
        at_once = max(1, int(BATCH_PIXELS / (side * largest) ** 2))
        for top, end in zip(tops, [*tops[1:], size[0]], strict=True):
            for start in range(0, len(lefts), at_once):
                row = lefts[start : start + at_once]
                windows = [image[top : top + side, left : left + side] for left in row]
                logits = self._logits(windows, (side, side), settings)
                for setting, mosaic in zip(settings, mosaics, strict=True):
                    for at, (left, window) in enumerate(zip(row, windows, strict=True)):
                        place = Geometry((side, side), _size(window), _size(window))
                        for rows, scores in place.scores(_of(logits, setting, at), probabilities=True):
                            mosaic.add(rows, left, scores[0])
            for mosaic in mosaics:
                mosaic.finish(end)
        return [mosaic.found for mosaic in mosaics]


class WindowStitcher:
    """Sums windows' class probabilities over one row of windows at a time.

    Args:
        tops, lefts: where windows begin.
        side: of a window, in pixels.
        size: of the image.
        wanted: of the mean probabilities, beside the labels.

    Attributes:
        found: as far as rows are finished.
    """

    def __init__(
        self,
        num_classes: int,
        tops: Sequence[int],
        lefts: Sequence[int],
        side: int,
        size: Size,
        device: torch.device,
        wanted: Outputs,
    ) -> None:
        self.found = _empty(num_classes, size, device, wanted)
        down, across = _counts(tops, side, size[0]), _counts(lefts, side, size[1])
        self._down, self._across = (torch.from_numpy(each).to(device) for each in (down, across))
        self._top = 0
        self._sums = torch.zeros(num_classes, min(side, size[0]), size[1], device=device)

    def add(self, rows: slice, left: int, probabilities: Tensor) -> None:
        """K x rows x W of a window of the present row."""
        self._sums[:, rows, left : left + probabilities.shape[2]] += probabilities

    def finish(self, end: int) -> None:
        """The next row of windows begins at `end`."""
        number = end - self._top
        sums, rows = self._sums[:, :number], slice(self._top, end)
        found = self.found
        best, found.labels[rows] = sums.max(0)
        counts = self._down[rows, None] * self._across
        if found.confidence is not None:
            found.confidence[rows] = best / counts
        if found.probabilities is not None:
            found.probabilities[:, rows] = (sums / counts).cpu().numpy()
        later = self._sums[:, number:].clone()
        self._sums[:, : later.shape[1]] = later
        self._sums[:, later.shape[1] :] = 0
        self._top = end


def _empty(num_classes: int, size: Size, device: torch.device, wanted: Outputs) -> Prediction:
    return Prediction(
        torch.empty(size, dtype=torch.uint8, device=device),
        np.empty((num_classes, *size), np.float16) if wanted.probabilities else None,
        torch.empty(size, device=device) if wanted.confidence else None,
    )


def _pixels(image: Array | Image.Image | str | Path) -> Array:
    if isinstance(image, str | Path):
        image = read_image(Path(image))
    elif isinstance(image, Image.Image):
        image = np.array(image.convert("RGB"))
    if not isinstance(image, np.ndarray):
        raise UserError(f"an image is an array, a PIL image or a path, not a {type(image).__name__}")
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise UserError(f"an image is H x W x 3 uint8 RGB, not {image.dtype} of shape {image.shape}")
    return image


def _size(image: Array) -> Size:
    return image.shape[0], image.shape[1]


def _scaled(canvas: Size, scale: float) -> Size:
    """Of k * output_stride + 1 one such, where the scale allows it: 513 by 0.5 is 257."""
    height, width = (round(scale * (length - 1)) + 1 for length in canvas)
    return height, width


def _of(logits: dict[Variant, Tensor], setting: TestTimeAugmentation, at: int) -> list[Tensor]:
    return [logits[view][at : at + 1] for view in setting.views]


def _step(sliding: Sliding) -> int:
    assert isinstance(sliding.window, int)
    return max(1, round(sliding.window * (1 - sliding.overlap)))


def _starts(length: int, side: int, step: int) -> list[int]:
    """Where windows begin, evenly and at most `step` apart; the last one ends at the border."""
    last = max(0, length - side)
    return np.linspace(0, last, -(-last // step) + 1).round().astype(int).tolist()  # type: ignore[no-any-return]


def _counts(starts: Sequence[int], side: int, length: int) -> npt.NDArray[np.float32]:
    """How many windows lie over each pixel along one side."""
    counts = np.zeros(length, np.float32)
    for start in starts:
        counts[start : start + side] += 1
    return counts
