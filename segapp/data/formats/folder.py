"""Images and masks in folders, matched by name; CVAT's, Roboflow's and labelme's are such folders."""

import os
from typing import Literal

from pydantic import Field

from segapp.base.classes import background_of
from segapp.base.config import UserPath
from segapp.base.errors import UserError
from segapp.data.dataset import Role, SegmentationDataset
from segapp.data.fingerprint import fingerprinted
from segapp.data.formats.classes_file import Classes, read_classes
from segapp.data.formats.labelme import Outlines, labels_in
from segapp.data.hash_split import drawn_for_validation
from segapp.data.options import DataOptions
from segapp.data.packed_strings import PackedPaths, PackedStrings
from segapp.data.pairs import Files, OnUnpaired, Unpaired, find_files, read_list, refuse, without_mask

TRAIN_FOLDERS = frozenset({"train", "training"})
VAL_FOLDERS = frozenset({"val", "valid", "validation", "test", "testing"})


class FolderConfig(DataOptions):
    """Folders and lists are paths inside `root`; see conf/data/folder.yaml."""

    name: Literal["folder"]
    title: str | None
    images: str
    masks: str
    image_ending: str
    mask_ending: str
    mask_suffix: Literal[".json"] | None = None  # for kept configs of before there was one
    classes: UserPath | None
    train: str | None
    val: str | None
    val_fraction: float = Field(gt=0, lt=1)
    seed: int = Field(ge=0)

    def dataset(self, role: Role, on_unpaired: OnUnpaired = refuse) -> SegmentationDataset:
        """Raises:
        UserError: a folder, list or class file is missing or unfit, or `on_unpaired` refuses a name.
        """
        together = self.mask_suffix is None and os.path.normpath(self.images) == os.path.normpath(self.masks)
        if together and self.image_ending == self.mask_ending:
            raise UserError(
                f"{self.root / self.images}: holds images and masks; say with data.mask_ending which is which"
            )
        images = self._files(self.images, self.image_ending, self.mask_ending if together else "")
        masks = self._files(self.masks, self.mask_ending, suffix=self.mask_suffix)
        unpaired = [*images.left_out, *masks.left_out]
        train, val = self._split(images, masks, unpaired)
        ids = train if role == "train" else val
        if not ids and getattr(self, role) is None:
            raise UserError(
                f"{self.root / self.images}: {len(images.paths)} images leave none for {role}; "
                f"add images, or name lists with data.train and data.val"
            )
        unpaired += without_mask(ids, images, masks)
        for id in sorted(masks.paths.keys() - images.paths.keys()):
            why = f"no image of the same stem in {self.root / self.images}"
            unpaired.append(Unpaired("mask_without_image", str(self.root / masks.paths[id]), why))
        on_unpaired(unpaired)
        classes = self._classes(role, masks)
        ids = [id for id in ids if id in masks.paths]
        title = self.title or self.root.name or self.root.resolve().name
        split = str(getattr(self, role) or role).strip("/").removesuffix(".txt")
        image_files = PackedPaths(self.root, PackedStrings(images.paths[id] for id in ids))
        mask_files = PackedPaths(self.root, PackedStrings(masks.paths[id] for id in ids))
        name = fingerprinted(f"{title} {split}", ids, image_files)
        return SegmentationDataset(
            name, classes.names, PackedStrings(ids), image_files, mask_files, classes.read_label, classes.background
        )

    def _classes(self, role: Role, masks: Files) -> Classes:
        """Those of a role, whose folder stands for a * where each has its own file."""
        if self.mask_suffix is not None:
            names = (
                labels_in([self.root / path for path in masks.paths.values()])
                if self.classes is None
                else read_classes(self.root / self.classes).names
            )
            return Classes(names, Outlines(names), background=background_of(names))
        if self.classes is None:
            raise UserError(
                "data.classes=null: masks do not name their classes; name a file that does (data/README.md)"
            )
        folder = getattr(self, role)
        if "*" in self.classes.parts and folder is None:
            raise UserError(f"data.classes={self.classes}: set data.{role}, the folder that its * stands for")
        parts = [folder if part == "*" else part for part in self.classes.parts]
        return read_classes(self.root.joinpath(*parts))

    def _files(self, folder: str, ending: str, not_ending: str = "", suffix: str | None = None) -> Files:
        files = find_files(self.root, folder, ending=ending, not_ending=not_ending, suffix=suffix)
        if not files.paths and "*" not in folder and not (self.root / folder).is_dir():
            raise UserError(
                f"{self.root / folder}: no such folder; set data.root, data.images and data.masks (data/README.md)"
            )
        if not files.paths:
            named = f" with names that end in {ending}" if ending else ""
            what = "pictures" if suffix is None else f"files {suffix}"
            raise UserError(f"{self.root / folder}: no {what}{named} in this folder or below")
        return files

    def _split(self, images: Files, masks: Files, unpaired: list[Unpaired]) -> tuple[list[str], list[str]]:
        """The ids that train and those that validate; `unpaired` takes what lists name in vain."""
        train, val = (self._chosen(role, images, masks, unpaired) for role in ("train", "val"))
        if train is None and val is None:
            val = self._drawn(images)
        if train is None:
            train = sorted(images.paths.keys() - set(val or ()))
        if val is None:
            val = sorted(images.paths.keys() - set(train))
        return train, val

    def _drawn(self, images: Files) -> list[str]:
        folders = {id.partition("/")[0] for id in images.paths if "/" in id}
        if folders & TRAIN_FOLDERS and folders & VAL_FOLDERS:
            train, val = min(folders & TRAIN_FOLDERS), max(folders & VAL_FOLDERS)
            raise UserError(
                f"{self.root / self.images}: its folders {train} and {val} look like a split, which a drawn one would "
                f"mix; set data.train={train} data.val={val}"
            )
        return drawn_for_validation(images.paths, self.val_fraction, self.seed)

    def _chosen(self, role: Role, images: Files, masks: Files, unpaired: list[Unpaired]) -> list[str] | None:
        """The ids of a folder of images, or of a list."""
        name: str | None = getattr(self, role)
        if name is None:
            return None
        prefix = f"{name.strip('/')}/"
        inside = sorted(id for id in images.paths if id.startswith(prefix))
        listed_in = self.root / name
        if not inside:
            if not listed_in.is_file():
                raise UserError(
                    f"data.{role}={name}: {listed_in} is no list, and {self.root / self.images} has no folder {name} "
                    "with images"
                )
            ids, more = read_list(listed_in, images, masks)
            unpaired += more
            return ids
        if listed_in.is_file():
            raise UserError(f"data.{role}={name}: both a list, {listed_in}, and a folder of images; rename one")
        return inside
