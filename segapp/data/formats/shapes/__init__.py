"""A small synthetic data set in PASCAL VOC's layout, drawn from a seed.

Every class has a shape, a texture and a wide band of hues. The bands overlap with each other, with the
background and with clutter of other shapes and textures, so that colour alone tells little.
"""

import logging
import shutil
import uuid
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from segapp.base.classes import voc_palette
from segapp.base.images import write_image
from segapp.base.logs import progress_bar
from segapp.base.masks import write_mask
from segapp.data.dataset import Role, SegmentationDataset
from segapp.data.formats.shapes.scene import draw_scene
from segapp.data.formats.voc import voc_layout
from segapp.data.options import DataOptions
from segapp.data.pairs import OnUnpaired, refuse

log = logging.getLogger(__name__)

VERSION = 1
"""Of the drawings: raise it when a seed gives other pictures."""

SHAPES_CLASSES = ("background", "disc", "tile", "star", "leaf", "ring", "flower")
"""Background, and then those of `things.KINDS` in their order."""


def make_shapes(root: Path, *, train: int, val: int, height: int, width: int, seed: int) -> None:
    """Draws the whole set into `root`, or nothing at all.

    Image i is the same whatever the number of images: it depends on (seed, i) and the size alone. The first
    `train` images are the training split.

    Raises:
        FileExistsError: `root` is there already.
    """
    if root.exists():
        raise FileExistsError(root)
    temporary = root.with_name(f".{uuid.uuid4().hex[:8]}-{root.name}")
    images, masks, lists = (temporary / name for name in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"))
    names = [f"{index:06d}" for index in range(train + val)]
    palette = voc_palette()
    try:
        for folder in (images, masks, lists):
            folder.mkdir(parents=True)
        with progress_bar(len(names), "drawing shapes", "image", leave=False) as progress:
            for index, name in enumerate(names):
                image, label = draw_scene(np.random.default_rng([seed, index]), height, width)
                write_image(images / f"{name}.jpg", image)
                write_mask(masks / f"{name}.png", label, palette)
                progress.update()
        for split, members in (("train", names[:train]), ("val", names[train:]), ("trainval", names)):
            (lists / f"{split}.txt").write_text("".join(f"{name}\n" for name in members), encoding="utf-8")
        temporary.rename(root)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


class ShapesConfig(DataOptions):
    """Drawn on first use into a folder of `root` that the other values name; see conf/data/shapes.yaml."""

    name: Literal["shapes"]
    train: int = Field(gt=0)
    val: int = Field(gt=0)
    height: int = Field(ge=32, le=4096)
    width: int = Field(ge=32, le=4096)
    seed: int = Field(ge=0, lt=2**63)

    def dataset(self, role: Role, on_unpaired: OnUnpaired = refuse) -> SegmentationDataset:
        folder = self.root / f"v{VERSION}_{self.train}+{self.val}_{self.width}x{self.height}_seed{self.seed}"
        if not folder.exists():
            log.info("drawing %d + %d images into %s", self.train, self.val, folder)
            sizes = {"train": self.train, "val": self.val, "height": self.height, "width": self.width}
            try:
                make_shapes(folder, **sizes, seed=self.seed)
            except OSError:
                if not folder.exists():  # else another process, such as a run of the same sweep, was sooner
                    raise
        return voc_layout(folder, role, SHAPES_CLASSES, f"shapes {role}", on_unpaired)
