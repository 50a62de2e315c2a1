"""The stream of training crops: the same from any number of workers, and from any position."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from segapp.base.errors import UserError
from segapp.data.dataset import SegmentationDataset
from segapp.data.loading.crops import TrainingStream, training_batches
from segapp.data.loading.loader import whole_images
from segapp.data.loading.memory import InMemory
from segapp.data.loading.transforms import TransformConfig
from segapp.data.packed_strings import PackedStrings
from tests.data.loading.samples import paper, shapes


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
