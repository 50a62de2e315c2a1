"""Draws docs/photos.jpg: free photographs, and what the embedded network makes of them.

    uv run --with scikit-image python docs/draw_photos.py

The photographs come with scikit-image: chelsea, a cat (Stefan van der Walt, CC0); astronaut, a person (NASA, public
domain); motorcycle_left (Middlebury's stereo benchmark of 2014,
D. Scharstein and others).
"""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from skimage import data

import segapp
from segapp.base.classes import voc_palette
from segapp.base.drawing import overlay
from segapp.inference.predictor import Predictor

Array = npt.NDArray[np.uint8]

HEIGHT = 300  # pixels, of each photograph
GAP = 6


def shown(photo: Array, segment: Predictor) -> Array:
    """The photograph beside its overlay, as `predict` draws it."""
    small = np.asarray(Image.fromarray(photo).resize((round(photo.shape[1] * HEIGHT / photo.shape[0]), HEIGHT)))
    over = overlay(small, segment(small), segment.classes, voc_palette(), background=0)
    return np.concatenate([small, np.full((GAP, *small.shape[1:]), 255, np.uint8), over])


def main() -> None:
    segment = segapp.load(device="cpu")
    columns = [shown(photo, segment) for photo in (data.chelsea(), data.astronaut(), data.stereo_motorcycle()[0])]
    height = min(len(each) for each in columns)
    gap = np.full((height, GAP, 3), 255, np.uint8)
    page = np.concatenate([part for each in columns for part in (gap, each[:height])][1:], 1)
    Image.fromarray(page).save(Path(__file__).parent / "photos.jpg", quality=88)


if __name__ == "__main__":
    main()
