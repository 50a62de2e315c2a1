"""Samples held in memory."""

import json
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segapp.base.classes import VOC_CLASSES, voc_palette
from segapp.base.compose import read_config
from segapp.base.errors import UserError
from segapp.base.images import write_image
from segapp.base.masks import write_mask
from segapp.data.dataset import SegmentationDataset
from segapp.data.formats.voc import voc_layout
from segapp.data.loading.crops import TrainingStream, training_batches
from segapp.data.loading.memory import InMemory
from segapp.data.loading.transforms import TransformConfig
from segapp.training.config import TrainConfig
from segapp.training.trainer import train
from tests.data.getting.samples import make_voc
from tests.training.test_training import TINY


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
