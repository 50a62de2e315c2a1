"""Scores predicted images one by one against a folder of masks, where there is no data set."""

from pathlib import Path

import numpy as np
import torch

from segapp.base.errors import UserError
from segapp.base.masks import read_mask
from segapp.data.dataset import check_labels, check_size
from segapp.data.pairs import as_on_disk
from segapp.evaluation.config import EvalConfig
from segapp.evaluation.confusion import ConfusionMatrix, Labels, Scores
from segapp.evaluation.evaluate import Evaluation

SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif")
PIXELS_ALONE = EvalConfig(batch_size=1, classes=None, examples=0, detailed=False, trimap_widths=())
"""What is measured of such images."""


class LabelFolder:
    """The labels of images by their stems, as indexed masks, and the pixels that were predicted right.

    Attributes:
        scored: how many images.
    """

    def __init__(self, folder: Path, classes: tuple[str, ...]) -> None:
        self.folder = folder
        self.classes = classes
        self.scored = 0
        self._matrix = ConfusionMatrix(len(classes))

    def score(self, image: Path, labels: Labels) -> None:
        """Adds one image, H x W as predicted.

        Raises:
            UserError: its mask is missing, of another size than the image, or with a value outside the classes.
        """
        truth = self._read(image.stem, labels.shape)
        self._matrix.update(torch.from_numpy(truth), torch.from_numpy(labels))
        self.scored += 1

    def evaluation(self, problems: list[str], protocol: str) -> Evaluation:
        """Of all images so far.

        Args:
            problems: a line for each image that could not be scored.
            protocol: how the labels were predicted, in words.

        Raises:
            UserError: no image was scored.
        """
        if not self.scored:
            raise UserError(f"no image could be scored; the first: {problems[0]}")
        scores = Scores(self.classes, self._matrix.compute())
        return Evaluation(str(self.folder), scores, self.scored, problems, protocol, examples=[])

    def _read(self, stem: str, size: tuple[int, ...]) -> Labels:
        candidates = as_on_disk(self.folder, [f"{stem}{suffix}" for suffix in SUFFIXES])
        path = next((self.folder / name for name in candidates if (self.folder / name).is_file()), None)
        if path is None:
            raise UserError(f"{self.folder / stem}.png: no label of this image")
        truth = read_mask(path)
        check_size(path, truth.shape, size)
        check_labels(path, np.bincount(truth.ravel(), minlength=256), len(self.classes))
        return truth
