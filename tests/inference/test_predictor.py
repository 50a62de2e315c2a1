"""The one predictor: padding, sizes, batches, and scores brought back to the image."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms.v2.functional import normalize as torchvision_normalize
from torchvision.transforms.v2.functional import to_dtype

from segapp.base.errors import UserError
from segapp.base.images import write_image
from segapp.inference import geometry as module
from segapp.inference.geometry import Geometry, resize_rows
from segapp.inference.predictor import Predictor
from segapp.inference.preprocess import fitted, normalize
from segapp.models.encoders.interface import INCEPTION, Normalization
from tests.networks import model_of, predictor_of, randomise, small, whole

CLASSES = ("background", "a", "b", "c")


def make(canvas: int | None = 65) -> Predictor:
    torch.manual_seed(0)
    model = small().build(len(CLASSES))
    randomise(model)
    return predictor_of(model, CLASSES, whole(canvas))


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def test_network_input_is_between_minus_one_and_one() -> None:
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    assert torch.allclose(normalize(pixels, INCEPTION).flatten(), torch.tensor([-1.0, -0.6, 1.0]))
    assert torch.equal(normalize(pixels, INCEPTION).flatten(), pixels.flatten().float() * (2 / 255) - 1), "to the bit"


def test_each_channel_is_normalised_by_its_own_mean_and_deviation() -> None:
    """ImageNet's usual ones, which peers' weights want, beside torchvision's."""
    usual = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    pixels = torch.from_numpy(picture(5, 7))
    scaled = to_dtype(pixels.permute(2, 0, 1), torch.float32, scale=True)
    expected = torchvision_normalize(scaled, list(usual.mean), list(usual.std))
    assert torch.allclose(normalize(pixels[None], usual)[0], expected, atol=1e-6)


@torch.inference_mode()
def test_pads_at_bottom_and_right_with_zero_and_never_resizes() -> None:
    """REFERENCE, section 4, written out by hand."""
    predictor = make()
    image = picture(40, 50)
    by_hand = torch.zeros(1, 3, 65, 65)
    by_hand[0, :, :40, :50] = torch.from_numpy(image).permute(2, 0, 1) * (2 / 255) - 1
    logits = model_of(predictor).eval()(by_hand)
    scores = F.interpolate(logits, (65, 65), mode="bilinear", align_corners=True)[0, :, :40, :50]
    prediction = predictor.predict([image], probabilities=True)[0]
    agree = prediction.labels == scores.argmax(0)
    assert agree.float().mean() > 0.999
    assert prediction.probabilities is not None
    assert np.allclose(prediction.probabilities, scores.softmax(0).numpy(), atol=2e-3)
    assert prediction.labels.shape == (40, 50)


def test_a_batch_gives_what_each_image_gives_alone() -> None:
    predictor = make()
    images = [picture(40, 50, 1), picture(65, 20, 2), picture(1, 1, 3)]
    together = predictor.predict(images, probabilities=True)
    for image, among in zip(images, together, strict=True):
        alone = predictor.predict([image], probabilities=True)[0]
        assert among.probabilities is not None
        assert alone.probabilities is not None
        assert np.abs(among.probabilities.astype(float) - alone.probabilities).max() < 2e-3
        assert (among.labels == alone.labels).float().mean() > 0.999


@pytest.mark.parametrize("size", [(300, 200), (65, 66), (1000, 3)])
def test_a_longer_side_is_brought_to_the_canvas_and_back(
    size: tuple[int, int], caplog: pytest.LogCaptureFixture
) -> None:
    predictor = make()
    caplog.set_level("INFO")
    prediction = predictor.predict([picture(*size)], probabilities=True)[0]
    assert prediction.labels.shape == size
    assert prediction.probabilities is not None
    assert prediction.probabilities.shape == (4, *size)
    assert np.allclose(prediction.probabilities.astype(np.float32).sum(0), 1, atol=5e-3)
    predictor.predict([picture(*size)])
    assert caplog.text.count(f"scaled down to it, the first from {size[1]} x {size[0]}") == 1


@torch.inference_mode()
def test_full_takes_the_image_as_it_is() -> None:
    predictor = make(canvas=None)
    seen: list[Any] = []
    model_of(predictor).register_forward_pre_hook(lambda network, args: seen.append(args[0].shape))
    assert predictor.predict([picture(81, 100)])[0].labels.shape == (81, 100)
    assert seen == [(1, 3, 81, 113)], "each side the next k * 16 + 1"


@pytest.mark.parametrize("size", [(301, 77), (33, 129), (20, 20)])
def test_strips_equal_one_resize(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STRIP_PIXELS", 1000)
    scores = torch.randn(1, 3, 33, 29)
    expected = F.interpolate(scores, size, mode="bilinear", align_corners=True)
    for rows in (slice(0, size[0]), slice(3, 10), slice(size[0] - 1, size[0])):
        assert torch.allclose(resize_rows(scores, size, rows), expected[:, :, rows], atol=1e-5)
    part = resize_rows(scores[:, :, 8:], size, slice(size[0] // 2, size[0]), first=8, height=33)
    assert torch.allclose(part, expected[:, :, size[0] // 2 :], atol=1e-5)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("canvas", "places"), [(257, 65), (129, 9), (97, 33), (113, 33), (1, 1)])
def test_scores_are_those_of_the_whole_canvas(canvas: int, places: int, memory_format: torch.memory_format) -> None:
    logits = torch.randn(1, 21, places, places).to(memory_format=memory_format)
    whole = F.interpolate(logits, (canvas, canvas), mode="bilinear", align_corners=True)
    for height, width in ((canvas, canvas), (canvas // 2 + 1, canvas), (canvas // 3 + 1, canvas // 5 + 1), (1, 1)):
        geometry = Geometry((canvas, canvas), (height, width), (height, width))
        ((rows, scores),) = geometry.scores([logits], probabilities=False)
        assert rows == slice(0, height)
        expected = whole[:, :, :height, :width]
        if height + width > 128:  # PyTorch computes smaller ones in another way
            assert torch.equal(scores, expected)
        assert torch.allclose(scores, expected, atol=1e-6)
        assert torch.equal(scores.argmax(1), expected.argmax(1))


def test_full_size_scores_are_read_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [picture(81, 100), picture(64, 130)]
    for canvas in (None, 145):
        predictor = make(canvas=canvas)
        whole = predictor.predict(images, probabilities=True)
        with monkeypatch.context() as patch:
            patch.setattr(module, "STRIP_PIXELS", 1500)
            pieces = predictor.predict(images, probabilities=True)
        for a, b in zip(whole, pieces, strict=True):
            assert a.probabilities is not None
            assert b.probabilities is not None
            assert np.abs(a.probabilities.astype(float) - b.probabilities).max() < 2e-3
            assert (a.labels == b.labels).float().mean() > 0.999


def test_a_canvas_that_does_not_fit_the_output_stride_is_refused() -> None:
    with pytest.raises(UserError, match=r"canvas of 57 is not k \* output_stride \+ 1 at output stride 16; take 49"):
        make(canvas=57)


@pytest.mark.parametrize("bad", [np.zeros((4, 4), np.float32), np.zeros((4, 4, 3)), np.zeros((4, 4, 5), np.uint8)])
def test_arrays_that_are_no_images_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(UserError, match="an image is H x W grey or H x W x 3 RGB"):
        make()(bad)


def test_called_with_an_array_or_a_file(tmp_path: Path) -> None:
    predictor = make()
    image = picture(30, 40)
    write_image(tmp_path / "image.png", image)
    labels = predictor(image)
    assert labels.dtype == np.uint8
    assert labels.shape == (30, 40)
    assert np.array_equal(predictor(tmp_path / "image.png"), labels)
    assert np.array_equal(predictor(Image.fromarray(image)), labels)
    opaque = np.full((30, 40, 1), 255, np.uint8)
    assert np.array_equal(predictor(np.concatenate([image, opaque], 2)), labels)
    assert np.array_equal(predictor(image[..., 0]), predictor(image[..., :1].repeat(3, 2)))


def test_leaves_the_network_in_the_mode_it_was_in() -> None:
    predictor = make()
    model_of(predictor).train()
    before = {name: tensor.clone() for name, tensor in model_of(predictor).state_dict().items()}
    predictor.predict([picture(40, 40)])
    assert model_of(predictor).training
    for name, tensor in model_of(predictor).state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_confidence_of_a_large_image_is_that_of_the_image_as_it_was_shown() -> None:
    predictor, large, small_one = make(65), picture(100, 150), picture(40, 60)
    shown = fitted(large, (65, 65))
    (found,), (expected,) = (
        predictor.predict([large], confidence="as_shown"),
        predictor.predict([shown], confidence=True),
    )
    assert found.labels.shape == (100, 150)
    assert found.confidence.shape == shown.shape[:2] == (43, 65)
    assert torch.equal(found.confidence, expected.confidence)
    assert torch.equal(found.labels, predictor.predict([large])[0].labels)
    (found,), (expected,) = (predictor.predict([small_one], confidence=each) for each in ("as_shown", True))
    assert torch.equal(found.confidence, expected.confidence)
