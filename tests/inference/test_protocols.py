"""Scales, mirror images, windows and resizes, against the same thing written plainly."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import segapp
from segapp.base.classes import voc_palette
from segapp.base.compose import read_config
from segapp.base.errors import UserError
from segapp.base.images import Decoding, read_image, write_image
from segapp.base.masks import read_mask, write_mask
from segapp.cli import run_tool
from segapp.evaluation.config import EvalToolConfig
from segapp.inference import geometry as scores_module
from segapp.inference import predictor as predictor_module
from segapp.inference import preprocess as preprocess_module
from segapp.inference.geometry import Geometry
from segapp.inference.options import Resized, Sliding, Whole
from segapp.inference.predictor import Predictor
from segapp.inference.test_time_augmentation import TestTimeAugmentation
from segapp.models.deeplabv3plus import DeepLabV3Plus
from segapp.models.encoders.interface import INCEPTION
from segapp.models.surgery import fold_bn
from segapp.runtimes.interface import RuntimeSpec
from segapp.weights.checkpoint import CheckpointInfo, save_checkpoint
from tests.networks import predictor_of, randomise, runtime_of, small, whole
from tests.tensorflow.weights import FIXTURES

CLASSES = ("background", "a", "b", "c")
SCALES = (0.5, 0.75, 1, 1.25, 1.5, 1.75)


def network(**changes: Any) -> DeepLabV3Plus:
    torch.manual_seed(0)
    model = small(**changes).build(len(CLASSES))
    randomise(model)
    model.eval()
    with torch.inference_mode():
        spread = model(padded(picture(65, 65), 65, 65)).std()
    with torch.no_grad():  # probabilities between 0 and 1
        model.logits.weight /= spread
    return model


def make(inference: Whole | Sliding | Resized, model: DeepLabV3Plus | None = None) -> Predictor:
    return predictor_of(model or MODEL, CLASSES, inference)


def sliding(window: int, overlap: float = 0.3333, scales: tuple[float, ...] = (1,), flip: bool = False) -> Sliding:
    return Sliding(window=window, overlap=overlap, scales=scales, flip=flip)


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """With areas, that the network may have something to say."""
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def padded(image: np.ndarray, height: int, width: int) -> Tensor:
    canvas = torch.zeros(1, 3, height, width)
    canvas[0, :, : image.shape[0], : image.shape[1]] = torch.from_numpy(image).permute(2, 0, 1) * (2 / 255) - 1
    return canvas


def bilinear(x: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(x, (height, width), mode="bilinear", align_corners=True)


MODEL = network()


@torch.inference_mode()
def plainly(model: DeepLabV3Plus, canvas: Tensor, sides: dict[float, int], own: int, flip: bool) -> Tensor:
    """REFERENCE, section 4, of a square canvas: K x H x W mean probabilities.

    Args:
        sides: of the canvas at each scale.
        own: side of the canvas's own logits.
    """
    side = canvas.shape[2]
    found = []
    for scale, scaled in sides.items():
        shown = bilinear(canvas, scaled, scaled)
        for mirrored in (False, True)[: 1 + flip]:
            logits = model(torch.flip(shown, [3]) if mirrored else shown)
            if scale < 1:
                logits = bilinear(logits, own, own)
            if mirrored:
                logits = torch.flip(logits, [3])
            found.append(bilinear(logits, side, side).softmax(1))
    return torch.stack(found).mean(0)[0]


@torch.inference_mode()
def in_full_precision(predictor: Predictor, image: np.ndarray, setting: TestTimeAugmentation) -> Tensor:
    """The probabilities that `predict` keeps in float16, K x H x W."""
    canvas = predictor.canvas
    assert canvas is not None
    logits = predictor._logits([image], (canvas, canvas), [setting])
    place = Geometry((canvas, canvas), image.shape[:2], image.shape[:2])
    strips = place.scores([logits[view] for view in setting.variants], probabilities=True)
    return torch.cat([scores for _, scores in strips], 2)[0]


SIDES = {0.5: 33, 0.75: 49, 1: 65, 1.25: 81, 1.5: 97, 1.75: 113}
"""Of a canvas of 65, by hand."""


@pytest.mark.parametrize("strip_pixels", [1 << 20, 1000])
@pytest.mark.parametrize("decoder", [True, False])
def test_several_scales_are_averaged_as_the_paper_does(
    decoder: bool, strip_pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MODEL if decoder else network(decoder=None)
    image = picture(50, 65)
    expected = plainly(model, padded(image, 65, 65), SIDES, 17 if decoder else 5, flip=True)[:, :50]
    monkeypatch.setattr(scores_module, "STRIP_PIXELS", strip_pixels)
    predictor = make(whole(65, SCALES, flip=True), model)
    found = in_full_precision(predictor, image, predictor.inference.augmentation)
    assert torch.allclose(found, expected, atol=1e-5)
    prediction = predictor.predict([image], probabilities=True)[0]
    assert prediction.probabilities is not None
    assert np.abs(prediction.probabilities - expected.numpy()).max() < 1e-3
    first, second = expected.topk(2, 0).values
    clear = first - second > 1e-4
    assert clear.float().mean() > 0.9
    assert torch.equal(prediction.labels[clear].long(), expected.argmax(0)[clear])


def test_the_paper_canvas_is_seen_at_the_paper_sizes() -> None:
    predictor = make(whole(513, SCALES, flip=True))
    seen: list[int] = []
    own = torch.zeros(1, 4, 5, 5)  # what a network says of it matters not here

    class Counting(torch.nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.extend(images.shape[2:])
            return own

    runtime_of(predictor).model = Counting()
    predictor.predict([picture(20, 20)])
    assert seen == [side for side in (257, 385, 513, 641, 769, 897) for _ in range(4)]


def test_one_scale_alone_is_single_scale() -> None:
    images = [picture(65, 65), picture(30, 40), picture(130, 200)]
    single, at_one = TestTimeAugmentation((1,), flip=False), TestTimeAugmentation((1.0,), flip=False)
    predictor = make(whole(65))
    with torch.inference_mode():
        for image, prediction in zip(images, predictor.predict_many(images, [at_one])[0], strict=True):
            assert torch.equal(prediction.labels, predictor.predict([image])[0].labels)
        logits = bilinear(MODEL(padded(images[0], 65, 65)), 65, 65)
    assert torch.equal(predictor.predict(images[:1])[0].labels.long(), logits.argmax(1)[0])
    assert predictor.protocol == predictor.protocol_with(single)


@pytest.mark.parametrize("scales", [(1,), SCALES])
def test_the_mirror_of_an_image_gives_the_mirror_of_its_labels(scales: tuple[float, ...]) -> None:
    image = picture(65, 65)
    predictor = make(whole(65, scales, flip=True))
    there = in_full_precision(predictor, image, predictor.inference.augmentation)
    back = in_full_precision(predictor, image[:, ::-1].copy(), predictor.inference.augmentation).flip(2)
    assert torch.allclose(there, back, atol=1e-5)
    one_way = make(whole(65, scales))
    assert not torch.allclose(there, in_full_precision(one_way, image, one_way.inference.augmentation), atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("inference", [whole(65), sliding(49)])
def test_settings_share_what_they_have_in_common(inference: Whole | Sliding) -> None:
    settings = [
        TestTimeAugmentation((1,), flip=False),
        TestTimeAugmentation((1.25, 0.5, 1), flip=True),
        TestTimeAugmentation((0.5,), flip=True),
    ]
    images = [picture(65, 65), picture(30, 40), picture(130, 90)]
    apart = [
        make(inference.model_copy(update=setting._asdict())).predict(images, probabilities=True)
        for setting in settings
    ]
    predictor = make(inference)
    passes: list[int] = []
    handle = MODEL.register_forward_pre_hook(lambda model, args: passes.append(len(args[0])))
    together = predictor.predict_many(images, settings, probabilities=True)
    number = len(passes)
    predictor.predict_many(images, [settings[1]])
    handle.remove()
    assert len(passes) == 2 * number, "the second setting has the views of the others"
    for alone, among in zip(apart, together, strict=True):
        for a, b in zip(alone, among, strict=True):
            assert torch.equal(a.labels, b.labels)
            assert np.array_equal(a.probabilities, b.probabilities)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(65, 65), (40, 65), (1, 3)])
def test_a_window_that_holds_the_image_is_the_canvas(size: tuple[int, int]) -> None:
    image = picture(*size)
    for scales, flip in (((1,), False), ((0.5, 1.25), True)):
        windows = make(sliding(65, scales=scales, flip=flip)).predict([image], probabilities=True)[0]
        canvas = make(whole(65, scales, flip)).predict([image], probabilities=True)[0]
        assert torch.equal(windows.labels, canvas.labels)
        assert np.array_equal(windows.probabilities, canvas.probabilities)  # type: ignore[arg-type]


WINDOWS = {
    "both sides longer": ((100, 140), 0.5, [0, 18, 35], [0, 25, 50, 75]),  # steps of 32 at most over 35 and 75 pixels
    "one side longer": ((40, 131), 0.0, [0], [0, 33, 66]),
    "no overlap": ((130, 65), 0.0, [0, 65], [0]),
}


@torch.inference_mode()
@pytest.mark.parametrize("at_once", [1, 3 * 65 * 65])
@pytest.mark.parametrize("case", WINDOWS)
def test_windows_are_averaged_where_they_overlap(case: str, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(predictor_module, "BATCH_PIXELS", at_once)
    (height, width), overlap, tops, lefts = WINDOWS[case]
    image = picture(height, width)
    total = torch.zeros(4, height, width)
    number = torch.zeros(height, width)
    for top in tops:
        for left in lefts:
            window = image[top : top + 65, left : left + 65]
            shown = padded(window, 65, 65)
            found = plainly(MODEL, shown, {0.75: 49, 1: 65}, 17, flip=True)
            total[:, top : top + 65, left : left + 65] += found[:, : window.shape[0], : window.shape[1]]
            number[top : top + 65, left : left + 65] += 1
    expected = total / number
    predictor = make(sliding(65, overlap, (0.75, 1), flip=True))
    prediction = predictor.predict([image], probabilities=True)[0]
    assert prediction.probabilities is not None
    assert np.abs(prediction.probabilities - expected.numpy()).max() < 1e-3
    first, second = expected.topk(2, 0).values
    clear = first - second > 1e-4
    assert clear.float().mean() > 0.9
    assert torch.equal(prediction.labels[clear].long(), expected.argmax(0)[clear])


@torch.inference_mode()
@pytest.mark.parametrize("size", [(40, 90), (130, 100), (65, 65)])
def test_resize_shows_a_square_and_brings_its_scores_back(size: tuple[int, int]) -> None:
    image = picture(*size)
    kind = cv2.INTER_AREA if min(size) > 65 else cv2.INTER_LINEAR
    shown = padded(cv2.resize(image, (65, 65), interpolation=kind), 65, 65)
    expected = bilinear(bilinear(MODEL(shown), 65, 65), *size).softmax(1)[0]
    predictor = make(Resized(size=65, scales=(1,), flip=False))
    prediction = predictor.predict([image], probabilities=True)[0]
    assert prediction.labels.shape == size
    assert prediction.probabilities is not None
    assert np.abs(prediction.probabilities - expected.numpy()).max() < 1e-3


class _Shown:
    """A runtime that keeps what it is given, and labels nothing."""

    spec = RuntimeSpec(("a", "b"), None, INCEPTION, output_stride=16, logits_stride=16)
    device = torch.device("cpu")
    description = "none"

    def __init__(self) -> None:
        self.images: list[Tensor] = []

    def __call__(self, images: Tensor) -> Tensor:
        self.images.append(images.clone())
        height, width = (-(-side // 16) for side in images.shape[2:])
        return torch.zeros(len(images), 2, height, width)


def test_it_is_the_mirrored_canvas_that_is_resized() -> None:
    """Against TensorFlow's ops at the paper's six scales. Mirrored afterwards, 61 of these values differ by 1e-5."""
    shown = _Shown()
    with np.load(FIXTURES / "pipeline.npz") as file:
        predictor = Predictor(shown, whole(None, file["view_scales"].tolist(), flip=True))
        predictor.predict([file["canvas"]])
        assert len(shown.images) == 12
        for number in range(6):
            wanted = torch.from_numpy(file[f"view_{number}"])
            plain, mirrored = (images[0, 0, 5] for images in shown.images[2 * number : 2 * number + 2])
            assert (mirrored - wanted).abs().max() < 1e-6
            assert mirrored.shape == plain.shape


def test_sides_of_scaled_canvases_are_rounded_down() -> None:
    """research/deeplab/core/utils.py: int((side - 1) * scale + 1)."""
    sides = {0.5: 257, 0.75: 385, 0.9: 461, 1.1: 564, 1.25: 641, 1.5: 769, 1.75: 897}
    for scale, side in sides.items():
        assert predictor_module.scaled((513, 513), scale) == (side, side)


@pytest.mark.parametrize("inference", [whole(65, SCALES, flip=True), Resized(size=65, scales=(0.5, 1), flip=False)])
def test_strips_of_a_larger_image_equal_the_whole(inference: Whole | Resized, monkeypatch: pytest.MonkeyPatch) -> None:
    image = picture(150, 131)
    at_once = make(inference).predict([image], probabilities=True)[0]
    for pixels in (5000, 700):  # the canvas in one piece, and not
        monkeypatch.setattr(scores_module, "STRIP_PIXELS", pixels)
        in_strips = make(inference).predict([image], probabilities=True)[0]
        assert np.abs(at_once.probabilities - in_strips.probabilities).max() < 1e-3  # type: ignore[operator]
        assert (at_once.labels == in_strips.labels).float().mean() > 0.999


def test_protocols_that_differ_have_names_that_differ() -> None:
    shown = [
        make(inference).protocol
        for inference in (
            whole(65),
            whole(None),
            whole(81),
            whole(65, flip=True),
            whole(65, [0.5]),
            whole(65, [0.5, 1]),
            whole(65, [0.5, 1], flip=True),
            sliding(65),
            sliding(65, 0.5),
            sliding(81),
            sliding(65, scales=(0.5, 1)),
            Resized(size=65, scales=(1,), flip=False),
        )
    ]
    assert len(set(shown)) == len(shown)
    assert shown[0] == (
        "whole image padded to 65 x 65 (a longer side scaled to it), single scale, JPEG decoder accurate, "
        "output stride 16, float32"
    )
    assert make(whole(65, [1, 0.5], flip=True)).protocol == shown[6], "the order says nothing"
    assert shown[6].endswith(", scales 0.5, 1 and the mirror image, JPEG decoder accurate, output stride 16, float32")
    fast = Predictor(make(whole(65)).runtime, whole(65), Decoding("tensorflow"))
    assert fast.protocol == shown[0].replace("accurate", "tensorflow")
    twelve_bits = Predictor(make(whole(65)).runtime, whole(65), Decoding(white_level=4095))
    assert twelve_bits.protocol == shown[0].replace("accurate", "accurate, white level 4095")
    halved = make(whole(65))
    runtime_of(halved).precision = "bfloat16"
    assert halved.protocol == shown[0].replace("float32", "bfloat16")
    assert shown[7].startswith("windows of 65 x 65 at most 43 apart, ")


@pytest.mark.parametrize(
    ("choice", "kind", "side"),
    [
        ("canvas", Whole, 513),
        ("full", Whole, None),
        ("trained", Whole, "trained"),
        ("multi_scale", Whole, "trained"),
        ("sliding", Sliding, "trained"),
        ("resize", Resized, "trained"),
    ],
)
def test_choices(choice: str, kind: type, side: int | str | None) -> None:
    inference = read_config("eval", [f"inference={choice}"], EvalToolConfig).inference
    assert type(inference) is kind
    assert inference.side == side
    several = choice == "multi_scale"
    assert inference.augmentation == TestTimeAugmentation(SCALES if several else (1,), flip=several)
    assert inference.resolved(129).side == (129 if side == "trained" else side)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["inference.window=65"], r"inference\.window is no key of this config"),
        (["inference=sliding", "inference.canvas=65"], r"inference\.canvas is no key of this config"),
        (["inference=sliding", "inference.overlap=1"], r"inference\.overlap=1: .*less than or equal to 0\.9"),
        (["inference=sliding", "inference.window=null"], r"inference\.window=None: .*integer"),
        (["inference.scales=[]"], r"inference\.scales=\[\]: .*at least 1 item"),
        (["inference.scales=[0]"], r"inference\.scales\.0=0: .*greater than 0"),
        (["inference.scales=[1,1.0]"], r"inference\.scales=.*: a scale is named twice"),
        (["inference.kind=tiles"], r"inference=.*'tiles'.*'whole', 'sliding', 'resize'"),
    ],
)
def test_mistakes(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_config("eval", overrides, EvalToolConfig)


def test_sides_that_cannot_be() -> None:
    with pytest.raises(UserError, match=r"a window of 64 is not k \* output_stride \+ 1 at output stride 16; take 65"):
        make(sliding(64))
    trained = read_config("eval", ["inference=sliding"], EvalToolConfig).inference
    with pytest.raises(UserError, match=r"validated on images as they are; give .* as in inference\.window=513"):
        trained.resolved(None)


def test_jpegs_are_decoded_as_the_checkpoint_was_trained(tmp_path: Path) -> None:
    """A JPEG by its path, a data set's and predict's, unless told otherwise; and the protocol says how."""
    info = CheckpointInfo(
        network=small(),
        classes=CLASSES,
        normalization=INCEPTION,
        canvas=65,
        trained_on=(),
        jpeg_decoder="tensorflow",
    )
    path, photo = tmp_path / "network.safetensors", tmp_path / "images" / "photo.jpg"
    save_checkpoint(path, MODEL, info)
    photo.parent.mkdir()
    with np.load(FIXTURES / "pipeline.npz") as file:
        photo.write_bytes(file["jpeg"].tobytes())
        fast = file["jpeg_pixels"]
    plain = read_image(photo)
    assert not np.array_equal(fast, plain)
    kept: list[np.ndarray] = []
    as_usual = preprocess_module.padded

    def keep(images: list[np.ndarray], *more: Any) -> Any:
        kept.extend(images)
        return as_usual(images, *more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictor_module, "padded", keep)
        for choice, pixels in (("trained", fast), ("tensorflow", fast), ("accurate", plain)):
            predictor = segapp.load(path, device="cpu", jpeg_decoder=choice)  # type: ignore[arg-type]
            predictor(photo)
            assert np.array_equal(kept.pop(), pixels)
            assert f"JPEG decoder {'accurate' if choice == 'accurate' else 'tensorflow'}, " in predictor.protocol
        arguments = [str(photo), f"checkpoint={path}", "device=cpu"]
        assert run_tool("predict", [*arguments, f"output={tmp_path / 'predicted'}"]) == 0
        assert np.array_equal(kept.pop(), fast)
        masks = tmp_path / "masks"
        masks.mkdir()
        write_mask(masks / "photo.png", np.zeros(plain.shape[:2], np.uint8), voc_palette())
        (tmp_path / "classes.yaml").write_text(f"[{', '.join(CLASSES)}]")
        (tmp_path / "val.txt").write_text("photo\n")
        data = ["data=folder", f"data.root={tmp_path}", "data.val=val.txt", "workers=0"]
        assert run_tool("eval", [*data, f"output={tmp_path / 'scored'}", *arguments[1:]]) == 0
        assert np.array_equal(kept.pop(), fast)
    assert "JPEG decoder tensorflow" in (tmp_path / "scored" / "metrics.json").read_text()


def test_the_library_takes_scales_and_windows(tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    info = CheckpointInfo(
        network=small(), classes=CLASSES, normalization=INCEPTION, canvas=65, trained_on=("shapes/train",)
    )
    save_checkpoint(path, MODEL, info)
    image = picture(70, 90)
    folded = network()
    fold_bn(folded)
    for loaded, inference in (
        (segapp.load(path, device="cpu", scales=[0.5, 1], flip=True), whole(65, [0.5, 1], flip=True)),
        (segapp.load(path, device="cpu", canvas=49), whole(49)),
        (segapp.load(path, device="cpu", window="trained", overlap=0.5), sliding(65, 0.5)),
    ):
        expected = make(inference, folded).predict([image], probabilities=True)[0]
        assert np.array_equal(loaded(image), expected.labels)
        assert np.array_equal(loaded.probabilities(image), expected.probabilities)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="scales=.*at least 1 item"):
        segapp.load(path, scales=[])
    with pytest.raises(UserError, match=r"overlap=1\.5: .*less than or equal to 0\.9"):
        segapp.load(path, window=65, overlap=1.5)


@pytest.mark.slow
@pytest.mark.parametrize("choice", ["multi_scale", "sliding", "resize"])
def test_predict_and_eval_take_every_choice(choice: str, make_checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    """From the command line: everything saved is of one mind, and the report's figures carry the protocol."""
    image = picture(80, 90)
    write_image(tmp_path / "img.png", image)
    chosen = [f"inference={choice}", f"checkpoint={make_checkpoint()}", "device=cpu"]
    views = ["inference.scales=[0.5,1]", "inference.flip=true"]
    out = tmp_path / "predicted"
    everything = ["save=[mask,overlay,probabilities,json]", f"output={out}"]
    assert run_tool("predict", [str(tmp_path / "img.png"), *chosen, *views, *everything]) == 0
    labels = read_mask(out / "masks" / "img.png")
    with np.load(out / "probabilities" / "img.npz") as saved:
        probabilities = saved["probabilities"]
    assert probabilities.shape == (7, 80, 90)
    assert (np.take_along_axis(probabilities, labels[None], 0)[0] == probabilities.max(0)).all()
    assert json.loads((out / "json" / "img.json").read_text())["height"] == 80

    figures = {}
    for name, more in (("one", ["inference.scales=[1]"]), ("two", ["inference.scales=[0.5]"])):
        scored = [*chosen, "data=shapes", f"data.root={tmp_path}", "workers=0", f"output={tmp_path / name}"]
        scored += ["data.train=8", "data.val=4", "data.height=64", "data.width=64", "eval.examples=0"]
        assert run_tool("eval", [*scored, "output_stride=8", *more]) == 0
        protocol = json.loads((tmp_path / name / "metrics.json").read_text())["protocol"]
        assert protocol in (tmp_path / name / "report.html").read_text()
        assert "output stride 8" in protocol
        figures[protocol] = name
    assert len(figures) == 2
