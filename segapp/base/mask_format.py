"""What a mask's file says of itself before its pixels are read: its palette, and whether its format changes values."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

LOSSY = frozenset({"JPEG", "MPO", "AVIF", "HEIF"})
"""Formats, as Pillow calls them, that change values whenever they are saved."""


@dataclass(frozen=True)
class MaskFormat:
    """`lossy`: the format's name if saving in it changed values, else empty. `palette`: up to 256 x 3 RGB."""

    lossy: str = ""
    palette: npt.NDArray[np.uint8] | None = None


def mask_format(path: Path) -> MaskFormat:
    """By the file's content, whatever its suffix; nothing of a file that cannot be opened, which its reader tells."""
    with contextlib.suppress(Exception), Image.open(path) as image:
        return MaskFormat(str(image.format) if _is_lossy(image, path) else "", _palette(image))
    return MaskFormat()


def _palette(image: Image.Image) -> npt.NDArray[np.uint8] | None:
    if image.mode != "P":
        return None
    at_hand = image.palette if image.format == "PNG" else None  # getpalette would decode the pixels
    colours = at_hand.palette if at_hand is not None and at_hand.rawmode == "RGB" else image.getpalette("RGB")
    return np.frombuffer(bytes(colours or b""), np.uint8).reshape(-1, 3)


def _is_lossy(image: Image.Image, path: Path) -> bool:
    if image.format == "WEBP":
        return _webp_is_lossy(path.read_bytes())
    if image.format == "JPEG2000":
        return _jpeg2000_is_lossy(path.read_bytes())
    return image.format in LOSSY or image.info.get("compression") == "jpeg"  # the latter of a TIFF


def _webp_is_lossy(data: bytes) -> bool:
    """Whether the picture in the container is VP8, not VP8L (developers.google.com/speed/webp/docs/riff_container)."""
    at = 12
    while at + 8 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if name in (b"VP8 ", b"VP8L"):
            return name == b"VP8 "
        at += 8 + 16 if name == b"ANMF" else 8 + size + size % 2  # a film's frame holds its picture
    return False


def _jpeg2000_is_lossy(data: bytes) -> bool:
    """Whether the wavelet is the irreversible one: the last byte of the COD segment (ISO/IEC 15444-1, A.6.1)."""
    at = data.find(b"\xff\x52\x00")
    return at >= 0 and data[at + 13 : at + 14] == b"\x00"
