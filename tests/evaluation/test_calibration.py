"""The reliability histogram against torchmetrics, a slow implementation, and cases worked by hand; what fills it."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import DynamicOutputShapeException, FakeTensorMode
from torchmetrics.functional.classification import multiclass_calibration_error

import segapp
from segapp.base.classes import VOC_CLASSES
from segapp.cli import run_tool
from segapp.data.formats.voc import voc_layout
from segapp.evaluation.calibration import Reliability, ReliabilityHistogram
from segapp.evaluation.confusion import ConfusionMatrix
from segapp.inference import geometry as scores_module
from segapp.inference.options import Sliding, Whole
from tests.inference.test_protocols import make, picture, sliding
from tests.networks import whole

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
    histogram = ReliabilityHistogram(len(images[0][1]), bins)
    for truth, logits in images:
        best = logits.softmax(0).max(0)
        histogram.update(truth, best.indices.to(torch.uint8), best.values)
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


def test_no_update_waits_for_a_device() -> None:
    """What depends on values, and so must wait for them, cannot run on tensors without any."""
    with FakeTensorMode():
        shape = (30, 40)
        truth, labels = torch.zeros(shape, dtype=torch.uint8), torch.zeros(shape, dtype=torch.uint8)
        ReliabilityHistogram(K).update(truth, labels, torch.zeros(shape))
        ConfusionMatrix(K).update(truth, labels)
        with pytest.raises(DynamicOutputShapeException):
            torch.bincount(labels.flatten().long(), minlength=K)


VIEWS: dict[str, Whole | Sliding] = {
    "one view": whole(65),
    "three views": whole(65, (0.75, 1, 1.25)),
    "no canvas": whole(None),
    "windows": sliding(49, scales=(0.75, 1)),
}


@pytest.mark.parametrize("strip_pixels", [1 << 20, 1000])
@pytest.mark.parametrize("case", VIEWS)
def test_confidence_is_the_highest_probability(case: str, strip_pixels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores_module, "STRIP_PIXELS", strip_pixels)
    found = make(VIEWS[case]).predict([picture(60, 90)], probabilities=True, confidence=True)[0]
    assert found.probabilities is not None
    assert found.confidence is not None
    assert found.confidence.shape == found.labels.shape
    assert np.abs(found.probabilities.max(0) - found.confidence.numpy()).max() < 1e-3
    chosen = np.take_along_axis(found.probabilities, found.labels.numpy()[None].astype(int), 0)[0]
    assert np.abs(chosen - found.confidence.numpy()).max() < 1e-3
    assert 0.25 - 1e-6 <= found.confidence.min() < found.confidence.max() <= 1 + 1e-6


def test_an_evaluation_counts_it(shapes_root: Path, make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """The page and metrics.json have what torchmetrics makes of the probabilities."""
    checkpoint, out = make_checkpoint(classes=VOC_CLASSES), tmp_path / "out"
    options = ["data=voc2012", f"data.root={shapes_root}", f"checkpoint={checkpoint}", "device=cpu", "workers=0"]
    assert run_tool("eval", [*options, f"output={out}"]) == 0
    values = json.loads((out / "metrics.json").read_text())
    predictor = segapp.load(checkpoint, device="cpu")
    dataset = voc_layout(shapes_root, "val", VOC_CLASSES, "shapes")
    samples = [dataset[at] for at in range(len(dataset))]
    probabilities = torch.cat(
        [torch.from_numpy(predictor.probabilities(each.image)).float().flatten(1).T for each in samples]
    )
    truth = torch.cat([torch.from_numpy(each.label).long().flatten() for each in samples if each.label is not None])
    expected = multiclass_calibration_error(
        probabilities, truth, num_classes=len(VOC_CLASSES), n_bins=20, norm="l1", ignore_index=255
    )
    assert values["calibration_error"] == pytest.approx(float(expected), abs=1e-3)
    assert sum(values["reliability"]["pixels"]) == (truth != 255).sum()
    assert len(values["reliability"]["accuracy"]) == len(values["reliability"]["confidence"]) == 20
    page = (out / "report.html").read_text()
    assert f"{values['calibration_error']:.4f}" in page
