"""Learning from teachers, beside PyTorch's own divergence."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segapp.base.classes import IGNORE_INDEX
from segapp.base.distributed import ALONE
from segapp.base.errors import UserError
from segapp.data.formats.shapes import SHAPES_CLASSES
from segapp.inference.preprocess import normalize
from segapp.models.encoders.interface import INCEPTION
from segapp.models.layers import resize
from segapp.training.distillation import DistillationConfig, Teachers
from segapp.training.losses import Loss
from segapp.training.step import MicroBatch, TrainStep
from segapp.training.trainer import train
from segapp.weights.checkpoint import load_model
from tests.networks import randomise, small
from tests.training.test_training import batch_of_uneven_images, losses, tiny

Make = Callable[..., Path]
CPU = torch.device("cpu")
EVERY = torch.ones(())


def config(**changes: float) -> DistillationConfig:
    return DistillationConfig.model_validate({"teachers": ("a", "b"), "weight": 1, "temperature": 1} | changes)


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Images, logits of stride 4, and labels of which some are ignored."""
    images, labels = batch_of_uneven_images(3)
    return images, torch.randn(3, 7, 9, 9, generator=torch.Generator().manual_seed(2)), labels


def test_the_loss_is_the_divergence_from_the_mean_of_the_teachers(make_checkpoint: Make) -> None:
    paths = [make_checkpoint(f"{seed}.safetensors", seed=seed) for seed in (1, 2)]
    images, logits, labels = inputs()
    teachers = Teachers(config(weight=0.5, temperature=3), paths, SHAPES_CLASSES, CPU)
    found = teachers(images, logits, labels, teachers.counts(labels, 4), 4)
    with torch.no_grad():
        seen = [load_model(path)[0](normalize(images, INCEPTION)) for path in paths]
    p = torch.stack([(resize(each, (9, 9)) / 3).softmax(1) for each in seen]).mean(0)
    pointwise = F.kl_div((logits / 3).log_softmax(1), p, reduction="none").sum(1)
    valid = labels[:, ::4, ::4] != IGNORE_INDEX
    assert found.item() == pytest.approx(0.5 * 3**2 * pointwise[valid].mean().item(), rel=1e-4)


def test_nothing_is_lost_on_what_teachers_say_themselves(make_checkpoint: Make) -> None:
    images, _, labels = inputs()
    teachers = Teachers(config(), [make_checkpoint()], SHAPES_CLASSES, CPU)
    logits = teachers.probabilities(images, (9, 9)).clamp(min=1e-30).log()
    count = teachers.counts(labels, 4)
    assert teachers(images, logits, labels, count, 4).item() == pytest.approx(0, abs=1e-6)
    assert teachers(images, -logits, labels, count, 4).item() > 0.1
    void = torch.full_like(labels, IGNORE_INDEX)
    assert teachers(images, -logits, void, teachers.counts(void, 4), 4).item() == 0


def test_classes_are_matched_by_name(make_checkpoint: Make) -> None:
    images, _, _ = inputs()
    path = make_checkpoint()
    turned = SHAPES_CLASSES[::-1]
    straight = Teachers(config(), [path], SHAPES_CLASSES, CPU).probabilities(images, (9, 9))
    assert torch.equal(Teachers(config(), [path], turned, CPU).probabilities(images, (9, 9)), straight.flip(1))
    with pytest.raises(UserError, match=r"distillation.teachers: .* has the classes .*; a teacher needs the same"):
        Teachers(config(), [path], (*SHAPES_CLASSES[:-1], "other"), CPU)


def updated(parts: list[MicroBatch], teachers: Teachers) -> tuple[dict[str, Tensor], dict[str, float]]:
    """A network after one update, and what was logged of it."""
    run = tiny(Path("unused"), f"accumulate={len(parts)}", "model.aspp.dropout=0", "optimizer.lr=1.0")
    torch.manual_seed(0)
    model = run.model.build(7)
    randomise(model)
    model.eval()  # BN sees no batch, and so no part of one
    step = TrainStep(model, run, Loss(run.loss), INCEPTION, device=CPU, processes=ALONE, teachers=teachers)
    step(1, parts)
    return {name: each.detach() for name, each in model.state_dict().items()}, step.metrics()


def test_a_batch_in_parts_learns_from_teachers_as_the_whole(make_checkpoint: Make) -> None:
    images, labels = batch_of_uneven_images(4)
    teachers = Teachers(config(weight=5), [make_checkpoint()], SHAPES_CLASSES, CPU)
    whole, logged = updated([(images, labels)], teachers)
    parts, logged_in_parts = updated([(images[:2], labels[:2]), (images[2:], labels[2:])], teachers)
    untaught, _ = updated([(images, labels)], Teachers(config(weight=1e-9), [make_checkpoint()], SHAPES_CLASSES, CPU))
    assert logged["distillation"] == pytest.approx(logged_in_parts["distillation"], rel=1e-4)
    difference = max((each - untaught[name]).abs().max().item() for name, each in whole.items())
    assert difference > 1e-3
    for name, each in whole.items():
        assert torch.allclose(each.float(), parts[name].float(), atol=1e-4 * difference), name


@pytest.mark.slow
def test_a_run_learns_from_a_teacher(tmp_path: Path, make_checkpoint: Make) -> None:
    teacher = make_checkpoint("teacher.safetensors", network=small(output_stride=16))
    folder = tmp_path / "run"
    folder.mkdir()
    train(tiny(tmp_path / "data", "iterations=2", f"distillation.teachers=[{teacher}]"), folder)
    assert len(losses(folder)) == 2
    assert '"distillation"' in (folder / "metrics.jsonl").read_text()
