"""Any image a user has, read as people see it; damage told in one line."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps

from segapp.base import images
from segapp.base.classes import VOC_CLASSES, voc_palette
from segapp.base.errors import UserError
from segapp.base.images import Decoding, as_rgb, deep_pixels, image_size, read_header, read_image, write_image
from segapp.base.masks import read_colours, read_mask, write_mask
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
    decode = images.decoded

    def spy(path: Path, image: Image.Image) -> Image.Image:
        stems.append(path.stem)
        return decode(path, image)

    for reader in ("images", "masks"):
        monkeypatch.setattr(f"segapp.base.{reader}.decoded", spy)
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
    assert np.array_equal(read_image(path, decoding=Decoding("tensorflow")), expected)
    differs = np.abs(read_image(path).astype(int) - expected)
    assert 0 < differs.mean() < 2
    for other in pictures(tmp_path):  # turned, grey, in colours of print: none is refused
        assert read_image(other, decoding=Decoding("tensorflow")).shape == read_image(other).shape


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
                patch.setattr("segapp.base.masks._plain_png", lambda *_: None)
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
    assert np.array_equal(read_colours(path), voc_palette()[expected])
    assert image_size(path) == expected.shape


def deep_file(folder: Path, kind: str, values: np.ndarray) -> Path:
    """Values below 65536, H x W x 3, in a file of 16 bits a channel; grey kinds hold the first channel."""
    path = folder / f"{kind.replace(' ', '_')}{'.tif' if 'tiff' in kind else '.png'}"
    deep = values.astype(np.uint16)
    if "grey" in kind:
        Image.fromarray(deep[..., 0]).save(path)
    else:
        alpha = np.full((*deep.shape[:2], 1), 65535, np.uint16)
        bgr = deep[..., ::-1]
        cv2.imwrite(str(path), np.concatenate([bgr, alpha], 2) if "alpha" in kind else bgr)
    return path


@pytest.mark.parametrize("kind", ["grey png", "grey tiff", "colour png", "colour tiff", "colour alpha png"])
def test_deep_images_have_a_white_level(kind: str, tmp_path: Path) -> None:
    """An 8-bit picture in a file of 16 bits is black by the usual level, and itself by its own."""
    grey = "grey" in kind
    picture = gradient()
    expected = picture[..., :1].repeat(3, 2) if grey else picture
    path = deep_file(tmp_path, kind, picture)
    assert read_header(path).is_deep
    stored = deep_pixels(path)
    assert stored is not None
    assert np.array_equal(stored, picture[..., 0] if grey else picture)
    assert not read_image(path).any()
    assert np.array_equal(read_image(path, decoding=Decoding(white_level=255)), expected)
    whole = deep_file(tmp_path, kind, picture.astype(int) * 257)
    assert np.array_equal(read_image(whole), expected)
    twelve = deep_file(tmp_path, kind, picture.astype(int) * 16 + 15)
    assert np.array_equal(read_image(twelve, decoding=Decoding(white_level=4095)), expected)
    bright = expected.astype(int) * 16 + 15 >= 255
    assert (read_image(twelve, decoding=Decoding(white_level=255))[bright] == 255).all()  # above white is white
    with Image.open(twelve) as opened:
        assert np.array_equal(as_rgb(opened, 4095), expected)
    array = cv2.imread(str(twelve), cv2.IMREAD_UNCHANGED)
    assert array is not None
    assert np.array_equal(as_rgb(array if grey else array[..., 2::-1], 4095), expected)


def test_a_picture_is_one_in_every_form(tmp_path: Path) -> None:
    """Its file, PIL's image of it, and the array that PIL makes of that."""
    rng = np.random.default_rng(0)
    colours = Image.fromarray(rng.integers(0, 256, (24, 40, 3), np.uint8))
    turned = Image.Exif()
    turned[images.EXIF_ORIENTATION] = 6
    for mode in ("1", "L", "LA", "RGB", "RGBA", "I;16", "I"):
        picture = colours.convert("L").convert("I") if mode.startswith("I") else colours.convert(mode)
        if mode == "I;16":
            picture = Image.fromarray((np.asarray(picture) * 250).astype(np.uint16))
        path = tmp_path / f"{mode.replace(';', '')}{'.tif' if mode == 'I' else '.png'}"
        picture.save(path)
        expected = read_image(path)
        with Image.open(path) as opened:
            assert np.array_equal(as_rgb(opened), expected), mode
            assert np.array_equal(as_rgb(np.asarray(opened)), expected), mode
    for mode, suffix in [("P", ".png"), ("CMYK", ".jpg"), ("RGB", ".tif"), ("L", ".png"), ("I;16", ".png")]:
        picture = Image.fromarray(np.asarray(colours.convert("L")).astype(np.uint16) * 250)
        path = tmp_path / f"turned {mode[:1]}{suffix}"
        (picture if mode == "I;16" else colours.convert(mode)).save(path, exif=turned)
        with Image.open(path) as opened:
            assert np.array_equal(as_rgb(opened), read_image(path)), mode
            assert read_image(path).shape == (40, 24, 3)


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((4, 5, 5), np.uint8),
        np.zeros((4, 5, 3)),
        np.zeros((0, 5, 3), np.uint8),
        np.zeros(5, np.uint8),
        "x",
        None,
    ],
)
def test_what_is_no_picture_is_refused(wrong: object) -> None:
    with pytest.raises(UserError, match="an image is "):
        as_rgb(wrong)  # type: ignore[arg-type]


def test_a_heic_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))
    with pytest.raises(UserError, match=r"x\.jpg: an HEIC picture, which is not read; save it as JPEG"):
        read_image(tmp_path / "x.jpg")
