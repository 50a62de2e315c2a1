"""Any image a user has, read as people see it; damage told in one line."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from segapp.base import images
from segapp.base.classes import VOC_CLASSES, voc_palette
from segapp.base.errors import UserError
from segapp.base.images import image_size, read_colours, read_image, read_mask, write_image, write_mask
from tests.tensorflow.weights import FIXTURES

# The devkit's own documentation of the first colours.
DOCUMENTED = [
    (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128), (0, 128, 128), (128, 128, 128),
    (64, 0, 0), (192, 0, 0), (64, 128, 0), (192, 128, 0), (64, 0, 128), (192, 0, 128), (64, 128, 128),
    (192, 128, 128), (0, 64, 0), (128, 64, 0), (0, 192, 0), (128, 192, 0), (0, 64, 128),
]  # fmt: skip


def gradient(height: int = 6, width: int = 9) -> np.ndarray:
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows * 40, columns * 28, rows * 20 + columns * 10], 2).astype(np.uint8)


def test_voc_palette() -> None:
    assert voc_palette()[:21].tolist() == [list(colour) for colour in DOCUMENTED]
    assert voc_palette()[255].tolist() == [224, 224, 192]
    assert len(VOC_CLASSES) == 21


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, orientation: int) -> None:
    """Against numpy: what a viewer does to the stored pixels for each EXIF orientation."""
    turned = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, -1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    Image.fromarray(gradient()).save(path, exif=exif)
    expected = turned[orientation](gradient())
    assert np.array_equal(read_image(path), expected)
    assert image_size(path) == expected.shape[:2]


def test_modes(tmp_path: Path) -> None:
    grey = gradient()[..., 2]
    as_rgb = np.repeat(grey[..., None], 3, 2)
    rgba = np.dstack([gradient(), grey])
    palette = Image.fromarray(gradient()).quantize(256)
    saved = {
        "grey.png": (Image.fromarray(grey), as_rgb),
        "rgba.png": (Image.fromarray(rgba), gradient()),
        "palette.png": (palette, np.array(palette.convert("RGB"))),
        "deep.png": (Image.fromarray(grey.astype(np.uint16) * 257), as_rgb),
        "deep.tif": (Image.fromarray(grey.astype(np.uint16) * 257), as_rgb),
        "bits.png": (Image.fromarray(grey > 60), np.where(as_rgb > 60, 255, 0)),
    }
    for name, (image, expected) in saved.items():
        image.save(tmp_path / name)
        actual = read_image(tmp_path / name)
        assert actual.dtype == np.uint8
        assert np.array_equal(actual, expected), name
        assert actual.flags.writeable


def test_damaged_images_are_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "whole.jpg")
    whole = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "empty.jpg").touch()
    Image.fromarray(np.zeros((4, 4), np.float32)).save(tmp_path / "float.tif")
    reasons = {"half": "truncated", "text": "not an image", "empty": "not an image", "missing": "no such file"}
    for stem, reason in reasons.items():
        with pytest.raises(UserError, match=rf"{stem}\.jpg.*{reason}"):
            read_image(tmp_path / f"{stem}.jpg")
    with pytest.raises(UserError, match="floating-point"):
        read_image(tmp_path / "float.tif")
    with pytest.raises(UserError, match="100 x 100 pixels are more than the bound of 9999"):
        Image.new("L", (100, 100)).save(tmp_path / "large.png")
        read_image(tmp_path / "large.png", max_pixels=9999)


JPEG_KINDS: dict[str, dict[str, Any]] = {
    "usual": {},
    "progressive": {"progressive": True},
    "444": {"subsampling": 0, "quality": 95},
    "422": {"subsampling": 1},
    "restarts": {"restart_marker_blocks": 3},
    "rgb": {"keep_rgb": True},
}


def pictures(folder: Path) -> list[Path]:
    """JPEGs of every kind that Pillow writes, with odd sides."""
    noise = np.random.default_rng(0).integers(0, 256, (21, 27, 3), np.uint8)
    image = Image.fromarray(noise).resize((53, 41))
    for name, options in JPEG_KINDS.items():
        image.save(folder / f"{name}.jpg", **options)
    image.convert("L").save(folder / "grey.jpg")
    image.convert("CMYK").save(folder / "cmyk.jpg")
    for orientation in (1, 6):
        exif = Image.Exif()
        exif[0x0112] = orientation
        image.save(folder / f"exif{orientation}.jpg", exif=exif)
    return sorted(folder.glob("*.jpg"))


def spy_on_pillow(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stems of the files that Pillow decodes from now on."""
    stems: list[str] = []
    decode = images._pixels

    def spy(path: Path, image: Image.Image) -> Image.Image:
        stems.append(path.stem)
        return decode(path, image)

    monkeypatch.setattr("segapp.base.images._pixels", spy)
    return stems


def test_jpegs_have_pillows_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_pillow = spy_on_pillow(monkeypatch)
    for path in pictures(tmp_path):
        with Image.open(path) as opened:
            expected = np.array(ImageOps.exif_transpose(opened).convert("RGB"))
        actual = read_image(path)
        assert np.array_equal(actual, expected), path.stem
        assert image_size(path) == actual.shape[:2]
        actual[0, 0] = 0  # writeable
    assert by_pillow == ["cmyk", "exif6"], "all others by the faster decoder"


def test_jpegs_have_tensorflows_pixels_where_asked_for(tmp_path: Path) -> None:
    """Against tf.image.decode_jpeg's; its fast DCT is not Pillow's."""
    path = tmp_path / "x.jpg"
    with np.load(FIXTURES / "pipeline.npz") as file:
        path.write_bytes(file["jpeg"].tobytes())
        expected = file["jpeg_pixels"]
    assert np.array_equal(read_image(path, jpeg_decoder="tensorflow"), expected)
    differs = np.abs(read_image(path).astype(int) - expected)
    assert 0 < differs.mean() < 2
    for other in pictures(tmp_path):  # turned, grey, in colours of print: none is refused
        assert read_image(other, jpeg_decoder="tensorflow").shape == read_image(other).shape


def test_cut_and_spoilt_files_are_what_pillow_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused where Pillow refuses, with its words; else Pillow's pixels."""

    def outcome(read: Callable[[Path], np.ndarray], path: Path) -> str | bytes:
        try:
            return read(path).tobytes()
        except UserError as error:
            return str(error)

    write_mask(tmp_path / "mask.png", (gradient(41, 53)[..., 0] % 21).astype(np.uint8), voc_palette())
    rng = np.random.default_rng(0)
    refused = 0
    for path in [*pictures(tmp_path), tmp_path / "mask.png"]:
        read = read_mask if path.suffix == ".png" else read_image
        whole = np.frombuffer(path.read_bytes(), np.uint8)
        for case in range(20):
            damaged = whole.copy()
            if case % 2:
                damaged[rng.integers(0, len(whole), 2)] = rng.integers(0, 256, 2)
            else:
                damaged = damaged[: rng.integers(0, len(whole))]
            path.write_bytes(damaged.tobytes())
            actual = outcome(read, path)
            with monkeypatch.context() as patch:
                patch.setattr("segapp.base.images._plain_jpeg", lambda *_: None)
                patch.setattr("segapp.base.images._plain_png", lambda *_: None)
                assert actual == outcome(read, path)
            refused += isinstance(actual, str)
    assert refused > 60


def test_pngs_of_all_kinds_are_read_as_masks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = (gradient(41, 53)[..., 0] % 4).astype(np.uint8)
    ramp = np.tile(np.arange(100, 153, dtype=np.uint8), (41, 1))
    palette = Image.fromarray(labels)
    palette.putpalette(voc_palette().tobytes())
    palette.save(tmp_path / "palette.png")
    palette.save(tmp_path / "two bits.png", bits=2)
    Image.fromarray(labels).save(tmp_path / "grey.png")
    Image.fromarray(ramp).save(tmp_path / "ramp.png")  # which Pillow filters
    (tmp_path / "interlaced.png").write_bytes(interlaced(labels[:1, :1]))
    by_pillow = spy_on_pillow(monkeypatch)
    for path in sorted(tmp_path.glob("*.png")):
        with Image.open(path) as opened:
            expected = np.array(opened)
        actual = read_mask(path)
        assert np.array_equal(actual, expected), path.stem
        actual[0, 0] = 0  # writeable
    assert by_pillow == ["interlaced", "ramp", "two bits"]


def interlaced(pixel: np.ndarray) -> bytes:
    """A grey PNG of one pixel that says it is interlaced, which changes nothing for one pixel."""
    return grey_png(1, 1, b"\0" + pixel.tobytes(), interlace=1)


def grey_png(width: int, height: int, rows: bytes, interlace: int = 0) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, interlace)
    data = zlib.compress(rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(0, 1), (1, 0), (0, 0), (2**31 - 1, 0), (0, 2**32 - 1)])
@pytest.mark.parametrize("read", [read_image, read_mask, read_colours, image_size])
def test_a_picture_without_pixels_is_none(
    tmp_path: Path, width: int, height: int, read: Callable[[Path], object]
) -> None:
    """Nor does a height without a width take memory for its rows."""
    (tmp_path / "empty.png").write_bytes(grey_png(width, height, b"\0" * 10))
    with pytest.raises(UserError, match=r"empty\.png: "):
        read(tmp_path / "empty.png")


def test_masks_are_indices(tmp_path: Path) -> None:
    labels = np.array([[0, 1, 20], [255, 5, 0]], np.uint8)
    write_mask(tmp_path / "mask.png", labels, voc_palette())
    with Image.open(tmp_path / "mask.png") as written:
        assert written.mode == "P"
        assert np.array_equal(np.array(written), labels)
        assert np.array_equal(np.array(written.convert("RGB")), voc_palette()[labels])
    Image.fromarray(labels).save(tmp_path / "grey.png")
    Image.fromarray(labels.astype(np.uint16)).save(tmp_path / "deep.png")
    for name in ("mask", "grey", "deep"):
        assert np.array_equal(read_mask(tmp_path / f"{name}.png"), labels), name
    Image.fromarray(labels > 0).save(tmp_path / "bits.png")
    assert read_mask(tmp_path / "bits.png").tolist() == [[0, 1, 1], [1, 1, 0]]
    Image.fromarray(voc_palette()[labels]).save(tmp_path / "colours.png")
    with pytest.raises(UserError, match="colours.png: the mask is a RGB picture"):
        read_mask(tmp_path / "colours.png")
    Image.fromarray(labels.astype(np.uint16) * 100).save(tmp_path / "high.png")
    with pytest.raises(UserError, match="25500 is above 255"):
        read_mask(tmp_path / "high.png")


def test_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "picture.png"
    write_image(path, gradient())
    before = path.read_bytes()

    def full(self: Image.Image, target: Path, **options: object) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        write_image(path, gradient()[::-1])
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_the_endings_of_pictures_are_those_that_pillow_reads() -> None:
    """All of Pillow's own formats, but icons, fonts, vector graphics, films and what it only knows by name."""
    Image.init()
    readable = {ending for ending, kind in Image.registered_extensions().items() if kind in Image.OPEN}
    assert readable >= images.IMAGE_SUFFIXES - {".mpo"}, "which is opened as a JPEG"
    left = {".blp", ".bufr", ".bw", ".cur", ".dcx", ".dds", ".emf", ".eps", ".fit", ".fits", ".flc", ".fli", ".ftc"}
    left |= {".ftu", ".gbr", ".grib", ".h5", ".hdf", ".icns", ".ico", ".iim", ".im", ".mpeg", ".mpg", ".msp", ".pcd"}
    left |= {".pfm", ".ps", ".pxr", ".rgb", ".rgba", ".wmf", ".xbm", ".xpm"}
    assert readable - images.IMAGE_SUFFIXES <= left


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("suffix", "mode"), [(".tif", "RGB"), (".tif", "L"), (".png", "L"), (".jpg", "RGB"), (".webp", "RGB")]
)
def test_a_turned_picture_has_one_size(suffix: str, mode: str, orientation: int, tmp_path: Path) -> None:
    """Whoever turns it: Pillow does so with a TIFF by itself."""
    path = tmp_path / f"x{suffix}"
    exif = Image.Exif()
    exif[images.EXIF_ORIENTATION] = orientation
    picture = Image.new("RGB", (40, 24))
    picture.paste((255, 255, 255), (0, 0, 20, 12))
    picture.convert(mode).save(path, exif=exif)
    expected = (24, 40) if orientation <= 4 else (40, 24)
    pixels = read_image(path)
    assert pixels.shape[:2] == image_size(path) == expected
    # EXIF 2.3, 4.6.4.A: the row and the column of the corner at the top left of what is stored.
    corners = {(True, True): {1, 5}, (True, False): {2, 6}, (False, False): {3, 7}, (False, True): {4, 8}}
    white = next(where for where, those in corners.items() if orientation in those)
    top, left = white
    corner = pixels[2 if top else -3, 2 if left else -3]
    assert (corner > 200).all()


def test_a_value_below_zero_is_named(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, -1], [2, 1]], np.int32)).save(tmp_path / "mask.tif")
    with pytest.raises(UserError, match="mask value -1 is below 0; masks hold class indices 0 to 254"):
        read_mask(tmp_path / "mask.tif")


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_a_mask_with_an_orientation_of_its_own_is_turned(suffix: str, orientation: int, tmp_path: Path) -> None:
    """As its image is, so that the two fit whichever program has turned them; values and colours alike."""
    stored = (np.arange(24 * 40).reshape(24, 40) % 21).astype(np.uint8)
    mask = Image.fromarray(stored)
    mask.putpalette(voc_palette().tobytes())
    exif = Image.Exif()
    exif[images.EXIF_ORIENTATION] = orientation
    path = tmp_path / f"mask{suffix}"
    mask.save(path, exif=exif)
    expected = np.rot90(stored, {1: 0, 3: 2, 6: -1, 8: 1}[orientation])
    assert np.array_equal(read_mask(path), expected)
    assert np.array_equal(images.read_colours(path), voc_palette()[expected])
    assert image_size(path) == expected.shape
