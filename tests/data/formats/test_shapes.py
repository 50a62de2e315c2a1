"""The drawn data set: whole, from its seed alone, and drawn once."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from segapp.base.classes import voc_palette
from segapp.base.paths import CONF
from segapp.data.dataset import Array
from segapp.data.formats import shapes
from segapp.data.formats.shapes import SHAPES_CLASSES, ShapesConfig, make_shapes, scene, things
from segapp.data.formats.shapes.scene import draw_scene

TRAIN, VAL, HEIGHT, WIDTH = 16, 4, 96, 120


def _contents(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "new" / "shapes"
    make_shapes(folder, train=TRAIN, val=VAL, height=HEIGHT, width=WIDTH, seed=3)
    return folder


def _ids(root: Path, split: str) -> list[str]:
    return (root / "ImageSets" / "Segmentation" / f"{split}.txt").read_text(encoding="utf-8").split()


def _mask(root: Path, name: str) -> Array:
    return np.array(Image.open(root / "SegmentationClass" / f"{name}.png"))


def test_voc_layout(root: Path) -> None:
    train, val = _ids(root, "train"), _ids(root, "val")
    assert (len(train), len(val)) == (TRAIN, VAL)
    assert not set(train) & set(val)
    assert _ids(root, "trainval") == sorted(train + val)
    for folder, suffix in (("JPEGImages", ".jpg"), ("SegmentationClass", ".png")):
        assert sorted(path.name for path in (root / folder).iterdir()) == [
            name + suffix for name in _ids(root, "trainval")
        ]
    for name in train + val:
        with Image.open(root / "JPEGImages" / f"{name}.jpg") as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (WIDTH, HEIGHT))
        with Image.open(root / "SegmentationClass" / f"{name}.png") as mask:
            assert (mask.format, mask.mode, mask.size) == ("PNG", "P", (WIDTH, HEIGHT))
            assert mask.getpalette() == voc_palette().ravel().tolist()


def test_the_seed_decides_every_byte(root: Path, tmp_path: Path) -> None:
    make_shapes(tmp_path / "again", train=TRAIN, val=VAL, height=HEIGHT, width=WIDTH, seed=3)
    assert _contents(tmp_path / "again") == _contents(root)
    make_shapes(tmp_path / "other", train=1, val=0, height=HEIGHT, width=WIDTH, seed=4)
    assert not set(_contents(tmp_path / "other").values()) & set(_contents(root).values())


def test_an_image_depends_on_seed_and_index_alone(root: Path, tmp_path: Path) -> None:
    make_shapes(tmp_path / "few", train=1, val=2, height=HEIGHT, width=WIDTH, seed=3)
    few, many = _contents(tmp_path / "few"), _contents(root)
    assert all(many[name] == few[name] for name in few if not name.startswith("ImageSets"))


def test_every_class_occurs_in_training(root: Path) -> None:
    values = {int(value) for name in _ids(root, "train") for value in np.unique(_mask(root, name))}
    assert values == {*range(len(SHAPES_CLASSES)), 255}


@pytest.mark.parametrize("index", range(12))
def test_void_parts_the_classes(index: int) -> None:
    image, label = draw_scene(np.random.default_rng([9, index]), 70 + 10 * index, 100)
    assert image.dtype == label.dtype == np.uint8
    assert image.shape == (*label.shape, 3) == (70 + 10 * index, 100, 3)
    assert set(np.unique(label)) <= {*range(len(SHAPES_CLASSES)), 255}
    for one, other in ((label[1:], label[:-1]), (label[:, 1:], label[:, :-1])):
        assert ((one == other) | (one == 255) | (other == 255)).all()


def test_touching_objects_of_one_class_are_parted(monkeypatch: pytest.MonkeyPatch) -> None:
    painted: list[int] = []

    def paint(rng: object, canvas: object, owner: Array, kind: object, identity: int, *rest: object) -> None:
        if identity:
            painted.append(identity)
            owner[:, 10 * identity :] = identity

    monkeypatch.setattr(scene, "KINDS", things.KINDS[:1])
    monkeypatch.setattr(scene, "_paint", paint)
    label = draw_scene(np.random.default_rng(0), 40, 120)[1]
    assert len(painted) >= 3
    expected = np.ones((40, 120), np.uint8)
    expected[:, :10] = 0
    for edge in range(10, 10 * len(painted) + 1, 10):
        expected[:, edge - 1 : edge + 1] = 255
    np.testing.assert_array_equal(label, expected)


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(path: Path, *rest: object) -> None:
        if path.name == "000002.png":
            raise OSError("disk full")

    monkeypatch.setattr(shapes, "write_mask", failing)
    with pytest.raises(OSError, match="disk full"):
        make_shapes(tmp_path / "set", train=3, val=1, height=32, width=32, seed=0)
    assert not list(tmp_path.iterdir())


def test_an_existing_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious", encoding="utf-8")
    with pytest.raises(FileExistsError):
        make_shapes(tmp_path, train=1, val=1, height=32, width=32, seed=0)
    assert _contents(tmp_path) == {"mine": b"precious"}


def test_shapes_are_drawn_once(tmp_path: Path) -> None:
    values = yaml.safe_load((CONF / "data" / "shapes.yaml").read_text())
    values |= {"root": tmp_path, "train": 2, "val": 1, "height": 32, "width": 48, "seed": 3}
    config = ShapesConfig.model_validate(values)
    images = config.dataset("train").images
    assert images[0].parent.parent == tmp_path / "v1_2+1_48x32_seed3", "where earlier versions have drawn it"
    stamp = images[0].stat().st_mtime_ns
    assert config.dataset("val")[0].image.shape == (32, 48, 3)
    assert config.dataset("val").background == SHAPES_CLASSES.index("background")
    assert images[0].stat().st_mtime_ns == stamp
    other = ShapesConfig.model_validate(values | {"seed": 4}).dataset("train").images
    assert other[0].read_bytes() != images[0].read_bytes()


def test_of_two_processes_that_draw_one_set_the_sooner_one_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ShapesConfig.model_validate(
        {"name": "shapes", "root": tmp_path, "train": 2, "val": 1, "height": 32, "width": 32, "seed": 0}
        | {"cache": "none", "sampler": "uniform"}
    )
    draw = shapes.make_shapes

    def late(root: Path, **sizes: int) -> None:
        draw(root, **sizes)
        with monkeypatch.context() as second:
            second.setattr(Path, "exists", lambda path: False)  # when it began
            draw(root, **sizes)

    monkeypatch.setattr(shapes, "make_shapes", late)
    assert len(config.dataset("train")) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["v1_2+1_32x32_seed0"]
