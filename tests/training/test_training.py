"""What a run computes, and what it refuses; test_resume.py stops and continues it, test_distributed.py shares it."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from segapp.base.classes import IGNORE_INDEX, voc_palette
from segapp.base.compose import read_config
from segapp.base.config import save_config
from segapp.base.distributed import ALONE
from segapp.base.errors import UserError
from segapp.base.masks import write_mask
from segapp.commands.resumable import read_resumable
from segapp.data.loading.crops import training_batches
from segapp.inference.preprocess import normalize
from segapp.models.encoders.interface import INCEPTION
from segapp.models.layers import ConvBN
from segapp.models.surgery import freeze_bn
from segapp.runs.layout import CONFIG, checkpoint_folders
from segapp.training.config import RESUME_MAY_CHANGE, SegmentConfig, TrainConfig
from segapp.training.losses import Loss
from segapp.training.setup import read_data, training_stream
from segapp.training.step import MicroBatch, TrainStep
from segapp.training.trainer import train
from segapp.weights.checkpoint import load_model, read_network_info
from tests.networks import randomise

TINY = [
    "experiment=demo",
    "model.encoder.width=0.125",
    "model.aspp.channels=16",
    "model.decoder.channels=16",
    "data.train=8",
    "data.val=4",
    "data.height=64",
    "data.width=64",
    "transform.crop=33",
    "transform.train=[{RandomCrop:{height:33,width:33}},{HorizontalFlip:{p:0.5}}]",
    "inference.canvas=65",
    "batch_size=2",
    "device=cpu",
    "workers=0",
    "eval.examples=2",
    "log_every=1",
    "colour_baseline=false",
]


def tiny(root: Path, *more: str) -> SegmentConfig:
    return read_config("train", [*TINY, f"data.root={root}", *more], SegmentConfig)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """The network as the run left it."""
    return load_file(checkpoint_folders(folder)[-1] / "weights.safetensors")


def run_info(folder: Path) -> Any:
    return read_network_info(checkpoint_folders(folder)[-1] / "weights.safetensors")


def losses(folder: Path) -> list[float]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["iteration"] for record in records] == sorted(record["iteration"] for record in records)
    return [record["loss"] for record in records if "loss" in record]


def read_train_config(overrides: list[str]) -> TrainConfig:
    return read_resumable("train", overrides, TrainConfig, RESUME_MAY_CHANGE)


def test_resume_keeps_the_runs_config(tmp_path: Path) -> None:
    save_config(tmp_path / CONFIG, tiny(tmp_path / "data"))
    assert read_train_config([f"resume={tmp_path}", "device=cpu", "log_every=7"]).log_every == 7
    with pytest.raises(UserError, match="iterations=9: a resumed run keeps its config"):
        read_train_config([f"resume={tmp_path}", "iterations=9"])
    (tmp_path / "empty").mkdir()
    for text in ("", "null", "a: [", "- 2021-13-45", "[]"):
        (tmp_path / "empty" / "config.yaml").write_text(text)
        with pytest.raises(UserError, match="config.yaml: damaged"):
            read_train_config([f"resume={tmp_path / 'empty'}"])
    with pytest.raises(UserError, match="resume="):
        read_train_config([f"resume={tmp_path}", "data.root=["])
    with pytest.raises(UserError, match="no run to resume there"):
        read_train_config([f"resume={tmp_path / 'nowhere'}"])


@pytest.mark.slow
def test_checkpoint_initialises_and_remembers_what_was_seen(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    train(tiny(tmp_path / "data", "iterations=1"), first)
    train(tiny(tmp_path / "data", "iterations=1", f"checkpoint={first}", "optimizer.lr=1e-30", "seed=5"), second)
    info = read_network_info(second / "best.safetensors")
    assert info.trained_on == ("shapes train",)
    assert info.canvas == 65
    resumed = tiny(tmp_path / "data", "iterations=1", "optimizer.lr=1e-30", f"checkpoint={first}", f"resume={second}")
    last = checkpoint_folders(second)[-1] / "weights.safetensors"
    save_file(load_file(last), last, info.model_copy(update={"trained_on": ("coco",)}).as_metadata())
    train(resumed.model_copy(update={"iterations": 2}), second)
    assert run_info(second).trained_on == ("coco", "shapes train")
    a, b = weights(first), weights(second)
    assert torch.allclose(a["logits.weight"], b["logits.weight"])
    with pytest.raises(UserError, match="another architecture"):
        train(tiny(tmp_path / "data", f"checkpoint={first}", "model.encoder.width=0.25"), second)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Loss, "__call__", lambda self, logits, *more: logits.sum() * math.nan)
    for options, what in ((["log_every=1"], "the loss is nan"), (["log_every=9", "save_every=1"], "a weight is not")):
        with pytest.raises(UserError, match=rf"{what}.* at iteration 1; lower optimizer\.lr.* no checkpoint"):
            train(tiny(tmp_path / "data", "iterations=3", *options), tmp_path)
        assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.slow
def test_the_last_good_checkpoint_outlives_a_loss_that_is_not_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Loss.__call__

    def infinite_from_the_third(self: Loss, logits: Tensor, labels: Tensor, counts: Tensor, done: int) -> Tensor:
        calls.append(1)
        return real(self, logits, labels, counts, done) * (math.inf if len(calls) > 2 else 1)

    calls: list[int] = []
    monkeypatch.setattr(Loss, "__call__", infinite_from_the_third)
    with pytest.raises(UserError, match=r"loss is inf at iteration 3; .*resume=.* continues after iteration 2"):
        train(tiny(tmp_path / "data", "iterations=9", "save_every=1"), tmp_path)
    assert [each.name for each in checkpoint_folders(tmp_path)] == ["0000001", "0000002"]
    assert all(torch.isfinite(each).all() for each in weights(tmp_path).values())


@pytest.mark.slow
@pytest.mark.parametrize(
    "mistake", ["eval.classes=[unicorn]", "transform.train=[{Nope:{}}]", "transform.crop=34", "inference.canvas=64"]
)
def test_mistakes_are_told_before_anything_is_written(tmp_path: Path, mistake: str) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(UserError):
        train(tiny(tmp_path / "data", mistake), out)
    assert not list(out.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("value", "told"),
    [
        (255, "the val set holds only ignored pixels; there is nothing to score"),
        (0, "the val set holds only background; the mean IoU of one class says nothing"),
    ],
)
def test_a_validation_set_of_one_class_or_none_has_no_miou_and_no_best(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, value: int, told: str
) -> None:
    config = tiny(tmp_path / "data", "iterations=2", "validate_every=1")
    masks = config.data.dataset("val").masks
    assert masks is not None
    for mask in masks:
        write_mask(mask, np.full((64, 64), value, np.uint8), voc_palette())
    assert train(config, tmp_path) is None
    assert told in caplog.text
    assert caplog.text.count("shapes val holds fewer than two classes; nothing is called best") == 2
    assert not (tmp_path / "best.safetensors").exists()
    assert run_info(tmp_path).scores == {}
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [record["miou"] for record in records if "miou" in record] == [None, None]


@pytest.mark.slow
def test_without_validation_the_last_weights_are_what_the_run_gives(tmp_path: Path) -> None:
    assert train(tiny(tmp_path / "data", "iterations=2", "validate_every=null", "data.val=1"), tmp_path) is None
    assert not (tmp_path / "best.safetensors").exists()
    assert run_info(tmp_path).iteration == 2
    assert run_info(tmp_path).scores == {}


@pytest.mark.slow
def test_the_last_checkpoints_and_the_best_are_kept(tmp_path: Path) -> None:
    train(tiny(tmp_path / "data", "iterations=7", "save_every=2", "keep=3", "validate_every=5"), tmp_path)
    assert [each.name for each in checkpoint_folders(tmp_path)] == ["0000005", "0000006", "0000007"]
    assert {each.name for each in checkpoint_folders(tmp_path)[0].iterdir()} == {"weights.safetensors", "state.pt"}
    assert sorted(each.name for each in (tmp_path / "pictures").iterdir()) == ["0000005.png", "0000007.png"]
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    scored = {record["iteration"]: record["miou"] for record in records if "miou" in record}
    best = read_network_info(tmp_path / "best.safetensors")
    assert best.scores["miou"] == max(scored.values()) == scored[best.iteration or 0]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["workers=2"],
        ["activation_checkpointing=true"],
        ["data.cache=memory"],
        ["deterministic=true"],
    ],
)
def test_the_first_losses_are_the_same_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory, first_losses: list[float], options: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    train(tiny(folder / "data", "iterations=20", "validate_every=null", "save_every=99", *options), folder)
    torch.use_deterministic_algorithms(False)
    assert losses(folder) == first_losses


@pytest.fixture(scope="module")
def first_losses(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    folder = tmp_path_factory.mktemp("first")
    train(tiny(folder / "data", "iterations=20", "validate_every=null", "save_every=99"), folder)
    found = losses(folder)
    assert len(found) == len(set(found)) == 20
    return found


def updated(parts: list[MicroBatch], *options: str) -> tuple[dict[str, Tensor], TrainStep]:
    """A network after one update by a batch in these parts; BN frozen and no dropout, unless the options say else."""
    config = tiny(
        Path("unused"),
        f"accumulate={len(parts)}",
        "batch_norm=frozen",
        "model.aspp.dropout=0",
        "optimizer.lr=1.0",
        "schedule.warmup_iterations=0",
        *options,
    )
    torch.manual_seed(0)
    model = config.model.build(7)
    randomise(model)
    if config.batch_norm == "frozen":
        freeze_bn(model)
    model.train()
    updater = TrainStep(model, config, Loss(config.loss), INCEPTION, device=torch.device("cpu"), processes=ALONE)
    updater(1, parts)
    return {name: each.detach() for name, each in model.state_dict().items()}, updater


def batch_of_uneven_images(size: int) -> tuple[Tensor, Tensor]:
    """Each image with another number of labelled pixels; the last with none."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (size, 33, 33, 3), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 7, (size, 33, 33), dtype=torch.uint8, generator=generator)
    for index in range(size):
        labels[index, : 33 * index // (size - 1)] = IGNORE_INDEX
    return images, labels


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["cross_entropy", "hard_pixels", "dice", "lovasz"])
def test_a_batch_in_parts_gives_the_update_of_the_whole(loss: str) -> None:
    images, labels = batch_of_uneven_images(16)
    whole, updater = updated([(images, labels)], f"loss={loss}", "optimizer.clip_norm=0.5")
    parts = [(images[at : at + 4], labels[at : at + 4]) for at in range(0, 16, 4)]
    divided, other = updated(parts, f"loss={loss}", "optimizer.clip_norm=0.5")
    start = updated([(images, torch.full_like(labels, IGNORE_INDEX))], f"loss={loss}", "optimizer.weight_decay=0")[0]
    for name, each in whole.items():
        if each.is_floating_point():
            moved = (each - start[name]).abs().max()
            assert (divided[name] - each).abs().max() <= 2e-4 * moved + 1e-7, name
    assert updater.metrics()["loss"] == pytest.approx(other.metrics()["loss"], rel=1e-5)
    assert updater.metrics()["grad_norm"] == pytest.approx(other.metrics()["grad_norm"], rel=1e-4)
    means = [updated([part], f"loss={loss}")[1].metrics()["loss"] for part in parts]
    assert abs(sum(means) / 4 - updater.metrics()["loss"]) > 1e-3, "a mean of means would be another figure"


def test_a_batch_without_a_valid_pixel_is_counted_and_moves_nothing_but_what_decays() -> None:
    images, labels = batch_of_uneven_images(4)
    after, updater = updated([(images, torch.full_like(labels, IGNORE_INDEX))], "optimizer.weight_decay=0")
    assert updater.metrics() == {"loss": 0, "lr": 1, "void_batches": 1}
    labelled, other = updated([(images, labels)], "optimizer.lr=1e-30")
    assert other.metrics()["void_batches"] == 0
    for name, each in after.items():
        assert torch.allclose(each, labelled[name], rtol=0, atol=1e-20), name


def test_gradients_are_clipped_to_the_norm() -> None:
    """With plain SGD the step is the gradient: its norm over all parameters is the bound."""
    batch = batch_of_uneven_images(4)
    plain = ["optimizer.momentum=0", "optimizer.weight_decay=0", "optimizer.bias_lr_factor=1"]
    start, _ = updated([batch], "optimizer.lr=1e-30", *plain)
    for bound in (0.01, 1e6):
        after, updater = updated([batch], f"optimizer.clip_norm={bound}", *plain)
        steps = [(after[name] - start[name]).square().sum() for name in start if after[name].is_floating_point()]
        norm = torch.stack(steps).sum().sqrt().item()
        assert norm == pytest.approx(min(bound, updater.metrics()["grad_norm"]), rel=1e-3)


def test_frozen_statistics_do_not_move_and_train_cannot_thaw_them() -> None:
    batch = batch_of_uneven_images(4)
    _, updater = updated([batch])
    updater.model.eval().train()
    updater(2, [batch])
    moved, _ = updated([batch], "batch_norm=train")
    start = updated([batch], "optimizer.lr=1e-30")[0]
    for name, each in updater.model.state_dict().items():
        if "running" in name or "tracked" in name:
            assert torch.equal(each, start[name]), name
            assert not torch.equal(moved[name], start[name]), name
        elif ".bn" in name:
            assert not torch.equal(each, start[name]), "scale and shift go on learning"


def test_an_encoder_waits_for_the_head() -> None:
    """Neither its weights nor its statistics move in the first iterations, and both do after."""
    batch = batch_of_uneven_images(4)
    options = ["batch_norm=train", "optimizer.lr=0.1", "iterations=9", "freeze_encoder_iterations=2"]
    torch.manual_seed(0)
    model = tiny(Path("unused")).model.build(7)
    randomise(model)
    start = model.state_dict()
    first, updater = updated([batch], *options)
    first = {name: each.clone() for name, each in first.items()}
    updater.model.eval().train()  # as validation does
    updater(2, [batch])
    second = {name: each.clone() for name, each in updater.model.state_dict().items()}
    updater(3, [batch])
    third, moved = updater.model.state_dict(), []
    for name, each in start.items():
        if name.startswith("encoder."):
            assert torch.equal(each, first[name]), name
            assert torch.equal(each, second[name]), name
            moved.append(not torch.equal(each, third[name]))
        elif "running" in name:
            assert not torch.equal(first[name], second[name]), name
    assert sum(moved) > 0.9 * len(moved), "all but where no gradient comes through a ReLU"


def test_frozen_statistics_are_those_that_were_loaded(tmp_path: Path) -> None:
    """The head beside a loaded encoder begins anew and counts its own; so it does when the run is resumed."""
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    train(tiny(tmp_path / "data", "iterations=1", "validate_every=null"), first)
    loaded = weights(first)
    config = ["iterations=4", "validate_every=null", f"encoder_weights={first}", "batch_norm=frozen", "save_every=2"]
    train(tiny(tmp_path / "data", *config), second)
    whole = weights(second)
    for name, each in whole.items():
        if "running" in name:
            assert torch.equal(each, loaded[name]) == name.startswith("encoder."), name
    shutil.rmtree(checkpoint_folders(second)[-1])
    train(tiny(tmp_path / "data", *config, f"resume={second}"), second)
    assert all(torch.equal(each, whole[name]) for name, each in weights(second).items())


def test_the_average_is_exponential() -> None:
    batch = batch_of_uneven_images(4)
    _, updater = updated([batch], "ema=0.75", "optimizer.lr=0.1", "batch_norm=train")
    assert updater.averaged is not None
    expected = {name: each.clone() for name, each in updater.model.state_dict().items()}  # the first is copied
    for iteration in (2, 3, 4):
        updater(iteration, [batch])
        for name, each in updater.model.state_dict().items():
            expected[name] = 0.75 * expected[name] + 0.25 * each
    for name, each in updater.averaged.module.state_dict().items():
        if each.is_floating_point():
            assert torch.allclose(each, expected[name], rtol=1e-5, atol=1e-6), name


@pytest.mark.slow
def test_the_average_is_scored_saved_and_the_better_one_is_the_best(tmp_path: Path) -> None:
    config = tiny(tmp_path / "data", "iterations=4", "validate_every=2", "ema=0.5")
    train(config, tmp_path)
    records = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    scored = [(record["miou"], record["ema_miou"]) for record in records if "miou" in record]
    assert len(scored) == 2
    assert read_network_info(tmp_path / "best.safetensors").scores["miou"] == max(map(max, scored))
    averaged = load_file(checkpoint_folders(tmp_path)[-1] / "averaged.safetensors")
    assert not torch.equal(averaged["logits.weight"], weights(tmp_path)["logits.weight"])


@pytest.mark.slow
def test_recomputed_statistics_are_the_plain_mean(tmp_path: Path) -> None:
    """Of a layer whose input no other BN reaches: torch's own batch statistics of the same crops, averaged."""
    config = tiny(tmp_path / "data", "iterations=1", "recompute_bn=3", "optimizer.lr=1e-30", "batch_size=8")
    train(config, tmp_path)
    model, _ = load_model(tmp_path / "best.safetensors")
    stream = training_stream(config, read_data(config))
    means, variances = [], []
    first = model.encoder.get_submodule("stem.0")
    assert isinstance(first, ConvBN)
    for images, _ in training_batches(stream, start=1, stop=4, batch_size=8, workers=0, pin_memory=False):
        seen = first.conv(normalize(images, INCEPTION))
        means.append(seen.mean((0, 2, 3)))
        variances.append(seen.var((0, 2, 3)))
    assert torch.allclose(first.bn.running_mean, torch.stack(means).mean(0), atol=1e-5)  # type: ignore[arg-type]
    assert torch.allclose(first.bn.running_var, torch.stack(variances).mean(0), rtol=1e-4)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_trains(tmp_path: Path, precision: str) -> None:
    train(tiny(tmp_path / "data", "iterations=3", "validate_every=null", f"precision={precision}"), tmp_path)
    assert all(map(math.isfinite, losses(tmp_path)))
    assert all(each.dtype in (torch.float32, torch.int64) for each in weights(tmp_path).values())


def test_a_batch_that_cannot_be_divided_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="batch_size=2 cannot be divided among 1 processes with accumulate=3"):
        train(tiny(tmp_path / "data", "accumulate=3"), tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["batch_norm=frozen", "recompute_bn=5"], "recompute_bn counts the statistics"),
        (["resume=auto"], "resume=auto needs output=DIR"),
        (["validate_every=null", "colour_baseline=true"], "colour_baseline is scored in validation"),
    ],
)
def test_values_that_do_not_go_together_are_refused(tmp_path: Path, options: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny(tmp_path / "data", *options)


@pytest.mark.slow
def test_few_images_for_bn_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    warning = "each BN sees 4 images at a time"
    for options, expected in (["accumulate=2"], True), (["accumulate=2", "batch_norm=frozen"], False), ([], False):
        caplog.clear()
        train(tiny(tmp_path / "data", "iterations=1", "validate_every=null", "batch_size=8", *options), tmp_path)
        assert (warning in caplog.text) == expected
