"""PASCAL VOC 2012, and any set in its layout."""

from pathlib import Path
from typing import Literal

from segapp.base.classes import VOC_CLASSES
from segapp.base.errors import UserError
from segapp.data.dataset import Role, SegmentationDataset
from segapp.data.fingerprint import fingerprinted
from segapp.data.getting.sbd import get_trainaug
from segapp.data.getting.voc import LISTS, get_voc, lacking_of_voc
from segapp.data.options import DataOptions
from segapp.data.packed_strings import PackedPaths, PackedStrings
from segapp.data.pairs import OnUnpaired, find_files, read_list, refuse, without_mask

AUGMENTED = "SegmentationClassAug"
OFFICIAL = frozenset({"train", "val", "trainval", "trainaug", "test"})
"""Lists whose names say which images they hold; those of others carry a fingerprint."""


class Voc2012Config(DataOptions):
    """`train` and `val` name lists in ImageSets/Segmentation; see conf/data/voc2012.yaml.

    `download`: get what is missing. Without it, its absence is an error that says how to get it.
    """

    name: Literal["voc2012"]
    train: str
    val: str
    download: bool

    def dataset(self, role: Role, on_unpaired: OnUnpaired = refuse) -> SegmentationDataset:
        split = self.train if role == "train" else self.val
        if self.download and lacking_of_voc(self.root):
            get_voc(self.root)
        if self.download and split == "trainaug" and not (self.root / LISTS / "trainaug.txt").is_file():
            get_trainaug(self.root)
        if not (self.root / "JPEGImages").is_dir():
            raise UserError(
                f"VOC 2012 is not in {self.root}: python tools/prepare_data.py voc2012 gets it (4 GB), as does "
                "data.download=true; or name its folder VOC2012 with data.root=DIR"
            )
        return voc_layout(self.root, split, VOC_CLASSES, f"voc2012 {split}", on_unpaired)


def voc_layout(
    root: Path, split: str, classes: tuple[str, ...], name: str, on_unpaired: OnUnpaired = refuse
) -> SegmentationDataset:
    """One list of a set in VOC's layout, class 0 its background; trainaug's masks lie in SegmentationClassAug, and so
    do those of a list that is not whole in SegmentationClass.

    A list whose images all lack masks (VOC's test) gives a data set without labels.

    Raises:
        UserError: the list is missing or empty, or `on_unpaired` refuses what it names.
    """
    list_file = root / LISTS / f"{split}.txt"
    if not list_file.is_file():
        known = sorted(path.stem for path in list_file.parent.glob("*.txt"))
        hint = "; python tools/prepare_data.py sbd makes it, as does data.download=true" if split == "trainaug" else ""
        raise UserError(f"{list_file}: no such list; there are: {', '.join(known) or 'none'}{hint}")
    images = find_files(root, "JPEGImages", suffix=".jpg")
    of_trainaug = split == "trainaug" or b"SegmentationClassAug/" in list_file.read_bytes()
    masks = find_files(root, AUGMENTED if of_trainaug else "SegmentationClass", suffix=".png")
    ids, unpaired = read_list(list_file, images, masks)
    without = without_mask(ids, images, masks)
    if without and (root / AUGMENTED).is_dir():  # a list of one's own, of SBD's images
        augmented = find_files(root, AUGMENTED, suffix=".png")
        if not without_mask(ids, images, augmented):
            masks, without = augmented, []
    has_labels = len(without) < len(ids) or not ids
    unpaired += images.left_out
    on_unpaired([*unpaired, *without] if has_labels else unpaired)
    if has_labels:
        ids = [id for id in ids if id in masks.paths]
    image_files = PackedPaths(root, PackedStrings(images.paths[id] for id in ids))
    mask_files = PackedPaths(root, PackedStrings(masks.paths[id] for id in ids)) if has_labels else None
    if split not in OFFICIAL:
        name = fingerprinted(name, ids, image_files)
    return SegmentationDataset(name, classes, PackedStrings(ids), image_files, mask_files, background=0)
