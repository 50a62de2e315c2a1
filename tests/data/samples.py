"""Small images and masks, alone and in folders."""

from pathlib import Path

import numpy as np
from PIL import Image

from segapp.data.formats.folder import FolderConfig


def grey(*rows: list[int]) -> Image.Image:
    return Image.fromarray(np.array(rows, np.uint8))


def put(root: Path, *names: str) -> None:
    """Images where the name begins with i, masks of zeros elsewhere."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB" if name.startswith("i") or "/i" in name else "L", (4, 4)).save(path)
    if not (root / "classes.yaml").exists():
        (root / "classes.yaml").write_text("[a, b]")


def ids(config: FolderConfig) -> tuple[list[str], list[str]]:
    return config.dataset("train").ids[:], config.dataset("val").ids[:]
