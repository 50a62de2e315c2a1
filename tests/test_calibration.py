"""The reliability histogram against torchmetrics, a slow implementation, and a case worked by hand."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from segapp.evaluation.calibration import Reliability, ReliabilityHistogram

K = 5


def random_image(seed: int, sharpness: float = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """H x W truth, a tenth of it ignored, and logits that favour it."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.randint(0, K, (30, 40), generator=generator)
    logits = torch.randn(K, 30, 40, generator=generator) * sharpness
    logits.scatter_add_(0, truth[None], torch.full((1, 30, 40), 2.0))
    truth[torch.rand(truth.shape, generator=generator) < 0.1] = 255
    return truth.to(torch.uint8), logits


def counted(*images: tuple[torch.Tensor, torch.Tensor], bins: int = 20) -> Reliability:
    histogram = ReliabilityHistogram(bins)
    for truth, logits in images:
        histogram.update(truth, logits)
    return histogram.compute()


@pytest.mark.parametrize("bins", [1, 7, 20])
@pytest.mark.parametrize("sharpness", [0.3, 3])
def test_equals_torchmetrics(bins: int, sharpness: float) -> None:
    truth, logits = random_image(0, sharpness)
    expected = multiclass_calibration_error(
        logits[None].softmax(1), truth[None].long(), num_classes=K, n_bins=bins, norm="l1", ignore_index=255
    )
    assert counted((truth, logits), bins=bins).ece == pytest.approx(float(expected), abs=1e-6)


def test_equals_a_loop_over_pixels() -> None:
    truth, logits = random_image(1)
    pixels, right, confidence = np.zeros(20, int), np.zeros(20, int), np.zeros(20)
    for true, scores in zip(truth.flatten().tolist(), logits.flatten(1).T.double(), strict=True):
        if true != 255:
            best = scores.softmax(0).max(0)
            at = int(float(best.values) * 20)
            pixels[at] += 1
            right[at] += int(best.indices) == true
            confidence[at] += float(best.values)
    found = counted((truth, logits))
    assert np.array_equal(found.pixels, pixels)
    assert np.array_equal(found.right, right)
    full = pixels > 0
    assert found.mean_confidence[full] == pytest.approx(confidence[full] / pixels[full], abs=1e-6)
    assert found.accuracy[full] == pytest.approx(right[full] / pixels[full])
    assert np.isnan(found.accuracy[~full]).all()
    assert not full.all()


def test_by_hand() -> None:
    """Two classes, four bins. Confidences 0.6 (right), 0.7 (wrong), 0.75 (right), 1 (right), and 0.9 ignored.

    The bin from 0.5 has a sum of 1.3 and 1 right, that from 0.75 a sum of 1.75 and 2 right: (0.3 + 0.25) / 4.
    """
    probability = torch.tensor([[0.6, 0.7, 0.75, 1.0, 0.9]])
    truth = torch.tensor([[0, 1, 0, 0, 255]], dtype=torch.uint8)
    found = counted((truth, torch.stack([probability, 1 - probability]).log()), bins=4)
    assert found.pixels.tolist() == [0, 0, 2, 2]
    assert found.right.tolist() == [0, 0, 1, 2]
    assert found.mean_confidence[2:] == pytest.approx([0.65, 0.875])
    assert found.ece == pytest.approx(0.55 / 4)


def test_strips_and_images_add_up_exactly() -> None:
    first, second = random_image(2), random_image(3)
    strips = [
        (truth[rows], logits[:, rows]) for truth, logits in (first, second) for rows in (slice(7), slice(7, None))
    ]
    whole, parts, apart = counted(first, second), counted(*strips[::-1]), counted(first) + counted(second)
    for other in (parts, apart):
        assert np.array_equal(whole.confidence, other.confidence)
        assert np.array_equal(whole.pixels, other.pixels)
        assert np.array_equal(whole.right, other.right)


def test_nothing_counted_is_nan() -> None:
    _, logits = random_image(4)
    nothing = counted((torch.full((30, 40), 255, dtype=torch.uint8), logits))
    assert nothing.pixels.sum() == 0
    assert np.isnan(nothing.ece)
