"""Class names and colours."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

IGNORE_INDEX = 255
"""Label value of pixels that are neither trained on nor scored (VOC's void)."""

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip

CITYSCAPES_CLASSES = (
    "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation",
    "terrain", "sky", "person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle",
)  # fmt: skip
"""By train id."""

ADE20K_CLASSES = (
    "other", "wall", "building", "sky", "floor", "tree", "ceiling", "road", "bed", "windowpane", "grass", "cabinet",
    "sidewalk", "person", "earth", "door", "table", "mountain", "plant", "curtain", "chair", "car", "water",
    "painting", "sofa", "shelf", "house", "sea", "mirror", "rug", "field", "armchair", "seat", "fence", "desk",
    "rock", "wardrobe", "lamp", "bathtub", "railing", "cushion", "base", "box", "column", "signboard",
    "chest of drawers", "counter", "sand", "sink", "skyscraper", "fireplace", "refrigerator", "grandstand", "path",
    "stairs", "runway", "case", "pool table", "pillow", "screen door", "stairway", "river", "bridge", "bookcase",
    "blind", "coffee table", "toilet", "flower", "book", "hill", "bench", "countertop", "stove", "palm",
    "kitchen island", "computer", "swivel chair", "boat", "bar", "arcade machine", "hovel", "bus", "towel", "light",
    "truck", "tower", "chandelier", "awning", "streetlight", "booth", "television receiver", "airplane",
    "dirt track", "apparel", "pole", "land", "bannister", "escalator", "ottoman", "bottle", "buffet", "poster",
    "stage", "van", "ship", "fountain", "conveyer belt", "canopy", "washer", "plaything", "swimming pool", "stool",
    "barrel", "basket", "waterfall", "tent", "bag", "minibike", "cradle", "oven", "ball", "food", "step", "tank",
    "trade name", "microwave", "pot", "animal", "bicycle", "lake", "dishwasher", "screen", "blanket", "sculpture",
    "hood", "sconce", "vase", "traffic light", "tray", "ashcan", "fan", "pier", "crt screen", "plate", "monitor",
    "bulletin board", "shower", "radiator", "glass", "clock", "flag",
)  # fmt: skip
"""The 150 of the scene parsing benchmark; index 0 is what they leave over, which is not trained on."""


def unnamed(number: int) -> tuple[str, ...]:
    """What classes are called whose names nobody knows."""
    return tuple(f"class {index}" for index in range(number))


BACKGROUND = "background"
"""What the class is called that is left where nothing else is."""


def background_of(classes: Sequence[str]) -> int | None:
    """The class that pictures leave uncoloured where nothing else is said: one named background, None without one."""
    names = [name.lower() for name in classes]
    return names.index("background") if "background" in names else None


def voc_palette() -> npt.NDArray[np.uint8]:
    """The 256 colours of PASCAL VOC's masks, 256 x 3 RGB.

    Bit b of the index's k-th octal digit sets bit 7 - k of channel b (VOC devkit, VOClabelcolormap.m).
    """
    index = np.arange(256)
    palette = np.zeros((256, 3), np.uint8)
    for digit in range(8):
        for channel in range(3):
            palette[:, channel] |= (((index >> (3 * digit + channel)) & 1) << (7 - digit)).astype(np.uint8)
    return palette
