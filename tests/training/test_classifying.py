"""Training of classifiers: what a run computes, leaves, and goes on from."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import yaml
from safetensors.torch import load_file

from segapp.base.compose import compose_config, read_config
from segapp.base.errors import Stopped, UserError
from segapp.commands.resumable import read_resumable
from segapp.data.loading.crops import training_batches
from segapp.models.deeplabv3plus import DeepLabV3Plus
from segapp.runs.layout import checkpoint_folders
from segapp.training.config import RESUME_MAY_CHANGE, ClassifyConfig, SegmentConfig, TrainConfig
from segapp.training.losses import ClassLoss, LossConfig
from segapp.training.schedules import lr_factor
from segapp.training.setup import read_class_data, training_stream
from segapp.training.trainer import Trainer, train
from segapp.weights.checkpoint import load_classifier, read_info, start_encoder_from, start_from
from tests.images import CLASSES, draw, split
from tests.networks import randomise, small

TINY = [
    "task=classification",
    "model/encoder=mobilenet_v2",
    "model.encoder.width=0.125",
    "transform.crop=32",
    "iterations=4",
    "batch_size=4",
    "validate_every=2",
    "schedule.warmup_iterations=0",
    "bn_momentum=0.1",
    "device=cpu",
    "workers=0",
    "log_every=1",
]


def tiny(root: Path, *more: str) -> ClassifyConfig:
    config = read_config("train", [*TINY, f"data.root={root}", *more], TrainConfig)
    assert isinstance(config, ClassifyConfig)
    return config


def run(folder: Path, *more: str, name: str = "run") -> Path:
    if not (folder / "data").exists():
        split(folder / "data")
    (folder / name).mkdir()
    train(tiny(folder / "data", *more), folder / name)
    return folder / name


def last(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(checkpoint_folders(folder)[-1] / "weights.safetensors")


def test_the_task_chooses_the_keys(tmp_path: Path) -> None:
    assert isinstance(read_config("train", [], TrainConfig), SegmentConfig)
    assert tiny(tmp_path).inference.size == 32
    for override, message in {
        "task=detection": "task/detection: no such choice; there are: classification, segmentation",
        "colour_baseline=true": "colour_baseline is no key of this config",
        "model=deeplabv3plus_xception": r"model\.aspp is no key",
        "data=voc2012": "data",
        "inference=canvas": "inference",
        "loss=dice": r"loss\.dice=1\.0 is for pixels; task=classification takes 0",
        "loss=hard_pixels": r"loss\.top_k=.* is for pixels",
        "auxiliary_loss=0": r"auxiliary_loss=0: .*greater than 0",
    }.items():
        with pytest.raises(UserError, match=message):
            tiny(tmp_path, override)


def test_a_run_learns_and_leaves_its_checkpoint(tmp_path: Path) -> None:
    folder = run(tmp_path, "ema=0.5")
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    validations = [record for record in records if "top1" in record]
    assert [record["iteration"] for record in validations] == [2, 4]
    assert all({"top5", "ema_top1", "ema_top5"} <= record.keys() for record in validations)
    assert not any("miou" in key or "iou/" in key for record in records for key in record)
    info = read_info(folder / "best.safetensors")
    best = max(record[key] for record in validations for key in ("top1", "ema_top1"))
    assert (info.classes, info.canvas, info.center) == (CLASSES, 32, 0.875)
    assert info.scores == {"top1": pytest.approx(best)}
    assert f"top-1 {best:.4f} in validation" in info.describe()
    page = (folder / "run.html").read_text()
    assert "top-1" in page
    assert "mIoU" not in page


@pytest.mark.parametrize("encoder", ["channelnet_v3", "inception_v3", "googlenet", "alexnet", "xception41"])
def test_any_encoder_under_its_own_head(encoder: str, tmp_path: Path) -> None:
    more = ["model.encoder.width=0.125", f"model/encoder={encoder}", "transform.crop=64", "iterations=1"]
    if encoder in ("inception_v3", "googlenet"):
        more += ["model.auxiliary=batch_norm"]
    elif encoder == "alexnet":
        more = more[1:]
    folder = run(tmp_path, *more, "batch_size=2")
    model, info = load_classifier(folder / "best.safetensors")
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 3)
    names = load_file(folder / "best.safetensors")
    assert not any(name.startswith("encoder.") for name in names), "an encoder's names have no prefix in its file"
    layer = "head.fc.conv.weight" if encoder == "channelnet_v3" else "head.fc.weight"
    assert layer in names
    start_encoder_from(folder / "best.safetensors", info.network.encoder.build(16))


def test_resumed_it_ends_as_unbroken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(tmp_path, "optimizer=rmsprop", "ema=0.5", "transform=inception", "transform.crop=32")
    before = Trainer._update

    def stopping(self: Trainer, *arguments: Any) -> None:
        before(self, *arguments)
        if self.progress.iteration == 3:
            raise Stopped(15)

    monkeypatch.setattr(Trainer, "_update", stopping)
    with pytest.raises(Stopped):
        run(tmp_path, "optimizer=rmsprop", "ema=0.5", "transform=inception", "transform.crop=32", name="broken")
    monkeypatch.undo()
    broken = tmp_path / "broken"
    assert checkpoint_folders(broken)[-1].name == "0000003"
    train(read_resumable("train", [f"resume={broken}"], TrainConfig, RESUME_MAY_CHANGE), broken)
    for name, tensor in last(whole).items():
        assert torch.equal(tensor, last(broken)[name]), name
    averaged = [checkpoint_folders(each)[-1] / "averaged.safetensors" for each in (whole, broken)]
    assert all(torch.equal(a, load_file(averaged[1])[name]) for name, a in load_file(averaged[0]).items())


def test_micro_batches_add_up(tmp_path: Path) -> None:
    """With weights that differ by class, a mean of the parts' means would be another."""
    split(tmp_path / "data")
    (tmp_path / "data" / "train" / "red" / "0.jpg").unlink()
    config = ["loss.class_weights=balanced", "loss.label_smoothing=0.1", "batch_norm=frozen", "iterations=2"]
    one, two = (run(tmp_path, *config, f"accumulate={parts}", name=str(parts)) for parts in (1, 2))
    for name, tensor in last(one).items():
        assert torch.allclose(tensor, last(two)[name], atol=1e-5), name


def terms(**changes: Any) -> LossConfig:
    return LossConfig.model_validate(compose_config("loss/cross_entropy", [])["loss"] | changes)


def test_the_loss_is_a_slow_loop() -> None:
    torch.manual_seed(0)
    logits, second, labels = torch.randn(5, 4), torch.randn(5, 4), torch.tensor([0, 3, 1, 1, 2])[:, None]
    weights = torch.tensor([1.0, 2.0, 0.5, 3.0])
    loss = ClassLoss(terms(label_smoothing=0.1, class_weights="balanced"), weights, auxiliary=0.4)
    found = loss((logits, second), labels, loss.counts(labels))
    total = 0.0
    for each, share in ((logits, 1.0), (second, 0.4)):
        for row, label in zip(each, labels[:, 0].tolist(), strict=True):
            target = torch.full((4,), 0.1 / 4)
            target[label] += 0.9
            total -= share * float((target * weights * F.log_softmax(row, 0)).sum())
    assert found.item() == pytest.approx(total / float(weights[labels].sum()), rel=1e-6)
    plain = ClassLoss(terms())
    mean = plain(logits, labels, plain.counts(labels))
    assert mean.item() == pytest.approx(F.cross_entropy(logits, labels[:, 0]).item())
    whole = plain.counts(labels)
    parts = sum(plain(logits[part], labels[part], whole).item() for part in (slice(0, 2), slice(2, 5)))
    assert parts == pytest.approx(mean.item())


@pytest.mark.parametrize("workers", [0, 2])
def test_crops_have_their_images_labels(workers: int, tmp_path: Path) -> None:
    """More than 255 classes, too: a label is no pixel."""
    root = draw(tmp_path / "data", [f"{index:03d}" for index in range(300)], number=1)
    (root / "000" / "0.jpg").rename(root / "000" / "1.jpg")
    config = tiny(root, "validate_every=null", "data.val_fraction=0.001")
    data = read_class_data(config)
    stream = training_stream(config, data)
    batches = list(training_batches(stream, start=0, stop=70, batch_size=4, workers=workers, pin_memory=False))
    order = stream.order(0)
    labels = torch.cat([labels for _, labels in batches])[: len(order), 0]
    assert labels.tolist() == data.training.labels[order][: len(labels)].tolist()
    assert labels.max() > 255
    assert batches[0][0].shape == (4, 32, 32, 3)


def test_balanced_draws_and_weights(tmp_path: Path) -> None:
    draw(tmp_path / "data" / "train", ("few",), number=2)
    draw(tmp_path / "data" / "train", ("many",), number=18)
    draw(tmp_path / "data" / "val", ("few", "many"), number=1, seed=1)
    data = read_class_data(tiny(tmp_path / "data"))
    assert data.class_weights().tolist() == pytest.approx([10 / 2, 10 / 18])
    drawn = np.concatenate([data.balanced(0)(epoch) for epoch in range(50)])
    assert np.mean(data.training.labels[drawn] == 0) == pytest.approx(0.5, abs=0.06)


def test_images_from_memory_train_the_same(tmp_path: Path) -> None:
    read, held = (
        run(tmp_path, "data.sampler=class_balanced", f"data.cache={each}", name=each) for each in ("none", "memory")
    )
    assert all(torch.equal(tensor, last(held)[name]) for name, tensor in last(read).items())


def test_images_in_both_sets_are_refused(tmp_path: Path) -> None:
    root = draw(tmp_path / "data" / "train").parent
    (root / "val").symlink_to(root / "train")
    with pytest.raises(UserError, match="12 images are in both"):
        read_class_data(tiny(root))


def test_a_classifier_starts_from_another_one(tmp_path: Path) -> None:
    path = run(tmp_path, "iterations=1") / "best.safetensors"
    config: Any = read_info(path).network
    source: Any
    source, info = load_classifier(path)
    model: Any = config.build(3)
    assert start_from(path, model, ("red", "blue", "green"))[1] is not None
    order = [CLASSES.index(name) for name in ("red", "blue", "green")]
    assert torch.equal(model.fc.weight, source.fc.weight[order])
    loaded = source.encoder.state_dict()
    assert all(torch.equal(each, loaded[name]) for name, each in model.encoder.state_dict().items())
    other = config.build(5)
    kept = other.fc.weight.clone()
    _, remark = start_from(path, other, tuple("abcde"))
    assert remark is not None
    assert "for 3 classes there, is initialised anew for 5 classes" in remark
    assert torch.equal(other.fc.weight, kept)
    assert info.classes == CLASSES


def test_a_trained_classifier_encodes_for_segmentation(tmp_path: Path) -> None:
    path = run(tmp_path, "iterations=1")
    weights = load_file(path / "best.safetensors")
    segmenter = small(encoder=read_info(path / "best.safetensors").network.encoder.model_dump()).build(3)
    assert isinstance(segmenter, DeepLabV3Plus)
    randomise(segmenter)
    start_encoder_from(path / "best.safetensors", segmenter.encoder)
    for name, tensor in segmenter.encoder.state_dict().items():
        assert torch.equal(tensor, weights[name]), name


@pytest.mark.parametrize("name", ["xception", "xception65", "inception_v3", "channelnet"])
def test_the_papers_recipes_run(name: str, tmp_path: Path) -> None:
    """Narrow, of small crops and cut off after two updates; with ChannelNet-v3's own head, too."""
    root = split(tmp_path / "data")
    common = ["iterations=2", "batch_size=4", "validate_every=2", "device=cpu", "workers=0", f"data.root={root}"]
    crop = 75 if name == "inception_v3" else 32
    more = [f"experiment=imagenet_{name}", "model.encoder.width=0.125", f"transform.crop={crop}"]
    if name == "channelnet":
        more.append("model/encoder=channelnet_v3")
    config = read_config("train", [*more, *common], TrainConfig)
    (tmp_path / "run").mkdir()
    result = train(config, tmp_path / "run")
    assert result is not None
    assert result.complete


@pytest.mark.parametrize(
    ("name", "epochs", "factor"),
    [("xception", 1.99, 1), ("xception", 2.01, 0.94), ("inception_v3", 98.5, 0.94**49), ("channelnet", 66, 0.001)],
)
def test_rates_of_the_recipes_by_epoch(name: str, epochs: float, factor: float) -> None:
    config = read_config("train", [f"experiment=imagenet_{name}"], TrainConfig)
    an_epoch = 5000 if name == "channelnet" else 1_281_167 / config.batch_size
    iteration = int(epochs * an_epoch)
    assert lr_factor(iteration, config.iterations, config.schedule, config.optimizer.lr) == pytest.approx(factor)


def test_a_kept_config_that_names_no_task_is_segmentations(tmp_path: Path) -> None:
    """As version 0.2 has kept them: it is resumed, by its folder or by resume=auto."""
    words = ["experiment=demo", f"data.root={tmp_path / 'data'}", f"output={tmp_path}"]
    kept = read_config("train", words, TrainConfig).model_dump(mode="json")
    del kept["task"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(kept))
    for resume in ([f"resume={tmp_path}"], [*words, "resume=auto"]):
        assert isinstance(read_resumable("train", resume, TrainConfig, RESUME_MAY_CHANGE), SegmentConfig)
    with pytest.raises(UserError, match="holds a run with another config: "):
        words = [*TINY, f"output={tmp_path}", "resume=auto"]
        read_resumable("train", words, TrainConfig, RESUME_MAY_CHANGE)
