"""The losses against torch's own, torchmetrics, slow definitions and hand-worked examples; and their parts add up."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.functional.classification import multiclass_jaccard_index

from segapp.base.compose import compose_config, validate
from segapp.base.config import Config
from segapp.base.errors import UserError
from segapp.base.paths import CONF
from segapp.training.losses import Loss, LossConfig
from tests.tensorflow.weights import FIXTURES

K = 4
WEIGHTS = torch.tensor([0.2, 1.0, 0.0, 5.0])
PRESETS = sorted(path.stem for path in (CONF / "loss").glob("*.yaml"))


class _Config(Config):
    loss: LossConfig


def config(name: str = "cross_entropy", /, **changes: float | str) -> LossConfig:
    values = compose_config(f"loss/{name}", [])
    return validate({"loss": values["loss"] | changes}, _Config).loss


def only(*, dice: float = 0.0, lovasz: float = 0.0) -> Loss:
    return Loss(config(cross_entropy=0.0, dice=dice, lovasz=lovasz))


CASES = {name: Loss(config(name)) for name in PRESETS} | {
    "balanced": Loss(config("smoothed", class_weights="balanced"), WEIGHTS),
    "pixels": Loss(config("smoothed", class_weights="balanced", divide_by="pixels"), WEIGHTS),
    "all": Loss(config("smoothed", top_k=0.3, cross_entropy=0.7, dice=0.5, lovasz=2.0)),
}


def batch(seed: int = 0, images: int = 8) -> tuple[Tensor, Tensor]:
    """Logits of 5 x 7, labels of 17 x 25: each image with its own share of void, the third all void."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, K, 5, 7, generator=generator, requires_grad=True)
    labels = torch.randint(0, K, (images, 17, 25), generator=generator, dtype=torch.uint8)
    for i in range(images):
        labels[i, : 2 * i] = 255
    labels[1].masked_fill_(labels[1] == 2, 255)
    labels[2:3] = 255
    return logits, labels


def whole(loss: Loss, logits: Tensor, labels: Tensor) -> Tensor:
    return loss(logits, labels, loss.counts(labels))


def gradient(value: Tensor, logits: Tensor) -> Tensor:
    return torch.autograd.grad(value, logits)[0]


def probabilities(logits: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Of each image with a valid pixel, those pixels alone: probabilities P x K and labels P."""
    full = F.interpolate(logits, labels.shape[1:], mode="bilinear", align_corners=True)
    for p, label in zip(full.softmax(1).permute(0, 2, 3, 1), labels, strict=True):
        if (label != 255).any():
            yield p[label != 255], label[label != 255].long()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_cross_entropy_is_torchs_own(smoothing: float, weighted: bool) -> None:
    logits, labels = batch()
    weights = WEIGHTS if weighted else None
    loss = Loss(config(label_smoothing=smoothing, class_weights="balanced" if weighted else "none"), weights)
    full = F.interpolate(logits, (17, 25), mode="bilinear", align_corners=True)
    expected = F.cross_entropy(full, labels.long(), weights, ignore_index=255, label_smoothing=smoothing)
    value = whole(loss, logits, labels)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient(value, logits), gradient(expected, logits))


@pytest.mark.parametrize("share", [1e-6, 0.25, 0.5])
def test_top_k_is_the_mean_over_each_images_hardest_pixels(share: float) -> None:
    logits, labels = batch()
    hardest: list[Tensor] = []
    for p, label in probabilities(logits, labels):
        pixels = sorted((-p[i, label[i]].log() for i in range(len(label))), key=Tensor.item, reverse=True)
        hardest.extend(pixels[: math.ceil(share * len(pixels))])
    expected = torch.stack(hardest).mean()
    loss = Loss(config(top_k=share))
    assert loss.counts(labels).tolist() == [len(hardest)]
    value = whole(loss, logits, labels)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient(value, logits), gradient(expected, logits))


def test_hard_example_mining_is_googles() -> None:
    """TensorFlow's own ops, on an image without void: those stay out of our share, as the docstring says."""
    with np.load(FIXTURES / "pipeline.npz") as file:
        logits, labels = torch.from_numpy(file["logits"]), torch.from_numpy(file["labels"])
        steps, wanted = file["mining_steps"].tolist(), file["mining"].tolist()
    loss = Loss(config(top_k=0.25, top_k_iterations=10))
    for step, value in zip(steps, wanted, strict=True):
        assert loss(logits, labels, loss.counts(labels, step), step).item() == pytest.approx(value, rel=1e-5), step
    assert [loss.top_k(step) for step in (0, 5, 10, 99)] == pytest.approx([1, 0.625, 0.25, 0.25])


def test_weights_of_classes_divided_by_pixels_are_googles() -> None:
    with np.load(FIXTURES / "pipeline.npz") as file:
        logits, labels = torch.from_numpy(file["logits"]), torch.from_numpy(file["labels"])
        loss = Loss(config(class_weights="balanced", divide_by="pixels"), torch.from_numpy(file["weights"]))
        assert whole(loss, logits, labels).item() == pytest.approx(float(file["weighted"]), rel=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"top_k_iterations": 10}, r"loss\.top_k_iterations=10: .*set that below 1"),
        ({"divide_by": "pixels"}, r"loss\.divide_by=pixels: .*take weights"),
    ],
)
def test_what_would_change_nothing_is_refused(changes: dict[str, float | str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        config(**changes)


def test_dice_by_hand() -> None:
    p = torch.tensor([[0.5, 0.25, 0.25], [0.25, 0.25, 0.5], [0.25, 0.5, 0.25], [0.125, 0.125, 0.75]])
    labels = torch.tensor([0, 0, 1, 255], dtype=torch.uint8)
    # Class 0: 2 * 0.75 / (0.375 + 2) = 12/19. Class 1: 2 * 0.5 / (0.375 + 1) = 8/11. Class 2 is not shown.
    value = whole(only(dice=1.0), p.log().T.reshape(1, 3, 1, 4), labels.reshape(1, 1, 4))
    assert value.item() == pytest.approx(1 - (12 / 19 + 8 / 11) / 2, rel=1e-6)


def test_dice_is_the_mean_over_shown_classes_then_images() -> None:
    logits, labels = batch()
    images = []
    for p, label in probabilities(logits, labels):
        dice = []
        for c in torch.unique(label):
            truth = (label == c).float()
            dice.append(2 * (p[:, c] * truth).sum() / ((p[:, c] ** 2).sum() + (truth**2).sum()))
        images.append(1 - torch.stack(dice).mean())
    expected = torch.stack(images).mean()
    assert len(images) == 7
    value = whole(only(dice=1.0), logits, labels)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient(value, logits), gradient(expected, logits))


def test_lovasz_by_hand() -> None:
    """The Jaccard loss of a set of wrong pixels M is |M| / |truth or M| (arXiv:1705.08790, equation 6)."""
    p = torch.tensor([[0.5, 0.5], [0.75, 0.25], [0.75, 0.25]])
    labels = torch.tensor([[[0, 0, 1]]], dtype=torch.uint8)
    # Errors by falling size: the third pixel 0.75, the first 0.5, the second 0.25.
    # Class 0: the sets have losses 1/3, 2/3, 1: (0.75 + 0.5 + 0.25) / 3. Class 1: 1, 1, 1: 0.75.
    value = whole(only(lovasz=1.0), p.log().T.reshape(1, 2, 1, 3), labels)
    assert value.item() == pytest.approx((0.5 + 0.75) / 2, rel=1e-6)


def test_lovasz_is_the_papers_definition() -> None:
    """Equation 8: the sum of the falling errors, each times the step of the Jaccard loss as its pixel turns wrong."""
    logits, labels = batch()
    images = []
    for p, label in probabilities(logits, labels):
        losses = []
        for c in torch.unique(label):
            truth = {i for i in range(len(label)) if label[i] == c}
            errors = torch.where(label == c, 1 - p[:, c], p[:, c])
            loss, wrong, before = torch.zeros(()), set[int](), 0.0
            for i in sorted(range(len(label)), key=errors.tolist().__getitem__, reverse=True):
                wrong.add(i)
                jaccard = len(wrong) / len(truth | wrong)
                loss, before = loss + errors[i] * (jaccard - before), jaccard
            losses.append(loss)
        images.append(torch.stack(losses).mean())
    expected = torch.stack(images).mean()
    value = whole(only(lovasz=1.0), logits, labels)
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient(value, logits), gradient(expected, logits))


def test_lovasz_of_a_hard_prediction_is_the_jaccard_loss_of_the_shown_classes() -> None:
    _, labels = batch()
    prediction = torch.randint(0, K, labels.shape, generator=torch.Generator().manual_seed(1))
    expected = []
    for truth, guess in zip(labels.long(), prediction, strict=True):
        shown = torch.unique(truth[truth != 255])
        if len(shown):
            jaccard = multiclass_jaccard_index(guess[None], truth[None], K, average="none", ignore_index=255)
            expected.append(1 - jaccard[shown].mean())
    hard = 200 * F.one_hot(prediction, K).permute(0, 3, 1, 2).float()
    value = whole(only(lovasz=1.0), hard, labels)
    assert value.item() == pytest.approx(torch.stack(expected).mean().item(), rel=1e-6)
    right = 200 * F.one_hot(labels.long() % 255, K).permute(0, 3, 1, 2).float()
    assert whole(only(lovasz=1.0), right, labels).item() == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_gradients(case: str) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, K, 2, 3, generator=generator, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(0, K, (3, 4, 5), generator=generator, dtype=torch.uint8)
    labels[0, 0], labels[1] = 255, 255
    assert torch.autograd.gradcheck(lambda x: whole(CASES[case], x, labels), logits)


@pytest.mark.parametrize("case", CASES)
def test_parts_of_a_batch_add_up_to_it(case: str) -> None:
    loss = CASES[case]
    logits, labels = batch()
    expected = whole(loss, logits, labels)
    parts = [3, 1, 4]
    counts = torch.stack([loss.counts(part) for part in torch.split(labels, parts)]).sum(0)
    torch.testing.assert_close(counts, loss.counts(labels))
    value = torch.zeros(())
    pieces = [piece.detach().requires_grad_() for piece in torch.split(logits, parts)]
    for piece, part in zip(pieces, torch.split(labels, parts), strict=True):
        value_of_part = loss(piece, part, counts)
        value_of_part.backward()  # type: ignore[no-untyped-call]
        value += value_of_part.detach()
    total = torch.cat([piece.grad for piece in pieces if piece.grad is not None])
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(total, gradient(expected, logits))
    assert not total[2].any(), "all void"


@pytest.mark.parametrize("case", CASES)
def test_a_batch_without_a_valid_pixel_has_loss_zero(case: str) -> None:
    logits, labels = batch()
    value = whole(CASES[case], logits, torch.full_like(labels, 255))
    assert value.item() == 0
    assert not gradient(value, logits).any()


def test_a_batch_of_a_class_of_weight_zero_has_loss_zero() -> None:
    logits, labels = batch()
    value = whole(CASES["balanced"], logits, torch.full_like(labels, 2))
    assert value.item() == 0
    assert not gradient(value, logits).any()


def test_the_loss_is_the_weighted_sum_of_its_terms() -> None:
    logits, labels = batch()
    terms = [Loss(config("smoothed", top_k=0.3)), only(dice=1.0), only(lovasz=1.0)]
    expected = sum(weight * whole(term, logits, labels) for weight, term in zip((0.7, 0.5, 2.0), terms, strict=True))
    assert isinstance(expected, Tensor)
    torch.testing.assert_close(whole(CASES["all"], logits, labels), expected)
    assert len(CASES["all"].counts(labels)) == 3
    assert all(len(term.counts(labels)) == 1 for term in terms)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_nothing(case: str, dtype: torch.dtype) -> None:
    logits, labels = batch()
    logits = logits.detach().to(dtype)
    with torch.autocast("cpu", dtype):
        value = whole(CASES[case], logits, labels)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, whole(CASES[case], logits.float(), labels), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cross_entropy": 0.0}, r"loss\.lovasz=0\.0: no term is left; give loss\.cross_entropy"),
        ({"cross_entropy": -1.0}, r"loss\.cross_entropy=-1\.0: .*greater than or equal to 0"),
        ({"label_smoothing": 1.0}, r"loss\.label_smoothing=1\.0: .*less than 1"),
        ({"top_k": 0.0}, r"loss\.top_k=0\.0: .*greater than 0"),
        ({"class_weights": "rare"}, r"loss\.class_weights=rare: .*'none' or 'balanced'"),
        ({"class_weights": "balanced", "top_k": 0.5}, r"loss\.class_weights=balanced: .*take loss\.top_k=1"),
        ({"cross_entropy": 0.0, "dice": 1.0, "label_smoothing": 0.1}, r"label_smoothing=0\.1: .*cross_entropy=0"),
        ({"cross_entropy": 0.0, "dice": 1.0, "top_k": 0.1}, r"loss\.top_k=0\.1: .*cross_entropy=0; take 1"),
        ({"cross_entropy": 0.0, "dice": 1.0, "class_weights": "balanced"}, r"class_weights=balanced: .*take none"),
        ({"focal": 1.0}, r"loss\.focal is no key"),
    ],
)
def test_mistakes(changes: dict[str, float | str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        config(**changes)
