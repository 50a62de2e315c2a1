"""Images in a folder for each class, as ImageNet's are kept: for classification."""

import logging
import posixpath
from collections import Counter
from typing import Literal

import numpy as np
from pydantic import Field

from segapp.base.errors import UserError, number_of
from segapp.data.dataset import ClassificationDataset, Role
from segapp.data.fingerprint import fingerprinted
from segapp.data.hash_split import drawn_for_validation
from segapp.data.options import DataOptions
from segapp.data.packed_strings import PackedPaths, PackedStrings
from segapp.data.pairs import COMPANIONS, is_picture, names_below

log = logging.getLogger(__name__)

FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation", "test", "testing")}
"""What folders of a role are called where nobody has said so, the likeliest first."""
LAYOUT = "DIR/train/CLASS/*.jpg and DIR/val/CLASS/*.jpg, or DIR/CLASS/*.jpg, is expected in data.root=DIR"


class ImageFolderConfig(DataOptions):
    """`train` and `val` are folders of class folders inside `root`; see conf/data/image_folder.yaml."""

    name: Literal["image_folder"]
    title: str | None
    train: str | None
    val: str | None
    val_fraction: float = Field(gt=0, lt=1)
    seed: int = Field(ge=0)

    def dataset(self, role: Role) -> ClassificationDataset:
        """The classes are the names of the class folders, in order. An image's id is its path inside `root`.

        Raises:
            UserError: a folder is missing, or holds pictures of fewer than two classes, or none for the role.
        """
        if not self.root.is_dir():
            raise UserError(f"{self.root}: no such folder; {LAYOUT}")
        files = sorted(names_below(self.root))
        names = [name for name in files if is_picture(name)]
        folders = {each: self._folder(each, names) for each in FOLDERS}
        if folders["train"] is None and folders["val"] is not None:
            raise UserError(f"{self.root}: {folders['val']} validates, and no folder trains; set data.train")
        tree = folders[role] or folders["train"] or ""
        inside = [name for name in names if name.startswith(tree) and "/" in name.removeprefix(tree)]
        self._tell(tree, files, inside)
        classes = tuple(sorted({_first(name, tree) for name in inside}))
        if len(classes) < 2:
            raise UserError(f"{self.root / tree}: pictures in {number_of(len(classes), 'class folder')}; {LAYOUT}")
        if folders["val"] is None:  # one tree, of which a part validates
            drawn = set(drawn_for_validation(inside, self.val_fraction, self.seed))
            inside = [name for name in inside if (name in drawn) == (role == "val")]
        if not inside:
            raise UserError(f"{self.root / tree}: leaves no image for {role}; add images, or set data.{role}")
        places = {name: index for index, name in enumerate(classes)}
        labels = np.array([places[_first(name, tree)] for name in inside], np.int64)
        ids = PackedStrings(inside)
        images = PackedPaths(self.root, ids)
        title = self.title or self.root.name or self.root.resolve().name
        return ClassificationDataset(fingerprinted(f"{title} {role}", inside, images), classes, ids, images, labels)

    def _folder(self, role: str, names: list[str]) -> str | None:
        """What the names of a role's pictures begin with, as in "train/"; None where it has no folder of its own."""
        chosen: str | None = getattr(self, role)
        if chosen is not None:
            prefix = f"{posixpath.normpath(chosen).strip('/')}/"
            if not any(name.startswith(prefix) for name in names):
                raise UserError(f"data.{role}={chosen}: no pictures in {self.root / chosen}; {LAYOUT}")
            return prefix
        if role == "val" and self.train is not None:
            return None
        holders = {_first(name, "") for name in names if name.count("/") > 1}  # of class folders
        found = [each for usual in FOLDERS[role] for each in sorted(holders) if each.lower() == usual]
        return f"{found[0]}/" if found else None

    def _tell(self, tree: str, files: list[str], inside: list[str]) -> None:
        """Warns of what lies there and is not read."""
        here = [name for name in files if name.startswith(tree)]
        loose = sum(is_picture(name) for name in here) - len(inside)
        if loose:
            log.warning("%s: %s in no class folder, left out", self.root / tree, number_of(loose, "picture"))
        unread = Counter(posixpath.splitext(name)[1].lower() for name in here if not is_picture(name))
        for ending, number in sorted(unread.items()):
            if ending not in COMPANIONS:
                told = number_of(number, "file")
                log.warning("%s: %s %s not read: the ending is not that of a picture", self.root / tree, told, ending)


def _first(name: str, tree: str) -> str:
    """The folder inside `tree` that a picture lies in."""
    return name.removeprefix(tree).partition("/")[0]
