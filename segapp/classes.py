"""Class names and colours."""

import numpy as np
import numpy.typing as npt

IGNORE_INDEX = 255
"""Label value of pixels that are neither trained on nor scored (VOC's void)."""

VOC_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip


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
