"""What reading weights from elsewhere has in common, whoever wrote them."""

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from segapp.base.classes import ADE20K_CLASSES, CITYSCAPES_CLASSES, VOC_CLASSES, unnamed
from segapp.base.errors import UserError
from segapp.weights.description import Source

log = logging.getLogger(__name__)

CLASS_NAMES = {19: CITYSCAPES_CLASSES, 21: VOC_CLASSES, 151: ADE20K_CLASSES}
"""Those of Google's released networks, by their number."""
IMAGENET_CLASSES = 1000
FLOATS = (torch.float32, torch.float16, torch.bfloat16)
"""Types of weights; they become float32, which holds them all."""
COUNT = ".num_batches_tracked"
"""PyTorch's own, of no effect with a fixed momentum; not everybody keeps it."""

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class WeightsMetadata:
    """What weights from elsewhere do not tell of themselves.

    `classes`: None for the names usual for their number. `timm`: which network of timm's they are, by its name there;
    None for those that have an encoder of their own here.
    """

    address: str
    licence: str
    trained_on: tuple[str, ...]
    classes: tuple[str, ...] | None
    output_stride: Literal[8, 16, 32]
    canvas: int | None
    timm: str | None = None

    def source(self, sha256: str | None, files: list[Path]) -> Source:
        """Where weights come from; their checksum is that of `files` where it is not known already."""
        return Source(address=self.address, sha256=sha256 or sha256_of(files), licence=self.licence)


def class_names(path: Path, number: int, metadata: WeightsMetadata) -> tuple[str, ...]:
    """Those that were given, or are usual for their number.

    Raises:
        UserError: another number of them was given, or no network has so many.
    """
    if not 2 <= number <= 255:
        raise UserError(f"{path}: its logits are for {number} classes; 2 to 255 are possible")
    if metadata.classes is None:
        names = CLASS_NAMES.get(number) or unnamed(number)
        log.info(
            "class names as usual for %d classes: %s, ... (classes=FILE gives others)", number, ", ".join(names[:3])
        )
        return names
    if len(metadata.classes) != number:
        raise UserError(f"{path}: its logits are for {number} classes; {len(metadata.classes)} names were given")
    return metadata.classes


def counts(ours: Iterable[str]) -> Weights:
    """Zeros for what only PyTorch's BN counts."""
    return {name: torch.zeros((), dtype=torch.int64) for name in ours if name.endswith(COUNT)}


def check_finite(path: Path, name: str, tensor: Tensor) -> None:
    """Raises:
    UserError: a value is infinite or NaN.
    """
    if not tensor.sum(dtype=torch.float64).isfinite():  # which one value that is not makes so
        raise UserError(f"{path}: {name} holds values that are not finite")


def sha256_of(paths: list[Path]) -> str:
    """Of the files' contents one after another, in hexadecimal."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    return digest.hexdigest()


def imagenet_classes() -> tuple[str, ...]:
    """The 1000 names in ImageNet's order, as torchvision has them."""
    from torchvision.models import ResNet18_Weights  # a second of import that few need

    return tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])
