"""Any image a user has, read as people see it; damage told in one line."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segapp.classes import VOC_CLASSES, voc_palette
from segapp.errors import UserError
from segapp.images import blend, image_size, overlay, read_image, read_mask, write_image, write_mask

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


def test_overlay_shows_image_labels_and_legend() -> None:
    image = np.full((200, 300, 3), 100, np.uint8)
    labels = np.zeros((200, 300), np.uint8)
    labels[50:100, 50:100] = 15
    labels[0, 0] = 255
    shown = overlay(image, labels, VOC_CLASSES, voc_palette())
    assert shown.shape[1] == 300
    assert shown.shape[0] > 200, "the legend is below"
    assert shown[150, 200].tolist() == [100, 100, 100], "background stays clear"
    assert shown[0, 0].tolist() == [100, 100, 100], "void stays clear"
    assert shown[60, 60].tolist() == pytest.approx((0.45 * 100 + 0.55 * voc_palette()[15]).tolist(), abs=1)
    legend = shown[200:].reshape(-1, 3).tolist()
    assert voc_palette()[15].tolist() in legend
    assert voc_palette()[8].tolist() not in legend
    assert np.array_equal(shown[:200], blend(image, labels, voc_palette()))


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
