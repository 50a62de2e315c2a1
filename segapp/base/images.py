"""Reads and writes the files of images and masks: the only place."""

import contextlib
import io
import struct
import zlib
from pathlib import Path
from typing import Literal

import deflate
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from segapp.base.errors import UserError
from segapp.base.files import atomic_write

MAX_PIXELS = 89_478_485
"""Default bound on an image's pixels: the size from which Pillow suspects a decompression bomb."""

# fmt: off
IMAGE_SUFFIXES = frozenset([
    ".apng", ".avif", ".avifs", ".bmp", ".dib", ".gif", ".icb", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe",
    ".jpeg", ".jpf", ".jpg", ".jpx", ".mpo", ".pbm", ".pcx", ".pgm", ".png", ".pnm", ".ppm", ".psd", ".qoi", ".ras",
    ".sgi", ".tga", ".tif", ".tiff", ".vda", ".vst", ".webp",
])
# fmt: on
"""Those that Pillow reads: pictures, not icons, fonts, vector graphics or films."""

EXIF_ORIENTATION = 0x0112

Array = npt.NDArray[np.uint8]
JpegDecoder = Literal["accurate", "tensorflow"]
"""What makes pixels of a JPEG: the accurate DCT, as Pillow, OpenCV and everybody else; or libjpeg's fast one, which
TensorFlow takes (JDCT_DEFAULT in tensorflow/core/lib/jpeg/jpeg_handle.cc). They differ by a grey level in the mean."""


class NotIndexedError(UserError):
    """A sound picture whose values are no class indices."""


def _open(path: Path, max_pixels: int) -> ImageFile.ImageFile:
    try:
        image = Image.open(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except UnidentifiedImageError:
        raise UserError(f"{path}: not an image, or of an unknown format") from None
    except Image.DecompressionBombError:
        raise UserError(f"{path}: more pixels than Pillow opens ({2 * MAX_PIXELS}); scale it down") from None
    except Exception as error:  # whatever a decoder makes of a damaged file
        raise UserError(f"{path}: cannot be read ({error})") from None
    if image.width * image.height > max_pixels:
        raise UserError(
            f"{path}: {image.width} x {image.height} pixels are more than the bound of {max_pixels}; scale it down"
        )
    if image.format == "TIFF":
        image.filename = ""  # by which Pillow would map the file, a turned one with its sides exchanged
    return image


def _pixels(path: Path, image: Image.Image) -> Image.Image:
    """Decodes, which is where truncation shows."""
    try:
        image.load()
    except Exception as error:  # whatever a decoder makes of a damaged file
        raise UserError(f"{path}: truncated or damaged ({error})") from None
    return image


def _plain_jpeg(path: Path, max_pixels: int, decoder: JpegDecoder) -> Array | None:
    """A JPEG's pixels, as Pillow gives them if accurate, in half of its time.

    None where Pillow must decide: another format, colours of print, a turned picture, too many
    pixels, and all that libjpeg finds wrong.
    """
    try:
        data = path.read_bytes()
        if data[:2] != b"\xff\xd8":
            return None
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in ("YCbCr", "Gray", "RGB") or height * width > max_pixels:
            return None
        if _says_more(data):
            with Image.open(io.BytesIO(data)) as opened:
                if _orientation(opened) != 1:
                    return None
        return simplejpeg.decode_jpeg(data, fastdct=decoder == "tensorflow")  # type: ignore[no-any-return]
    except Exception:  # whatever is wrong, Pillow says it
        return None


def _says_more(jpeg: bytes) -> bool:
    """Whether it has an APP1 segment, in which EXIF and XMP say how it is turned."""
    at = 2
    while jpeg[at] == 0xFF and jpeg[at + 1] != 0xDA:  # the scan's beginning
        if jpeg[at + 1] == 0xE1:
            return True
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    return jpeg[at] != 0xFF


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


def image_size(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) of what `read_image` gives, without decoding the pixels."""
    with _open(path, max_pixels) as image:
        return (image.width, image.height) if _orientation(image) >= 5 else (image.height, image.width)


def exif_orientation(path: Path, max_pixels: int = MAX_PIXELS) -> int:
    """How the file says it is to be turned, 1 (not at all) to 8; from 5 on, height and width change places."""
    with _open(path, max_pixels) as image:
        return _orientation(image)


def _orientation(image: Image.Image) -> int:
    """EXIF's, which is left to do: Pillow turns a TIFF by itself, its size too."""
    if image.format == "TIFF":
        return 1
    with contextlib.suppress(Exception):  # a damaged EXIF block
        orientation = int(image.getexif().get(EXIF_ORIENTATION, 1))
        return orientation if 1 <= orientation <= 8 else 1
    return 1


def _turned(image: Image.Image) -> Image.Image:
    with contextlib.suppress(Exception):  # a damaged EXIF block
        return ImageOps.exif_transpose(image)
    return image


def read_image(path: Path, max_pixels: int = MAX_PIXELS, jpeg_decoder: JpegDecoder = "accurate") -> Array:
    """Any image as H x W x 3 uint8 RGB: turned as its EXIF says, 16 bits to 8, alpha dropped, first frame.

    Args:
        jpeg_decoder: of JPEGs in RGB or grey that are not turned; Pillow reads the others.

    Raises:
        UserError: missing, damaged, truncated, too large, or of floating-point values.
    """
    pixels = _plain_jpeg(path, max_pixels, jpeg_decoder)
    if pixels is not None:
        return pixels
    with _open(path, max_pixels) as opened:
        image = _pixels(path, opened)
        if image.mode == "F":
            raise UserError(f"{path}: floating-point pixels have no known range; save it with 8 or 16 bits")
        if image.mode.startswith("I"):  # 16 bits, which convert("RGB") would clip at 255
            image = Image.fromarray((np.asarray(image).clip(0, 65535) >> 8).astype(np.uint8))
        return np.array(_turned(image).convert("RGB"))


def read_mask(path: Path, max_pixels: int = MAX_PIXELS) -> Array:
    """An indexed mask as H x W uint8: palette indices, or grey values as they stand; turned as its EXIF says.

    Raises:
        UserError: missing, damaged, in colours, or with values above 255.
    """
    indices = _plain_png(path, max_pixels)
    if indices is not None:
        return indices
    with _open(path, max_pixels) as opened:
        mask = _turned(_pixels(path, opened))
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
    with _open(path, max_pixels) as opened:
        mask = _turned(_pixels(path, opened))
        if mask.mode not in ("1", "L", "LA", "P", "PA", "RGB", "RGBA"):
            raise UserError(f"{path}: the mask is a {mask.mode} picture; one in 8-bit RGB or with a palette is needed")
        return np.array(mask.convert("RGB"))


def write_mask(path: Path, labels: Array, palette: Array) -> None:
    """Writes H x W class indices as a palette PNG, whole or not at all."""
    mask = Image.fromarray(labels)
    mask.putpalette(palette.tobytes())
    with atomic_write(path) as temporary:
        mask.save(temporary, optimize=False)


def write_image(path: Path, image: Array) -> None:
    """Writes H x W x 3 uint8 RGB in the format of the path's suffix, whole or not at all."""
    with atomic_write(path) as temporary:
        Image.fromarray(image).save(temporary, quality=92)
