"""Images of few classes in folders, drawn by hand."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("blue", "green", "red")


def draw(root: Path, classes: Sequence[str] = CLASSES, number: int = 4, seed: int = 0) -> Path:
    """root/CLASS/N.jpg, noise of 40 x 48 pixels; what is called by a channel's name is brighter there."""
    random = np.random.default_rng(seed)
    for name in classes:
        (root / name).mkdir(parents=True)
        for at in range(number):
            pixels = random.integers(0, 100, (40, 48, 3)).astype(np.uint8)
            if name in CLASSES:
                pixels[..., 2 - CLASSES.index(name)] += 130
            Image.fromarray(pixels).save(root / name / f"{at}.jpg")
    return root


def split(root: Path, number: int = 4) -> Path:
    """With root/train and root/val."""
    for seed, role in enumerate(("train", "val")):
        draw(root / role, number=number, seed=seed)
    return root
