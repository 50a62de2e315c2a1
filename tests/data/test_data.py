"""Data sets, their errors, the label scan, and the stream of training crops."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch.utils.data import DataLoader

from segapp.base.classes import voc_palette
from segapp.base.errors import UserError
from segapp.base.images import read_mask, write_mask
from segapp.data.checks.scan import scan_labels
from segapp.data.dataset import SegmentationDataset
from segapp.data.formats.shapes import SHAPES_CLASSES, ShapesConfig
from segapp.data.formats.voc import Voc2012Config, voc_layout
from segapp.data.loading.crops import TrainingStream, training_batches
from segapp.data.loading.loader import start_worker, whole_images
from segapp.data.loading.memory import InMemory
from segapp.data.loading.transforms import ScaleCropFlip, TransformConfig, build_transform
from segapp.data.packed_strings import PackedStrings
from tests.folders import folder, make_folder

CONF = Path(__file__).parent.parent.parent / "conf"


def shapes(root: Path, split: str = "train") -> SegmentationDataset:
    return voc_layout(root, split, SHAPES_CLASSES, f"shapes {split}")


def voc(root: Path, **changes: str) -> Voc2012Config:
    values = yaml.safe_load((CONF / "data" / "voc2012.yaml").read_text())
    return Voc2012Config.model_validate(values | {"root": root, "train": "train"} | changes)


def test_voc_layout(shapes_root: Path) -> None:
    dataset = voc(shapes_root).dataset("train")
    assert len(dataset) == 8
    sample = dataset[3]
    with Image.open(shapes_root / "SegmentationClass" / f"{sample.id}.png") as mask:
        assert sample.label is not None
        assert np.array_equal(sample.label, np.array(mask))
    assert sample.image.shape == (64, 64, 3)
    assert len(dataset.classes) == 21


def test_trainaug_takes_its_own_masks(shapes_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "VOC2012"
    root.mkdir()
    (root / "JPEGImages").symlink_to(shapes_root / "JPEGImages")
    (root / "SegmentationClassAug").symlink_to(shapes_root / "SegmentationClass")
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "trainaug.txt").write_text("000000\n000001\n")
    masks = voc(root, train="trainaug").dataset("train").masks
    assert masks is not None
    assert [mask.parent.name for mask in masks] == ["SegmentationClassAug"] * 2


def test_a_test_set_has_no_labels(shapes_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "VOC2012"
    root.mkdir()
    (root / "JPEGImages").symlink_to(shapes_root / "JPEGImages")
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "test.txt").write_text("000000\n")
    dataset = voc(root, val="test").dataset("val")
    assert dataset[0].label is None
    with pytest.raises(UserError, match="no masks"):
        scan_labels(dataset)


def test_missing_data_is_told_with_the_way_to_get_it(shapes_root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"VOC 2012 is not in .*prepare_data\.py voc2012.*data\.root"):
        voc(tmp_path).dataset("train")
    with pytest.raises(UserError, match="nosuch.txt: no such list; there are: train, trainval, val"):
        voc(shapes_root, train="nosuch").dataset("train")
    with pytest.raises(UserError, match="trainaug"):
        voc(shapes_root, train="trainaug").dataset("train")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the list is empty"),
        (
            "000000\nmissing\nalso\n",
            r"missing \(and 1 more\): no such image in .*JPEGImages, but .*bad\.txt, line 2, ",
        ),
        ("000000\nJPEGImages/000001.jpg SegmentationClass/000002.png", r"000001\.jpg: its mask .*bad\.txt, line 2, "),
        ("000000\n000000\n", "000000 is listed twice"),
    ],
)
def test_bad_lists(shapes_root: Path, tmp_path: Path, text: str, message: str) -> None:
    root = tmp_path / "set"
    root.mkdir()
    for name in ("JPEGImages", "SegmentationClass"):
        (root / name).symlink_to(shapes_root / name)
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "bad.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        voc(root, train="bad").dataset("train")


@pytest.mark.parametrize(
    "lines",
    [
        ["000003.jpg", "JPEGImages/000001.jpg"],
        ["./JPEGImages/000003.jpg", "{root}/JPEGImages/000001.jpg"],
        ["JPEGImages/000003.jpg SegmentationClass/000003.png", "000001"],
        ["/JPEGImages/000003.jpg /SegmentationClassAug/000003.png", "000001"],
    ],
)
def test_vocs_lists_may_name_files(shapes_root: Path, tmp_path: Path, lines: list[str]) -> None:
    """The ids stay, and masks of trainaug are taken where the list names them."""
    root = tmp_path / "set"
    root.mkdir()
    (root / "JPEGImages").symlink_to(shapes_root / "JPEGImages")
    masks = "SegmentationClassAug" if "Aug" in lines[0] else "SegmentationClass"
    (root / masks).symlink_to(shapes_root / "SegmentationClass")
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "mine.txt").write_text("\n".join(lines).format(root=root))
    dataset = voc(root, train="mine").dataset("train")
    assert dataset.ids[:] == ["000003", "000001"]
    assert dataset.images[:] == [root / "JPEGImages" / "000003.jpg", root / "JPEGImages" / "000001.jpg"]
    assert dataset.masks is not None
    assert dataset.masks[:] == [root / masks / "000003.png", root / masks / "000001.png"]


def test_shapes_are_drawn_once(tmp_path: Path) -> None:
    values = yaml.safe_load((CONF / "data" / "shapes.yaml").read_text())
    values |= {"root": tmp_path, "train": 2, "val": 1, "height": 32, "width": 48, "seed": 3}
    config = ShapesConfig.model_validate(values)
    images = config.dataset("train").images
    stamp = images[0].stat().st_mtime_ns
    assert config.dataset("val")[0].image.shape == (32, 48, 3)
    assert images[0].stat().st_mtime_ns == stamp
    other = ShapesConfig.model_validate(values | {"seed": 4}).dataset("train").images
    assert other[0].read_bytes() != images[0].read_bytes()


def test_scan_counts_like_numpy_and_reads_only_what_changed(
    shapes_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path / "mine", 6)
    dataset = folder(tmp_path / "mine", val_fraction=1e-9).dataset("train")
    assert dataset.masks is not None
    counts = scan_labels(dataset)
    for mask, row in zip(dataset.masks, counts, strict=True):
        with Image.open(mask) as opened:
            values, pixels = np.unique(np.array(opened), return_counts=True)
        assert row.sum() == pixels.sum()
        assert row[values].tolist() == pixels.tolist()

    read: list[Path] = []

    def spy(path: Path) -> np.ndarray:
        read.append(path)
        return read_mask(path)

    monkeypatch.setattr("segapp.data.dataset.read_mask", spy)
    assert np.array_equal(scan_labels(dataset), counts)
    assert not read
    write_mask(dataset.masks[2], np.full((8, 10), 7, np.uint8), voc_palette())
    with pytest.raises(UserError, match=r"photo 2\.png: label value 7 is outside the 3 classes \(0 to 2, and 255"):
        scan_labels(dataset)
    assert read == [dataset.masks[2]]


def test_scan_names_a_mask_of_another_size_and_a_damaged_one(tmp_path: Path) -> None:
    make_folder(tmp_path, 3)
    dataset = folder(tmp_path, val_fraction=1e-9).dataset("train")
    write_mask(tmp_path / "masks" / "photo 0.png", np.zeros((10, 8), np.uint8), voc_palette())
    with pytest.raises(UserError, match=r"photo 0\.png: the mask is 8 x 10, its image 10 x 8"):
        scan_labels(dataset)
    with pytest.raises(UserError, match=r"photo 0\.png: the mask is 8 x 10"):
        dataset[list(dataset.ids).index("photo 0")]
    (tmp_path / "masks" / "photo 1.png").write_text("no picture")
    with pytest.raises(UserError, match=r"photo 0.*\(and 1 more\)"):
        scan_labels(dataset)


def test_a_broken_scan_cache_is_rebuilt(tmp_path: Path) -> None:
    make_folder(tmp_path / "mine", 3)
    dataset = folder(tmp_path / "mine", val_fraction=1e-9).dataset("train")
    counts = scan_labels(dataset)
    (cache,) = (tmp_path / "cache" / "labels").iterdir()
    whole = cache.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(30):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[rng.integers(0, len(whole), 20)] = rng.integers(0, 256, 20)
        cache.write_bytes(damaged[: rng.integers(1, len(whole))].tobytes())
        assert np.array_equal(scan_labels(dataset), counts)


def paper(crop: int) -> TransformConfig:
    text = (CONF / "transform" / "paper.yaml").read_text().replace("${transform.crop}", str(crop))
    text = text.replace(f'"{crop}"', str(crop))
    return TransformConfig.model_validate(yaml.safe_load(text) | {"crop": crop})


def test_scale_keeps_image_and_label_aligned() -> None:
    """A pixel of the scaled label is the class of the pixel that its centre falls on, or borders on."""
    rows, columns = np.mgrid[:20, :30].astype(np.uint8)
    for scale in (0.5, 0.75, 1.0, 1.5, 2.0):
        size = {"height": round(20 * scale), "width": round(30 * scale)}
        transform = build_transform([{"ScaleCropFlip": {"scales": [scale], "p_flip": 0, **size}}])
        for label, axis in ((rows, 0), (columns, 1)):
            scaled = transform(image=np.zeros((20, 30, 3), np.uint8), mask=label)["mask"]
            assert scaled.shape == (round(20 * scale), round(30 * scale))
            chosen = scaled[:, 0] if axis == 0 else scaled[0]
            centres = (np.arange(len(chosen)) + 0.5) * label.shape[axis] / len(chosen)
            assert np.abs(chosen + 0.5 - centres).max() <= 0.5 + 1e-6, scale


def test_paper_transform_pads_at_bottom_and_right_and_flips_both() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    label = image[..., 0] % 5
    transform = build_transform(paper(65).train)
    seen = set()
    for seed in range(60):
        transform.set_random_seed(seed)
        out = transform(image=image, mask=label)
        crop, mask = out["image"], out["mask"]
        assert crop.shape == (65, 65, 3)
        height, width = (mask != 255).any(1).sum(), (mask != 255).any(0).sum()
        flipped = bool((mask[:, 0] == 255).all())
        if flipped:
            crop, mask = crop[:, ::-1], mask[:, ::-1]
        assert (mask[:height, :width] != 255).all()
        assert (mask[height:] == 255).all()
        assert (crop[height:] == 128).all()
        assert (crop[:, width:] == 128).all()
        assert np.array_equal(crop[:height, :width], cv2.resize(image, (int(width), int(height))))
        seen.add((int(height), flipped))
    assert {height for height, _ in seen} == {10, 15, 20, 25, 30, 35, 40}
    assert {flipped for _, flipped in seen} == {False, True}


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"NoSuchThing": {}}, "NoSuchThing is no transform"),
        ({"HorizontalFlip": {"probability": 1}}, "HorizontalFlip.*probability"),
        ({"ScaleCropFlip": {"scales": [], "height": 9, "width": 9}}, "ScaleCropFlip.*scales"),
        ({"ScaleCropFlip": {"scales": [1, 0], "height": 9, "width": 9}}, "ScaleCropFlip.*greater than 0"),
        ({"ScaleCropFlip": {"scales": [1]}}, "ScaleCropFlip.*height"),
        ({"ScaleCropFlip": {"scales": [1], "height": 9, "width": 9, "p_flip": 2}}, "ScaleCropFlip.*p_flip"),
        ({"Compose": {}}, "Compose is no transform"),
    ],
)
def test_bad_transforms(step: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_transform([step])


def in_plain_order(
    array: np.ndarray, step: ScaleCropFlip, params: dict[str, Any], interpolation: int, fill: int
) -> np.ndarray:
    """The whole array scaled, padded, cropped and flipped, one after the other."""
    height, width = params["size"]
    if (height, width) != array.shape[:2]:
        array = cv2.resize(array, (width, height), interpolation=interpolation)
    below, beside = max(0, step.height - height), max(0, step.width - width)
    array = np.pad(array, ((0, below), (0, beside)) + ((0, 0),) * (array.ndim - 2), constant_values=fill)
    array = array[params["top"] : params["top"] + step.height, params["left"] : params["left"] + step.width]
    return array[:, ::-1] if params["flip"] else array


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 0.3, 0.55, 2.7, 0.99, 1.01])
def test_scale_crop_flip_is_the_plain_order(scale: float) -> None:
    """Within a grey level, and labels equal: images of all small sizes and some of VOC's, noise and hard edges."""
    rng = np.random.default_rng(0)
    sides = [*range(1, 120), *range(1, 120), *range(1, 120), 333, 375, 500]
    for case, height in enumerate(sides):
        width = int(rng.integers(1, 120)) if height < 120 else 500
        crop = rng.integers(1, 150, 2).tolist() if height < 120 else (513, 321)
        image = rng.integers(0, 256, (height, width, 3), np.uint8)
        if case % 2:
            image = np.where(image < 128, 0, 255).astype(np.uint8)
        label = rng.integers(0, 256, (height, width), np.uint8)
        step = ScaleCropFlip([scale], *crop)
        step.set_random_seed(case)
        into = np.full((*crop, 3), 77, np.uint8), np.full(crop, 77, np.uint8)
        params = step.get_params_dependent_on_data({"shape": image.shape}, {"into": into} if case % 3 else {})
        expected = in_plain_order(image, step, params, cv2.INTER_LINEAR, 128)
        actual, actual_label = step.apply(image, **params), step.apply_to_mask(label, **params)
        assert actual.shape == (*crop, 3)
        assert np.abs(actual.astype(int) - expected).max() <= 1, (height, width, crop, params)
        expected = in_plain_order(label, step, params, cv2.INTER_NEAREST_EXACT, 255)
        assert np.array_equal(actual_label, expected), (height, width, crop, params)
        assert (actual is into[0]) == (actual_label is into[1]) == bool(case % 3)


def test_every_place_of_a_crop_is_drawn_and_right() -> None:
    """So the part that is resized begins everywhere it can."""
    image = np.random.default_rng(1).integers(0, 256, (45, 36, 3), np.uint8)
    for scale in (0.75, 1.25, 1.75, 2.0):
        step = ScaleCropFlip([scale], 20, 11)
        places = set()
        for seed in range(1500):
            step.set_random_seed(seed)
            params = step.get_params_dependent_on_data({"shape": image.shape}, {})
            places |= {("top", params["top"]), ("left", params["left"]), ("flip", params["flip"])}
            expected = in_plain_order(image, step, params, cv2.INTER_LINEAR, 128)
            assert np.abs(step.apply(image, **params).astype(int) - expected).max() <= 1, params
        height, width = params["size"]
        assert len(places) == height - 20 + 1 + width - 11 + 1 + 2


STEP: dict[str, dict[str, Any] | None] = {"ScaleCropFlip": {"scales": [2, 1, 0.5], "height": 33, "width": 33}}


@pytest.mark.parametrize(
    "steps",
    [
        [{"Rotate": {"limit": 10, "p": 1}}, STEP, {"ToGray": {"p": 1}}],
        [STEP, {"HorizontalFlip": {"p": 0.5}}, STEP],
        [{"ScaleCropFlip": {"scales": [1], "height": 40, "width": 33}}, {"RandomCrop": {"height": 33, "width": 33}}],
        [{"ToFloat": {"max_value": 255}}, STEP, {"FromFloat": {"max_value": 255}}],
        [STEP, {"GaussNoise": {"p": 1}}],
    ],
)
def test_other_steps_may_stand_around_it(steps: list[dict[str, dict[str, Any] | None]]) -> None:
    """And a place for the crop changes nothing, whatever else writes or reads there."""
    image = np.random.default_rng(0).integers(0, 256, (45, 36, 3), np.uint8)
    transform = build_transform(steps)
    for seed in range(20):
        transform.set_random_seed(seed)
        expected = transform(image=image, mask=image[..., 0])
        assert expected["image"].shape == (33, 33, 3)
        assert expected["mask"].shape == (33, 33)
        assert expected["image"].dtype == np.uint8
        transform.set_random_seed(seed)
        into = np.empty((33, 33, 3), np.uint8), np.empty((33, 33), np.uint8)
        actual = transform(image=image, mask=image[..., 0], into=into)
        for name in ("image", "mask"):
            assert np.array_equal(actual[name], expected[name])


def crops(root: Path, workers: int, start: int = 0, stop: int = 6) -> list[tuple[torch.Tensor, torch.Tensor]]:
    stream = TrainingStream(shapes(root), paper(33), seed=7)
    return list(training_batches(stream, start=start, stop=stop, batch_size=3, workers=workers, pin_memory=False))


def test_crops_do_not_depend_on_workers_and_resume_anywhere(shapes_root: Path) -> None:
    alone = crops(shapes_root, 0, stop=20)
    assert len(alone) == 20
    resumed = [*crops(shapes_root, 0, 0, 2), *crops(shapes_root, 2, 2, 20)]
    for other in (crops(shapes_root, 1, stop=20), crops(shapes_root, 2, stop=20), resumed):
        for (image, label), (other_image, other_label) in zip(alone, other, strict=True):
            assert torch.equal(image, other_image)
            assert torch.equal(label, other_label)
    image, label = alone[0]
    assert (image.shape, image.dtype) == ((3, 33, 33, 3), torch.uint8)
    assert (label.shape, label.dtype) == ((3, 33, 33), torch.uint8)


@pytest.mark.parametrize("workers", [1, 2])
def test_no_worker_writes_over_a_batch_that_is_not_copied_yet(
    shapes_root: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    def slow(tensor: torch.Tensor) -> torch.Tensor:
        time.sleep(0.02)  # the workers make all batches that they may meanwhile
        return tensor + 0

    expected = crops(shapes_root, 0, stop=12)
    monkeypatch.setattr(torch.Tensor, "clone", slow)
    for (image, label), (other_image, other_label) in zip(crops(shapes_root, workers, stop=12), expected, strict=True):
        assert torch.equal(image, other_image)
        assert torch.equal(label, other_label)


def test_workers_draw_different_numbers(shapes_root: Path) -> None:
    """One image alone: all crops of all workers differ."""
    dataset = shapes(shapes_root)
    assert dataset.masks is not None
    one = SegmentationDataset("one", dataset.classes, PackedStrings(["0"]), dataset.images[:1], dataset.masks[:1])
    step: dict[str, Any] = {"scales": [2], "height": 33, "width": 33}  # 9216 places
    transform = TransformConfig(crop=33, train=[{"ScaleCropFlip": step}])
    stream = TrainingStream(one, transform, seed=7)
    batches = list(training_batches(stream, start=0, stop=4, batch_size=3, workers=2, pin_memory=False))
    assert len({image.numpy().tobytes() for images, _ in batches for image in images}) == 12


def test_workers_run_no_threads_of_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr("segapp.data.loading.loader.cv2.setNumThreads", asked.append)
    start_worker(0)
    assert asked == [0]


def test_every_image_once_an_epoch(shapes_root: Path) -> None:
    stream = TrainingStream(shapes(shapes_root), paper(33), seed=0)
    orders = []
    for epoch in range(3):
        for position in range(8 * epoch, 8 * epoch + 8):
            stream[position]
        orders.append(stream._order.tolist())
    assert all(sorted(order) == list(range(8)) for order in orders)
    assert orders[0] != orders[1] != orders[2]


@pytest.mark.slow
def test_workers_may_be_spawned(shapes_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segapp.data.loading.crops.DataLoader", partial(DataLoader, multiprocessing_context="spawn"))
    for (image, label), (other_image, other_label) in zip(
        crops(shapes_root, 1, stop=5), crops(shapes_root, 0, stop=5), strict=True
    ):
        assert torch.equal(image, other_image)
        assert torch.equal(label, other_label)


def test_too_little_shared_memory_is_told(shapes_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensor: torch.Tensor) -> None:
        raise RuntimeError("No space left on device (28)")

    monkeypatch.setattr(torch.Tensor, "share_memory_", full)
    with pytest.raises(UserError, match=r"workers=2 need 0\.0 GB .*No space left.*fewer workers, or .*shm"):
        crops(shapes_root, 2)
    assert len(crops(shapes_root, 0)) == 6


@pytest.mark.slow
def test_neighbouring_crops_are_independent(shapes_root: Path) -> None:
    """4000 flips: half of them, and half as 1, 2 and 3 crops before, within 4 standard deviations."""
    dataset = shapes(shapes_root)
    assert dataset.masks is not None
    one = InMemory(
        SegmentationDataset("one", dataset.classes, PackedStrings(["0"]), dataset.images[:1], dataset.masks[:1])
    )
    for seed in (0, 1):
        transform = TransformConfig(crop=64, train=[{"HorizontalFlip": {"p": 0.5}}])
        stream = TrainingStream(one, transform, seed)
        images, _ = stream.empty(4000)
        assert stream.fill(0, images, stream.empty(4000)[1]) is None
        flipped = (images != torch.tensor(one[0].image)).flatten(1).any(1)
        for chance in (flipped, *(flipped[lag:] == flipped[:-lag] for lag in (1, 2, 3))):
            assert abs(chance.float().mean().item() - 0.5) < 4 * 0.5 / 4000**0.5


def test_a_damaged_image_in_a_worker_is_one_line(shapes_root: Path, tmp_path: Path) -> None:
    dataset = shapes(shapes_root)
    broken = tmp_path / "broken.jpg"
    broken.write_text("no picture")
    dataset = SegmentationDataset("s", dataset.classes, dataset.ids, [broken] * 8, dataset.masks)
    stream = TrainingStream(dataset, paper(33), seed=0)
    for workers in (0, 1):
        with pytest.raises(UserError, match=r"^\S+broken\.jpg: not an image, or of an unknown format$"):
            list(training_batches(stream, start=0, stop=1, batch_size=2, workers=workers, pin_memory=False))
    items = [item for batch in whole_images(dataset, range(len(dataset)), batch_size=3, workers=0) for item in batch]
    assert len(items) == 8
    assert all(isinstance(item, UserError) for item in items)


def test_a_transform_that_fails_is_told(shapes_root: Path) -> None:
    transform = TransformConfig(crop=99, train=[{"RandomCrop": {"height": 99, "width": 99}}])
    stream = TrainingStream(shapes(shapes_root), transform, seed=0)
    with pytest.raises(UserError, match="transform.train fails on .*jpg: .*[Cc]rop"):
        next(training_batches(stream, start=0, stop=1, batch_size=1, workers=0, pin_memory=False))


def test_a_transform_of_the_wrong_size_is_told(shapes_root: Path) -> None:
    transform = TransformConfig(crop=33, train=[{"HorizontalFlip": {"p": 0.5}}])
    stream = TrainingStream(shapes(shapes_root), transform, seed=0)
    with pytest.raises(UserError, match="64 x 64.*33 x 33"):
        next(training_batches(stream, start=0, stop=1, batch_size=1, workers=0, pin_memory=False))
