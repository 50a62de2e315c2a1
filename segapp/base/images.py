"""Reads and writes the files of images: the only place."""

import contextlib
import io
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg
from PIL import Image, ImageFile, UnidentifiedImageError
from pydantic import Field

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

WhiteLevel = Annotated[int, Field(ge=255, le=65535)]
WHITE = 65535
"""The usual white level of deep images, those of 16 bits a channel."""

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What stands a picture upright, by EXIF's orientation (Exif 2.32, section 4.6.4)."""


class Decoding(NamedTuple):
    """How an image's file becomes 8-bit pixels.

    jpeg_decoder: of JPEGs in RGB or grey that are not turned; Pillow reads the others.
    white_level: what is white in deep images, those of 16 bits; all above is white, too.
    """

    jpeg_decoder: JpegDecoder = "accurate"
    white_level: int = WHITE

    def describe(self) -> str:
        """In a protocol's words."""
        deep = "" if self.white_level == WHITE else f", white level {self.white_level}"
        return f"JPEG decoder {self.jpeg_decoder}{deep}"


AS_USUAL = Decoding()


ImageFileContent = Path | bytes
"""An image's file: where it lies, or what is in it."""


class TooLargeError(UserError):
    """An image has more pixels than anybody may ask to be read."""


class TooManyPixelsError(TooLargeError):
    """An image is larger than the bound that it was to be read with."""


def open_picture(source: ImageFileContent, max_pixels: int) -> ImageFile.ImageFile:
    """Of bytes, which came from elsewhere, the formats of IMAGE_SUFFIXES alone: Pillow runs programs for others."""
    name = _name(source)
    try:
        image = Image.open(source) if isinstance(source, Path) else Image.open(io.BytesIO(source), formats=_formats())
    except FileNotFoundError:
        raise UserError(f"{name}: no such file") from None
    except UnidentifiedImageError:
        heic = any(brand in _content(source)[:16] for brand in (b"ftyphei", b"ftypmif"))
        what = (
            "an HEIC picture, which is not read; save it as JPEG" if heic else "not an image, or of an unknown format"
        )
        raise UserError(f"{name}: {what}") from None
    except Image.DecompressionBombError:
        raise TooLargeError(
            f"{name}: more pixels than Pillow opens ({2 * MAX_PIXELS}); scale it down, or cut it"
        ) from None
    except Exception as error:  # whatever a decoder makes of a damaged file
        raise UserError(f"{name}: cannot be read ({error})") from None
    if image.width * image.height > max_pixels:
        raise TooManyPixelsError(
            f"{name}: {image.width} x {image.height} pixels are more than the bound of {max_pixels}; scale it down, "
            "or cut it"
        )
    return image


def _name(source: ImageFileContent | None) -> str:
    """For messages."""
    return str(source) if isinstance(source, Path) else "image"


def _content(source: ImageFileContent) -> bytes:
    return source if isinstance(source, bytes) else source.read_bytes()


@cache
def _formats() -> list[str]:
    by_suffix = Image.registered_extensions()
    return sorted({by_suffix[suffix] for suffix in IMAGE_SUFFIXES if by_suffix.get(suffix) in Image.OPEN})


def decoded(source: ImageFileContent | None, image: Image.Image) -> Image.Image:
    """Decodes, which is where truncation shows."""
    _unmapped(image)
    try:
        image.load()
    except MemoryError:
        if isinstance(source, bytes):
            raise
        # of a file Pillow may have been told by a damaged length to read gigabytes
        raise UserError(f"{_name(source)}: too large for the memory, or damaged") from None
    except Exception as error:  # whatever a decoder makes of a damaged file
        raise UserError(f"{_name(source)}: truncated or damaged ({error})") from None
    return image


def _plain_jpeg(source: ImageFileContent, max_pixels: int, decoder: JpegDecoder) -> Array | None:
    """A JPEG's pixels, as Pillow gives them if accurate, in half of its time.

    None where Pillow must decide: another format, colours of print, a turned picture, too many
    pixels, and all that libjpeg finds wrong.
    """
    try:
        data = _content(source)
        if data[:2] != b"\xff\xd8":
            return None
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        if colours not in ("YCbCr", "Gray", "RGB") or height * width > max_pixels:
            return None
        if _says_more(data):
            with Image.open(io.BytesIO(data)) as opened:
                if orientation_of(opened) != 1:
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


def image_size(path: Path, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """(height, width) of what `read_image` gives, without decoding the pixels."""
    return read_header(path, max_pixels).size


class Header(NamedTuple):
    """What a file says before its pixels are decoded.

    size: (height, width) once turned. orientation: how it is to be turned, EXIF's 1 (not at all) to 8.
    is_deep: whether its channels have 16 bits.
    """

    size: tuple[int, int]
    orientation: int
    is_deep: bool


def read_header(path: Path, max_pixels: int = MAX_PIXELS) -> Header:
    """Raises:
    UserError: missing, no image, or too large.
    """
    with open_picture(path, max_pixels) as image:
        is_deep = _is_deep(image)  # before Pillow decodes a PNG for its EXIF block
        orientation = orientation_of(image)
        size = (image.width, image.height) if orientation >= 5 else (image.height, image.width)
        return Header(size, orientation, is_deep)


def orientation_of(image: Image.Image) -> int:
    """EXIF's, which is left to do: Pillow turns a TIFF by itself, its size too."""
    if image.format == "TIFF":
        return 1
    with contextlib.suppress(Exception):  # a damaged EXIF block
        orientation = int(image.getexif().get(EXIF_ORIENTATION, 1))
        return orientation if 1 <= orientation <= 8 else 1
    return 1


def turned(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image


def _unmapped(image: Image.Image) -> None:
    """Pillow maps a TIFF by its name, a turned one with its sides exchanged."""
    if image.format == "TIFF" and isinstance(image, ImageFile.ImageFile):
        image.filename = ""


def read_image(source: ImageFileContent, max_pixels: int = MAX_PIXELS, decoding: Decoding = AS_USUAL) -> Array:
    """Any image as H x W x 3 uint8 RGB: turned as its EXIF says, 16 bits to 8, alpha dropped, first frame.

    Raises:
        UserError: missing, damaged, truncated, too large, or of floating-point values.
    """
    pixels = _plain_jpeg(source, max_pixels, decoding.jpeg_decoder)
    if pixels is not None:
        return pixels
    with open_picture(source, max_pixels) as image:
        return _rgb(source, image, decoding.white_level)


def deep_pixels(path: Path, max_pixels: int = MAX_PIXELS) -> npt.NDArray[Any] | None:
    """A deep image's pixels as they stand, H x W or H x W x 3 RGB; None of others.

    Raises:
        UserError: it cannot be read.
    """
    with open_picture(path, max_pixels) as image:
        return _deep_pixels(path, image)


DIM = 0.25
"""Share of the white level: an image whose brightest value lies below is nearly black to a network."""


def is_dim(path: Path, white_level: int = WHITE) -> bool:
    """Whether a deep image uses so little of its range; of others, without decoding them, no.

    Raises:
        UserError: it cannot be read.
    """
    with open_picture(path, 2 * MAX_PIXELS) as image:
        deep = _deep_pixels(path, image) if _is_deep(image) else None
    return deep is not None and bool(deep.max(initial=0) < DIM * white_level)


def _rgb(source: ImageFileContent | None, image: Image.Image, white_level: int) -> Array:
    deep = _deep_pixels(source, image)
    orientation = orientation_of(image)
    if deep is not None:
        image = Image.fromarray(_eight_bits(deep, white_level))
    if image.mode == "F":
        raise UserError(f"{_name(source)}: floating-point pixels have no known range; save it with 8 or 16 bits")
    return np.array(turned(image, orientation).convert("RGB"))


def _is_deep(image: Image.Image) -> bool:
    """By its mode; deep colours, of which Pillow keeps 8 bits, by how they are stored."""
    return image.mode.startswith("I") or any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _deep_pixels(source: ImageFileContent | None, image: Image.Image) -> npt.NDArray[Any] | None:
    """A deep image's pixels as they stand, H x W or H x W x 3 RGB; None of others, which are then decoded, too."""
    stored = None
    if _is_deep(image) and not image.mode.startswith("I") and isinstance(image, ImageFile.ImageFile) and image.fp:
        at = image.fp.tell()
        image.fp.seek(0)
        stored = np.frombuffer(image.fp.read(), np.uint8)
        image.fp.seek(at)
    decoded(source, image)
    if image.mode.startswith("I"):
        return np.asarray(image)
    deep = None if stored is None else cv2.imdecode(stored, cv2.IMREAD_UNCHANGED)
    if deep is None or deep.dtype != np.uint16 or deep.ndim != 3:
        return None
    colours: npt.NDArray[np.uint16] = deep[:, :, 2::-1]  # type: ignore[assignment]
    return colours if np.array_equal(colours >> 8, np.asarray(image)[:, :, :3]) else None  # turned otherwise


def _eight_bits(deep: npt.NDArray[Any], white_level: int) -> Array:
    """Its white level becomes 255, by steps of equal width."""
    clipped = deep.clip(0, white_level).astype(np.uint32)
    return np.asarray(clipped * 256 // (white_level + 1), np.uint8)


def as_rgb(image: npt.NDArray[Any] | Image.Image, white_level: int = WHITE) -> Array:
    """A picture in memory as `read_image` gives its file: H x W x 3 uint8 RGB.

    Args:
        image: a PIL image of any mode; or an array as PIL and OpenCV have them, but in R, G, B: H x W grey,
            H x W x 1, x 2 (grey and alpha), x 3 or x 4 (RGB and alpha); of bool, 8 or 16 bits.

    Raises:
        UserError: it is no such picture, or of floating-point values.
    """
    if isinstance(image, Image.Image):
        return _rgb(None, image, white_level)
    if not isinstance(image, np.ndarray):
        raise UserError(f"an image is an array, a PIL image or a path, not a {type(image).__name__}")
    channels = image.shape[2] if image.ndim == 3 else 1
    if image.dtype.kind not in ("b", "u", "i") or image.ndim not in (2, 3) or channels > 4 or not image.size:
        raise UserError(
            "an image is H x W grey or H x W x 3 RGB, with alpha or without, of 8 or 16 bits, "
            f"not {image.dtype} of shape {image.shape}"
        )
    if image.dtype.kind == "b":
        image = image.astype(np.uint8) * 255
    if image.dtype != np.uint8:
        image = _eight_bits(image, white_level)
    if channels < 3:
        return image.reshape(*image.shape[:2], -1)[:, :, :1].repeat(3, axis=2)
    return np.ascontiguousarray(image[:, :, :3])


QUALITY = 92
"""Of JPEGs that are written."""


def encode_image(image: Array, kind: str) -> bytes:
    """H x W x 3 uint8 RGB, or H x W grey, as the file that `write_image` writes with a suffix, such as ".png"."""
    file = io.BytesIO()
    Image.fromarray(image).save(file, Image.registered_extensions()[kind], quality=QUALITY)
    return file.getvalue()


def write_image(path: Path, image: Array) -> None:
    """Writes H x W x 3 uint8 RGB in the format of the path's suffix, whole or not at all."""
    with atomic_write(path) as temporary:
        Image.fromarray(image).save(temporary, quality=QUALITY)
