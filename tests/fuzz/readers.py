"""The public readers, each asked for a file; what it makes of one must be sound.

A reader raises UserError where it refuses the file.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from segapp.base.errors import UserError
from segapp.base.images import image_size, read_image
from segapp.base.masks import read_colours, read_mask
from segapp.data.formats.classes_file import read_classes
from segapp.data.formats.coco.annotations import read_annotations
from segapp.data.formats.coco.drawing import draw
from segapp.data.formats.labelme import Outlines, labels_in
from segapp.data.pairs import Files, read_list, refuse
from segapp.models.deeplabv3plus import DeepLabV3PlusConfig
from segapp.weights.checkpoint import read_info, read_weights, shapes_of
from segapp.weights.sources.common import WeightsMetadata
from segapp.weights.sources.convert import convert
from segapp.weights.sources.tensorflow_checkpoint import TFCheckpoint

MOST_PIXELS = 1 << 22
"""What is larger is refused, so that most cases are quick."""
NOTHING = WeightsMetadata("somewhere", "unknown", (), None, 16, 513)


def picture(path: Path) -> None:
    """All four readers; a picture that is no mask is a result all the same."""
    for read in (read_mask, read_colours):
        try:
            array = read(path, MOST_PIXELS)
        except UserError as error:
            one_line(error)
        else:
            assert array.dtype == np.uint8
            assert array.ndim == (2 if read is read_mask else 3)
            assert array.size
    image = read_image(path, MOST_PIXELS)
    assert image.dtype == np.uint8
    assert image.shape == (*image_size(path, MOST_PIXELS), 3)
    assert image.size


def one_line(error: UserError) -> None:
    message = str(error)
    assert message.isprintable(), f"a message with what cannot be shown: {message!r}"
    assert 10 < len(message) < 20_000, f"a message of {len(message)} characters"


def classes(path: Path) -> None:
    found = read_classes(path)
    assert 2 <= len(found.names) <= 255
    assert len(set(found.names)) == len(found.names)
    assert all(name.isprintable() for name in found.names)
    assert found.background is None or 0 <= found.background < len(found.names)


def image_list(path: Path) -> None:
    """Of a data set of four images, three of which have masks."""
    root = path.parent
    images = Files(root, "images", "", {name: f"images/{name}.jpg" for name in ("a", "b", "c", "d e")}, [])
    masks = Files(root, "masks", "", {name: f"masks/{name}.png" for name in ("b", "c", "d e")}, [])
    ids, unpaired = read_list(path, images, masks)
    assert len(set(ids)) == len(ids)
    assert set(ids) <= set(images.paths)
    refuse(unpaired)


def coco(path: Path) -> None:
    """Read as any set, and with classes chosen; each mask is drawn."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError("not in UTF-8, which masks.py refuses") from None
    try:
        read_annotations(text, {"animal": ("dog", "cat")})
    except UserError as error:
        one_line(error)
    names, pictures, _ = read_annotations(text, None)
    for each in pictures:
        label, fates = draw(each.height, each.width, each.regions)
        assert label.shape == (each.height, each.width)
        assert label.dtype == np.uint8
        assert len(fates) == len(each.regions)
        assert set(np.unique(label)) <= {*range(len(names)), 255}


def labelme(path: Path) -> None:
    """As a mask, and for its classes."""
    try:
        names = labels_in([path])
        assert len(set(names)) == len(names)
    except UserError as error:
        one_line(error)
    label = Outlines(("background", "cat"))(path)
    assert label.dtype == np.uint8
    assert label.ndim == 2
    assert set(np.unique(label)) <= {0, 1, 255}


def ours(network: DeepLabV3PlusConfig, classes: int) -> Callable[[Path], None]:
    """Also into a network that is there already, as training does."""
    with torch.device("meta"):
        expected = network.build(classes).state_dict()

    def read(path: Path) -> None:
        try:
            weights = read_weights(path, expected)
        except UserError as error:
            one_line(error)
        else:
            assert all(weights[name].shape == tensor.shape for name, tensor in expected.items())
        read_info(path)
        converted(path)

    return read


def converted(path: Path) -> None:
    info, weights = convert(path, NOTHING, path.parent)
    assert len(info.describe().splitlines()) == 1
    expected = shapes_of(info)
    assert weights.keys() == expected.keys()
    assert all(weights[name].shape == tensor.shape for name, tensor in expected.items())
    assert all(weights[name].dtype == tensor.dtype for name, tensor in expected.items())


def tensors(path: Path) -> None:
    """Each of a TensorFlow checkpoint."""
    checkpoint = TFCheckpoint(path.with_suffix(""))
    for name in checkpoint:
        tensor = checkpoint[name]
        assert tuple(tensor.shape) == checkpoint.entries[name].shape
