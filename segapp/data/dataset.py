"""What a data set is: images, masks where there are any, and what the masks' values mean."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, final

import numpy as np
import numpy.typing as npt

from segapp.base.classes import IGNORE_INDEX
from segapp.base.errors import UserError
from segapp.base.images import AS_USUAL, Decoding, read_image
from segapp.base.masks import read_mask
from segapp.data.diagnosis import diagnose_values, lossy_format
from segapp.data.fates import Fates
from segapp.data.packed_strings import PackedStrings

Array = npt.NDArray[np.uint8]
Role = Literal["train", "val"]
"""What one of a data set's splits is used for."""


@dataclass(frozen=True)
class Sample:
    """`image`: H x W x 3 uint8 RGB. `label`: H x W uint8 class indices, 255 ignored; None where there is none.

    A classification data set has one label an image, in `ClassificationDataset.labels`.
    """

    image: Array
    label: Array | None
    id: str


class ImageDataset(Protocol):
    """What every data set is: images with ids, and names of classes. Picklable, and small however long."""

    name: str
    classes: tuple[str, ...]
    ids: PackedStrings
    images: Sequence[Path]
    masks: Sequence[Path] | None
    decoding: Decoding

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample: ...


@dataclass(frozen=True)
class Indexed:
    """Reads masks whose values are class indices."""

    def __call__(self, path: Path) -> Array:
        return read_mask(path)


@dataclass(eq=False, repr=False)
class SegmentationDataset:
    """Pairs of image and mask files. Picklable, and small however long: see `segapp.data.packed_strings`.

    Args:
        name: as shown to people, for instance "voc2012 val".
        classes: names by index.
        ids: one an image.
        images, masks: their files; no masks for a test set.
        read_label: a mask's file to class indices and 255, H x W uint8; its repr tells it from others, for caches.
        background: the class that pictures leave uncoloured; None where every class is a thing to be seen.
        decoding: of the images.
        fates: of the annotations that the masks were drawn from; None where masks are what people made.
    """

    name: str
    classes: tuple[str, ...]
    ids: PackedStrings
    images: Sequence[Path]
    masks: Sequence[Path] | None
    read_label: Callable[[Path], Array] = Indexed()
    background: int | None = None
    decoding: Decoding = AS_USUAL
    fates: Fates | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Raises:
        UserError: the image or its mask is missing or damaged, or the mask of another size or with a value that is
            neither a class nor 255.
        """
        image = read_image(self.images[index], decoding=self.decoding)
        label = None
        if self.masks is not None:
            mask = self.masks[index]
            label = self.read_label(mask)
            check_size(mask, label.shape, image.shape)
            if (label + np.uint8(1)).max() > len(self.classes):  # 255 becomes 0; far sooner than a count
                check_labels(mask, np.bincount(label.ravel(), minlength=256), len(self.classes))
        return Sample(image, label, self.ids[index])


@final
@dataclass(eq=False, repr=False)
class ClassificationDataset:
    """Images, each of one class.

    Args:
        name, classes, ids, images, decoding: as in `SegmentationDataset`.
        labels: class indices, N int64.
    """

    name: str
    classes: tuple[str, ...]
    ids: PackedStrings
    images: Sequence[Path]
    labels: npt.NDArray[np.int64]
    decoding: Decoding = AS_USUAL
    masks: Sequence[Path] | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        """Raises:
        UserError: the image is missing or damaged.
        """
        return Sample(read_image(self.images[index], decoding=self.decoding), None, self.ids[index])


class MaskSizeError(UserError):
    """A mask is of another size than its image."""


class UnlistedError(UserError):
    """A mask holds a value or a colour that the file of classes does not name; `cause` is the likely reason."""

    def __init__(self, problem: str, cause: str) -> None:
        super().__init__(f"{problem}; {cause}")
        self.problem = problem
        self.cause = cause


def check_size(mask: Path, size: tuple[int, ...], image_size: tuple[int, ...]) -> None:
    """Raises:
    MaskSizeError: a mask's (height, width) is not its image's.
    """
    if size[:2] != image_size[:2]:
        raise MaskSizeError(f"{mask}: the mask is {size[1]} x {size[0]}, its image {image_size[1]} x {image_size[0]}")


def check_labels(mask: Path, pixels: npt.NDArray[np.int64], num_classes: int, *, blurred: bool = False) -> None:
    """Args:
        pixels: by value, 0 to 255. blurred: whether the mask's edges are mixed.

    Raises:
        UserError: a value that is neither a class nor 255 has pixels.
    """
    outside = np.flatnonzero(pixels[num_classes:IGNORE_INDEX])
    if len(outside):
        listed = {*range(num_classes), IGNORE_INDEX}
        cause = diagnose_values(np.flatnonzero(pixels).tolist(), listed, lossy=lossy_format(mask), blurred=blurred)
        raise UserError(
            f"{mask}: label value {num_classes + outside[0]} is outside the {num_classes} classes "
            f"(0 to {num_classes - 1}, and 255 for ignored pixels); {cause}"
        )
