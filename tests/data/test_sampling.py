"""The order of training images, samples held in memory, and sets that must not share images."""

import json
import multiprocessing
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segapp.base.classes import VOC_CLASSES, voc_palette
from segapp.base.errors import UserError
from segapp.base.images import write_image, write_mask
from segapp.cli import read_config
from segapp.data.checks.splits import check_apart
from segapp.data.dataset import SegmentationDataset
from segapp.data.formats.voc import voc_layout
from segapp.data.loading.crops import TrainingStream, training_batches
from segapp.data.loading.memory import InMemory
from segapp.data.loading.sampling import ClassBalanced, Uniform
from segapp.data.loading.transforms import TransformConfig
from segapp.training.config import TrainConfig
from segapp.training.trainer import train
from tests.data.test_get import make_voc
from tests.training.test_training import TINY


def counts_of(*classes_of_images: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.int64]]:
    counts = np.zeros((len(classes_of_images), 256), np.int64)
    for row, classes in zip(counts, classes_of_images, strict=True):
        row[list(classes)] = 10
        row[255] = 3
    return counts


def test_uniform_is_every_image_once() -> None:
    order = Uniform(100, seed=1)
    assert sorted(order(0)) == list(range(100))
    assert list(order(0)) == list(Uniform(100, seed=1)(0))
    assert list(order(0)) != list(order(1))
    assert list(order(0)) != list(Uniform(100, seed=2)(0))


def test_class_balanced_shows_each_class_alike() -> None:
    """98 images of class 0 alone, one with 1, one with 2; 3 occurs nowhere: a third of the draws for each class."""
    counts = counts_of(*[(0,)] * 98, (1,), (2,))
    order = ClassBalanced(counts, 4, seed=0)
    drawn = Counter(int(index) for epoch in range(300) for index in order(epoch))
    assert sum(drawn.values()) == 30_000
    for image in (98, 99):
        assert drawn[image] == pytest.approx(10_000, rel=0.05)
    each = [drawn[image] for image in range(98)]
    assert sum(each) == pytest.approx(10_000, rel=0.05)
    assert np.std(each) == pytest.approx(np.sqrt(10_000 / 98), rel=0.3), "among a class's images, all alike"


def test_class_balanced_is_a_function_of_the_epoch_and_the_seed() -> None:
    counts = counts_of((0, 1), (0,), (0,), (2,))
    assert list(ClassBalanced(counts, 3, seed=5)(7)) == list(ClassBalanced(counts, 3, seed=5)(7))
    assert any(list(ClassBalanced(counts, 3, 5)(e)) != list(ClassBalanced(counts, 3, 6)(e)) for e in range(5))
    assert set(ClassBalanced(counts_of((), ()), 3, seed=0)(0)) <= {0, 1}, "nothing but void"


@pytest.fixture
def dataset(shapes_root: Path) -> SegmentationDataset:
    return voc_layout(shapes_root, "train", VOC_CLASSES, "shapes train")


def test_samples_from_memory_are_the_files(dataset: SegmentationDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    held = InMemory(dataset)
    assert len(held) == len(dataset)
    first = [held[index] for index in range(len(held))]
    monkeypatch.setattr("segapp.data.dataset.read_image", None)  # no file is read any more
    for index, sample in enumerate(first):
        again = held[index]
        assert np.array_equal(again.image, sample.image)
        assert sample.label is not None
        assert np.array_equal(again.label, sample.label)  # type: ignore[arg-type]
        assert again.id == dataset.ids[index]
        with pytest.raises(ValueError, match="read-only"):
            again.image[0] = 0


def test_samples_of_several_sizes(tmp_path: Path) -> None:
    make_voc(tmp_path)
    random = np.random.default_rng(0)
    for id, size in (("a", (5, 9)), ("b", (12, 3))):
        write_image(tmp_path / "JPEGImages" / f"{id}.jpg", random.integers(0, 256, (*size, 3), np.uint8))
        write_mask(tmp_path / "SegmentationClass" / f"{id}.png", random.integers(0, 21, size, np.uint8), voc_palette())
    plain = voc_layout(tmp_path, "train", VOC_CLASSES, "x")
    held = InMemory(plain)
    for index in (1, 0, 1):
        assert np.array_equal(held[index].image, plain[index].image)
        assert np.array_equal(held[index].label, plain[index].label)  # type: ignore[arg-type]


def read_all(held: InMemory) -> None:
    for index in range(len(held)):
        held[index]


def test_forked_processes_share_what_one_has_read(
    dataset: SegmentationDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = InMemory(dataset)
    process = multiprocessing.get_context("fork").Process(target=read_all, args=(held,))
    process.start()
    process.join()
    expected = [dataset[index].image for index in range(len(dataset))]
    monkeypatch.setattr("segapp.data.dataset.read_image", None)
    assert all(np.array_equal(held[index].image, image) for index, image in enumerate(expected))


def test_a_spawned_process_reads_for_itself(dataset: SegmentationDataset) -> None:
    held = InMemory(dataset)
    held[0]
    copied = pickle.loads(pickle.dumps(held))
    assert len(pickle.dumps(held)) < 20_000
    assert np.array_equal(copied[0].image, held[0].image)


def test_too_little_memory_is_told_beforehand(dataset: SegmentationDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segapp.data.loading.memory._free_memory", lambda: 1000)
    with pytest.raises(UserError, match=r"data\.cache=memory needs 0\.0 GB .* take data\.cache=none"):
        InMemory(dataset)


@pytest.mark.parametrize("workers", [0, 2])
def test_crops_are_the_same_from_memory(dataset: SegmentationDataset, workers: int) -> None:
    transform = TransformConfig(crop=33, train=[{"RandomCrop": {"height": 33, "width": 33}}])
    options: dict[str, Any] = {"start": 0, "stop": 6, "batch_size": 3, "workers": workers, "pin_memory": False}
    for plain, held in zip(
        training_batches(TrainingStream(dataset, transform, 0), **options),
        training_batches(TrainingStream(InMemory(dataset), transform, 0), **options),
        strict=True,
    ):
        assert (plain[0] == held[0]).all()
        assert (plain[1] == held[1]).all()


def losses(output: Path, *more: str) -> list[float]:
    overrides = [*TINY, f"data.root={output.parent / 'data'}", "iterations=4", "validate_every=4", *more]
    output.mkdir()
    train(read_config("train", overrides, TrainConfig), output)
    records = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [record["loss"] for record in records if "loss" in record]


@pytest.mark.slow
def test_training_from_memory_is_the_same_and_balanced_another(tmp_path: Path) -> None:
    plain = losses(tmp_path / "plain")
    assert losses(tmp_path / "memory", "data.cache=memory") == plain
    assert losses(tmp_path / "balanced", "data.sampler=class_balanced") != plain
    assert losses(tmp_path / "weighted", "loss.class_weights=balanced") != plain


def test_sets_that_share_an_image_are_refused(shapes_root: Path) -> None:
    train_set = voc_layout(shapes_root, "train", VOC_CLASSES, "voc2012 train")
    val = voc_layout(shapes_root, "val", VOC_CLASSES, "voc2012 val")
    both = voc_layout(shapes_root, "trainval", VOC_CLASSES, "voc2012 trainval")
    check_apart(train_set, val)
    with pytest.raises(UserError, match=r"4 images are in both voc2012 trainval and voc2012 val, .*000008\.jpg"):
        check_apart(both, val)
    roundabout = voc_layout(shapes_root / "JPEGImages" / "..", "val", VOC_CLASSES, "voc2012 val")
    with pytest.raises(UserError, match="4 images are in both"):
        check_apart(both, roundabout)
