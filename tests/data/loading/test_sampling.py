"""The order of training images."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from segapp.data.loading.sampling import ClassBalanced, Uniform


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
