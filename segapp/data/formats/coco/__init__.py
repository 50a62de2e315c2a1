"""COCO's instances, and any JSON file in its format, as one class index a pixel.

The rules, where outlines leave a choice:

- Instances that overlap: the smaller one (by its own pixels) lies on top, and of equals the later in the file. COCO
  outlines a sofa or a table with what is on it, and what is on it is smaller.
- Crowd regions (iscrowd) of a class are 255, below every instance: they outline a group roughly, and an instance
  drawn inside one is the better information.
- Categories outside the classes are background, their crowds too, and hide nothing.
- An image is kept if at least `min_pixels` pixels of the finished mask are of a class: neither background nor 255.

Masks are drawn once (masks.py), into a folder whose name holds a hash of the annotation file's content and of these
rules.
"""

from typing import Literal

from pydantic import Field, field_validator

from segapp.base.classes import BACKGROUND
from segapp.base.config import Config, Words
from segapp.base.errors import UserError, first_twice
from segapp.data.dataset import Role, SegmentationDataset
from segapp.data.fingerprint import fingerprinted
from segapp.data.formats.coco.annotations import MAX_CLASSES, stem_of
from segapp.data.formats.coco.masks import Source, draw_masks, read_index
from segapp.data.getting.coco import get_coco
from segapp.data.hash_split import drawn_for_validation
from segapp.data.options import DataOptions
from segapp.data.packed_strings import PackedPaths, PackedStrings
from segapp.data.pairs import OnUnpaired, not_there, refuse


class CocoSplit(Config):
    """A folder of images and the JSON file that annotates them, both inside the root."""

    images: str
    annotations: str


class CocoConfig(DataOptions):
    """`classes` maps each class to the names of its categories; see conf/data/coco.yaml and coco_voc.yaml."""

    name: Literal["coco"]
    title: str | None
    train: CocoSplit
    val: CocoSplit | None
    val_fraction: float = Field(default=0.2, gt=0, lt=1)  # these two for kept configs of before there was one
    seed: int = Field(default=0, ge=0)
    classes: dict[str, Words] | None
    min_pixels: int = Field(ge=0)
    download: bool

    @field_validator("classes")
    @classmethod
    def _are_apart(cls, classes: dict[str, tuple[str, ...]] | None) -> dict[str, tuple[str, ...]] | None:
        if classes is not None:
            categories = [category for names in classes.values() for category in names]
            if len(set(categories)) < len(categories):
                raise ValueError(f"category {first_twice(categories)} is named twice")
            if BACKGROUND in classes:
                raise ValueError("background is what the classes leave over; leave it out")
            if not 1 <= len(classes) <= MAX_CLASSES:
                raise ValueError(f"1 to {MAX_CLASSES} classes are possible besides background")
        return classes

    def dataset(self, role: Role, on_unpaired: OnUnpaired = refuse) -> SegmentationDataset:
        """Draws the masks on first use.

        Raises:
            UserError: the annotations or, if `on_unpaired` refuses that, images are missing, or the one do not fit
                the other.
        """
        split = self.val if role == "val" and self.val is not None else self.train
        annotations, images = self.root / split.annotations, self.root / split.images
        if self.download and not annotations.is_file():
            get_coco(self.root)
        if not annotations.is_file():
            coco = "tools/prepare_data.py coco_voc gets COCO, data.root names its folder; " * (self.title == "coco")
            own = f"data.{role}.annotations names the JSON, and data.val=null takes a share of train's images"
            raise UserError(f"{annotations}: no such file; {coco}{own}")
        title = self.title or self.root.absolute().name
        name = f"{title} {role}" if self.val is not None else title  # whose masks are drawn: both splits' together
        source = Source(name, images, annotations, self.classes, self.min_pixels)
        masks = draw_masks(source, self.root, on_unpaired)
        classes, kept, fates = read_index(masks)
        if not kept:
            raise UserError(f"{annotations}: no image has {self.min_pixels} pixels of the classes (data.min_pixels)")
        if self.val is None:
            name = f"{title} {role}"
            drawn = {*drawn_for_validation(map(stem_of, kept), self.val_fraction, self.seed)}
            kept = [file_name for file_name in kept if (stem_of(file_name) in drawn) == (role == "val")]
            if not kept:
                raise UserError(f"{annotations}: too few images to leave one for {role}")
        on_unpaired(source.absent(kept))
        absent = {*not_there(images, kept)}
        kept = [file_name for file_name in kept if file_name not in absent]
        ids, image_files = [stem_of(file_name) for file_name in kept], PackedPaths(images, PackedStrings(kept))
        name = fingerprinted(name, ids, image_files)
        packed_ids = PackedStrings(ids)
        mask_files = PackedPaths(masks, packed_ids, ".png")
        return SegmentationDataset(name, classes, packed_ids, image_files, mask_files, background=0, fates=fates)
