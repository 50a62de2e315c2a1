"""Folders of images and masks for `data=folder`."""

from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

from segapp.base.classes import voc_palette
from segapp.base.masks import write_mask
from segapp.base.paths import CONF
from segapp.data.formats.folder import FolderConfig


def make_folder(root: Path, number: int = 20) -> None:
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    for index in range(number):
        suffix = (".jpg", ".png", ".JPG")[index % 3]
        Image.new("RGB", (10, 8), (index, 0, 0)).save(root / "images" / f"photo {index}{suffix}")
        write_mask(root / "masks" / f"photo {index}.png", np.full((8, 10), index % 3, np.uint8), voc_palette())
    (root / "classes.yaml").write_text("- background\n- cat\n- dog\n")


def folder(root: Path, **changes: Any) -> FolderConfig:
    values = yaml.safe_load((CONF / "data" / "folder.yaml").read_text())
    return FolderConfig.model_validate(values | {"root": root} | changes)
