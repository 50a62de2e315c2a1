"""Training transforms against TensorFlow's ops, and against the plain order of their steps."""

import colorsys
from typing import Any

import numpy as np
import pytest

from segapp.base.errors import UserError
from segapp.data.loading.transforms import ScaleCropFlip, build_transform, saturated
from tests.data.loading.samples import paper
from tests.tensorflow.weights import FIXTURES


def test_what_the_paper_scales_crops_and_flips_is_googles() -> None:
    """TensorFlow's own ops on the same numbers: the size, the image to half a grey level, the labels equal."""
    with np.load(FIXTURES / "pipeline.npz") as file:
        image, label, crop = file["image"], file["label"], int(file["crop"])
        for number, scale in enumerate(file["scales"].tolist()):
            step = ScaleCropFlip([scale], crop, crop)
            height, width, top, left, flip = file[f"crop_{number}"].tolist()
            assert step.get_params_dependent_on_data({"shape": image.shape}, {})["size"] == (height, width)
            params = {"size": (height, width), "top": top, "left": left, "flip": bool(flip), "into": (None, None)}
            pixels = step.apply(image, **params).astype(np.float32)
            assert np.abs(pixels - file[f"image_{number}"]).max() <= 0.51, scale
            assert np.array_equal(step.apply_to_mask(label, **params), file[f"label_{number}"]), scale


def test_sizes_are_rounded_down() -> None:
    """375 x 0.5 is 187 (new_dim in core/preprocess_utils.py)."""
    for scale, size in ((0.5, (187, 250)), (1.75, (656, 875)), (2.0, (750, 1000))):
        params = ScaleCropFlip([scale], 9, 9).get_params_dependent_on_data({"shape": (375, 500, 3)}, {})
        assert params["size"] == size


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
        assert np.abs(crop[:height, :width] - aligned(image, height, width)).max() <= 0.51
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


def aligned(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """The bilinear resize with aligned corners, written out in float64, not rounded."""
    for axis, length in ((0, height), (1, width)):
        at = np.arange(length) * ((image.shape[axis] - 1) / max(1, length - 1))
        lower = np.floor(at).astype(int)
        share = (at - lower).reshape((-1, 1, 1) if axis == 0 else (-1, 1))
        upper = np.minimum(lower + 1, image.shape[axis] - 1)
        image = image.take(lower, axis) * (1 - share) + image.take(upper, axis) * share
    return image


def aligned_labels(label: np.ndarray, height: int, width: int) -> np.ndarray:
    """The nearest pixel with aligned corners, halves upwards, in float32 as TensorFlow computes it."""
    for axis, length in ((0, height), (1, width)):
        step = np.float32(label.shape[axis] - 1) / np.float32(max(1, length - 1))
        at = [int(np.floor(np.float32(i) * step + np.float32(0.5))) for i in range(length)]
        label = label.take(np.minimum(at, label.shape[axis] - 1), axis)
    return label


def in_plain_order(array: np.ndarray, step: ScaleCropFlip, params: dict[str, Any], fill: int) -> np.ndarray:
    """The whole array scaled, padded, cropped and flipped, one after the other."""
    height, width = params["size"]
    if (height, width) != array.shape[:2]:
        array = (aligned if array.ndim == 3 else aligned_labels)(array, height, width)
    below, beside = max(0, step.height - height), max(0, step.width - width)
    array = np.pad(array, ((0, below), (0, beside)) + ((0, 0),) * (array.ndim - 2), constant_values=fill)
    array = array[params["top"] : params["top"] + step.height, params["left"] : params["left"] + step.width]
    return array[:, ::-1] if params["flip"] else array


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 0.3, 0.55, 2.7, 0.99, 1.01])
def test_scale_crop_flip_is_the_plain_order(scale: float) -> None:
    """To half a grey level and float32's places, labels equal: all small sizes and some of VOC's, noise and edges."""
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
        expected = in_plain_order(image, step, params, 128)
        actual, actual_label = step.apply(image, **params), step.apply_to_mask(label, **params)
        assert actual.shape == (*crop, 3)
        assert np.abs(actual - expected).max() <= 0.55, (height, width, crop, params)
        expected = in_plain_order(label, step, params, 255)
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
            expected = in_plain_order(image, step, params, 128)
            assert np.abs(step.apply(image, **params) - expected).max() <= 0.51, params
        height, width = params["size"]
        assert len(places) == height - 20 + 1 + width - 11 + 1 + 2


@pytest.mark.parametrize("channels", [1, 4])
def test_images_of_other_channels(channels: int) -> None:
    image = np.random.default_rng(2).integers(0, 256, (45, 36, channels), np.uint8)
    step = ScaleCropFlip([0.75], 20, 11)
    for seed in range(5):
        step.set_random_seed(seed)
        params = step.get_params_dependent_on_data({"shape": image.shape}, {})
        assert np.abs(step.apply(image, **params) - in_plain_order(image, step, params, 128)).max() <= 0.51


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


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 1.5, 40.0])
def test_saturation_is_that_of_hsv(factor: float) -> None:
    """Pixel by pixel with Python's own colorsys, as tf.image.adjust_saturation does."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 7, 3)).astype(np.float32)
    pixels[0, 0], pixels[0, 1], pixels[0, 2] = 0, 90, (255, 0, 0)
    expected = np.empty_like(pixels)
    for at in np.ndindex(6, 7):
        hue, saturation, value = colorsys.rgb_to_hsv(*(pixels[at] / 255).tolist())
        expected[at] = colorsys.hsv_to_rgb(hue, min(1.0, factor * saturation), value)
    assert np.allclose(saturated(pixels, factor), 255 * expected, atol=1e-3)


def test_brightness_and_saturation_lie_in_their_bounds() -> None:
    grey = np.full((4, 5, 3), 100, np.uint8)
    step = build_transform([{"BrightnessSaturation": {"brightness": 32, "saturation": [0.5, 1.5]}}])
    levels = {int(step(image=grey)["image"][0, 0, 0]) for _ in range(300)}
    assert min(levels) >= 68
    assert max(levels) <= 132
    assert max(levels) - min(levels) > 50
    colour = np.full((4, 5, 3), (200, 100, 100), np.uint8)
    step = build_transform([{"BrightnessSaturation": {"brightness": 0, "saturation": [0.5, 1.5]}}])
    found = np.array([step(image=colour)["image"][0, 0] for _ in range(300)])
    assert (found[:, 0] == 200).all()
    assert found[:, 1].min() >= 50
    assert found[:, 1].max() <= 150
    assert np.ptp(found[:, 1]) > 80
    with pytest.raises(UserError, match="BrightnessSaturation"):
        build_transform([{"BrightnessSaturation": {"brightness": -1}}])
