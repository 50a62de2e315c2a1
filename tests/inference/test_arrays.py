"""What is computed with NumPy's arrays, beside PyTorch's own of tensors."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from segapp.base.normalization import IMAGENET, INCEPTION, Normalization
from segapp.inference import arrays
from segapp.inference.geometry import resize_rows
from segapp.inference.preprocess import padded
from segapp.inference.video import Smoother


def scores(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


@pytest.mark.parametrize(
    ("small", "size"),
    [
        ((9, 13), (33, 49)),
        ((10, 7), (37, 31)),
        ((1, 5), (17, 9)),
        ((5, 1), (9, 4)),
        ((33, 33), (17, 20)),
        ((2, 3), (4, 33000)),  # longer than a short integer counts
    ],
)
def test_a_resize_is_pytorchs(small: tuple[int, int], size: tuple[int, int]) -> None:
    values = scores(2, 3, *small)
    expected = F.interpolate(torch.from_numpy(values), size, mode="bilinear", align_corners=True).numpy()
    assert np.abs(arrays.resize(values, size) - expected).max() < 1e-4
    rows = slice(size[0] // 2, size[0])
    assert np.abs(resize_rows(values, size, rows) - expected[:, :, rows]).max() < 1e-4
    first = max(0, int(rows.start * (small[0] - 1) / max(1, size[0] - 1)) - 1)
    part = resize_rows(values[:, :, first:], size, rows, first=first, height=small[0])
    assert np.abs(part - expected[:, :, rows]).max() < 1e-4


def test_a_resize_mixes_neighbours_alone() -> None:
    """Whatever lies elsewhere, infinite, too."""
    values = scores(1, 1, 9, 9)
    values[..., 8, 8] = np.inf
    assert np.isfinite(arrays.resize(values, (65, 65))[..., :56, :56]).all()


def test_softmax_and_what_is_best_are_pytorchs() -> None:
    values = scores(1, 255, 6, 7) * 40
    tensor = torch.from_numpy(values.copy())
    assert np.abs(arrays.softmax(values) - tensor.softmax(1).numpy()).max() < 1e-6
    highest, labels = arrays.best(values[0])
    expected = tensor[0].max(0)
    assert labels.dtype == np.uint8
    assert np.array_equal(highest, expected.values.numpy())
    assert np.array_equal(labels, expected.indices.numpy())
    certain = arrays.share_of_best(values[0], highest)
    assert np.abs(certain - tensor.softmax(1)[0].max(0).values.numpy()).max() < 1e-6


def test_of_equal_scores_the_first_class_is_best_and_what_is_no_number_is_no_class_outside() -> None:
    values = np.zeros((4, 1, 3), np.float32)
    values[1:3, 0, 1] = 5
    values[2, 0, 2] = np.nan
    assert arrays.best(values)[1].tolist() == [[0, 1, 2]] == [torch.from_numpy(values).max(0).indices[0].tolist()]


@pytest.mark.parametrize("normalization", [INCEPTION, IMAGENET])
def test_images_are_normalised_to_the_bit_as_pytorch_does(normalization: Normalization) -> None:
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (*size, 3), np.uint8) for size in ((17, 33), (1, 1), (33, 20))]
    expected = padded(images, (33, 33), normalization, torch.device("cpu"))
    assert np.array_equal(padded(images, (33, 33), normalization, None), expected.numpy())


def test_smoothing_is_the_same_without_pytorch() -> None:
    ours, torchs = Smoother(0.5), Smoother(0.5)
    for at in range(4):
        values = np.random.default_rng(at).random((3, 20, 30)).astype(np.float16)
        assert np.array_equal(ours(values, at / 10), torchs(torch.from_numpy(values), at / 10))
