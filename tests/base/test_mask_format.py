"""What a mask's file says of itself, by its content and whatever its suffix."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from segapp.base.classes import voc_palette
from segapp.base.mask_format import mask_format
from segapp.base.masks import write_mask


def test_lossy_formats_are_known_by_content(tmp_path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))
    kinds: list[tuple[str, dict[str, Any], bool]] = [
        ("a.jpg", {}, True),
        ("a.webp", {}, True),
        ("alpha.webp", {"exif": b"x"}, True),
        ("exact.webp", {"lossless": True}, False),
        ("exact_exif.webp", {"lossless": True, "exif": b"x"}, False),
        ("a.avif", {}, True),
        ("a.jp2", {"irreversible": True}, True),
        ("exact.jp2", {}, False),
        ("a.png", {}, False),
        ("a.bmp", {}, False),
        ("a.gif", {}, False),
        ("a.tif", {}, False),
    ]
    for name, options, expected in kinds:
        picture.save(tmp_path / name, **options)
        (tmp_path / "renamed.png").write_bytes((tmp_path / name).read_bytes())
        assert bool(mask_format(tmp_path / name).lossy) is expected, name
        assert bool(mask_format(tmp_path / "renamed.png").lossy) is expected, name
    picture.convert("L").save(tmp_path / "jpeg.tif", compression="jpeg")
    assert mask_format(tmp_path / "jpeg.tif").lossy
    assert not mask_format(tmp_path / "a.tif").lossy
    assert not mask_format(tmp_path / "absent.png").lossy
    frames = [picture, picture.rotate(90)]
    for lossless in (True, False):
        frames[0].save(tmp_path / "film.webp", save_all=True, append_images=frames[1:], lossless=lossless)
        assert bool(mask_format(tmp_path / "film.webp").lossy) is not lossless


def test_palettes_are_told(tmp_path: Path) -> None:
    write_mask(tmp_path / "voc.png", np.zeros((3, 3), np.uint8), voc_palette())
    assert np.array_equal(mask_format(tmp_path / "voc.png").palette, voc_palette())  # type: ignore[arg-type]
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(tmp_path / "grey.png")
    assert mask_format(tmp_path / "grey.png").palette is None
