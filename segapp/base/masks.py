"""Reads and writes the files of masks: the only place."""

import io
import struct
import zlib
from pathlib import Path

import deflate
import numpy as np
from PIL import Image

from segapp.base.errors import UserError
from segapp.base.files import atomic_write
from segapp.base.images import MAX_PIXELS, Array, decoded, open_picture, orientation_of, turned


class NotIndexedError(UserError):
    """A sound picture whose values are no class indices."""


def _plain_png(path: Path, max_pixels: int) -> Array | None:
    """The bytes of a palette or grey PNG that nobody filtered, as masks are written, in a third of Pillow's time.

    None where Pillow must decide: everything else, and all that is damaged.
    """
    try:
        data = path.read_bytes()
        if data[:16] != b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR":
            return None
        width, height, depth, colours, _, _, interlace = struct.unpack(">IIBBBBB", data[16:29])
        if (depth, interlace) != (8, 0) or colours not in (0, 3) or not 0 < height * width <= max_pixels:
            return None
        packed, at = [], 8
        while at < len(data):
            end = at + 8 + int.from_bytes(data[at : at + 4], "big")
            if zlib.crc32(data[at + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
                return None
            if data[at + 4 : at + 8] == b"eXIf":  # which may ask for a turn
                return None
            if data[at + 4 : at + 8] == b"IDAT":
                packed.append(data[at + 8 : end])
            at = end + 4
        pixels = deflate.zlib_decompress(b"".join(packed), height * (width + 1))
    except (OSError, struct.error, deflate.DeflateError):  # of which one says that there is more
        return None
    if len(pixels) != height * (width + 1):
        return None
    rows = np.frombuffer(pixels, np.uint8).reshape(height, width + 1)
    return None if rows[:, 0].any() else rows[:, 1:].copy()  # each row begins with the number of its filter


def read_mask(path: Path, max_pixels: int = MAX_PIXELS) -> Array:
    """An indexed mask as H x W uint8: palette indices, or grey values as they stand; turned as its EXIF says.

    Raises:
        UserError: missing, damaged, in colours, or with values above 255.
    """
    indices = _plain_png(path, max_pixels)
    if indices is not None:
        return indices
    with open_picture(path, max_pixels) as opened:
        mask = turned(decoded(path, opened), orientation_of(opened))
        if mask.mode in ("P", "L"):
            return np.array(mask)
        if mask.mode == "1":
            return np.array(mask).astype(np.uint8)
        if mask.mode.startswith("I"):
            deep = np.asarray(mask)
            if deep.min() >= 0 and deep.max() <= 255:
                return deep.astype(np.uint8)
            wrong = f"{deep.min()} is below 0" if deep.min() < 0 else f"{deep.max()} is above 255"
            raise NotIndexedError(
                f"{path}: mask value {wrong}; masks hold class indices 0 to 254, and 255 for ignored pixels"
            )
        raise NotIndexedError(
            f"{path}: the mask is a {mask.mode} picture; an indexed one (palette or grey) is needed, "
            "or its colours listed in classes.yaml (data/README.md)"
        )


def read_colours(path: Path, max_pixels: int = MAX_PIXELS) -> Array:
    """A mask whose colours mean classes as H x W x 3 uint8 RGB: without alpha; a palette's colours; turned as above.

    Raises:
        UserError: missing, damaged, or not of 8-bit grey, palette or RGB.
    """
    with open_picture(path, max_pixels) as opened:
        mask = turned(decoded(path, opened), orientation_of(opened))
        if mask.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
            raise UserError(f"{path}: the mask is a {mask.mode} picture; one in 8-bit RGB or with a palette is needed")
        return np.array(mask.convert("RGB"))


def encode_mask(labels: Array, palette: Array) -> bytes:
    """H x W class indices as a palette PNG."""
    mask = Image.fromarray(labels)
    mask.putpalette(palette.tobytes())
    file = io.BytesIO()
    mask.save(file, "PNG", compress_type=zlib.Z_RLE)  # half the time, and smaller: masks are runs
    return file.getvalue()


def write_mask(path: Path, labels: Array, palette: Array) -> None:
    """Writes H x W class indices as a palette PNG, whole or not at all."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(encode_mask(labels, palette))
