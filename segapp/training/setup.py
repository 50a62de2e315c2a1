"""From a config to all that training needs; nothing is written before it is known to be usable."""

import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from segapp.base.devices import pick_device
from segapp.base.distributed import Processes
from segapp.base.errors import UserError
from segapp.data.checks.scan import scan_labels
from segapp.data.checks.splits import check_apart
from segapp.data.dataset import SegmentationDataset
from segapp.data.loading.balance import class_weights
from segapp.data.loading.crops import TrainingStream
from segapp.data.loading.memory import InMemory
from segapp.data.loading.sampling import ClassBalanced, Uniform
from segapp.data.options import check_network
from segapp.evaluation.checks import check_classes, warn_of_seen
from segapp.inference.predictor import Predictor
from segapp.models.deeplabv3plus import DeepLabV3Plus, build_model
from segapp.models.layers import freeze_bn
from segapp.runs.layout import WEIGHTS
from segapp.training.checkpoints import AVERAGED, Checkpoint, Progress, newest_checkpoint, read_checkpoint
from segapp.training.config import TrainConfig
from segapp.training.losses import Loss
from segapp.training.step import TrainStep
from segapp.weights.checkpoint import (
    CheckpointInfo,
    Info,
    read_network_info,
    read_weights,
    start_encoder_from,
    start_from,
)
from segapp.weights.find import find_checkpoint, find_encoder

log = logging.getLogger(__name__)

FEW = 8
"""Fewer images than this make BN's statistics noisy."""


@dataclass(frozen=True)
class Data:
    """`validation`: None where nothing is scored. `counts`: the training masks' pixels by value, N x 256."""

    training: SegmentationDataset
    validation: SegmentationDataset | None
    counts: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Setup:
    """`predictors`: of the network as it is, "", and of its moving average, "ema_", if there is one.

    `said`: what the log is to say once there is one. `splits_seen`: by the weights, this run's among them.
    """

    device: torch.device
    data: Data
    stream: TrainingStream
    updater: TrainStep
    predictors: dict[str, Predictor]
    progress: Progress
    initial: Info | None
    splits_seen: tuple[str, ...]
    said: list[str]

    def describe(self, config: TrainConfig, iteration: int, miou: float | None) -> CheckpointInfo:
        """What stands beside the weights as they are after `iteration`."""
        encoder = config.model.encoder.model_copy(update={"weights": None})
        return CheckpointInfo(
            model=config.model.model_copy(update={"encoder": encoder}),
            classes=self.data.training.classes,
            canvas=self.predictors[""].canvas,
            splits_seen=self.splits_seen,
            iteration=iteration,
            miou=miou if miou is not None and math.isfinite(miou) else None,  # NaN: validation of nothing but void
            source=self.initial.source if self.initial else None,
        )


def prepare(config: TrainConfig, output: Path, processes: Processes) -> Setup:
    """Raises:
    UserError: the data, a checkpoint or the device cannot be used, or the batch cannot be divided so.
    """
    device = pick_device(config.device)
    part = part_size(config, processes)
    torch.manual_seed(config.seed)
    torch.backends.cudnn.benchmark = not config.deterministic  # every crop has one size
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without which cuBLAS is not deterministic
    torch.use_deterministic_algorithms(config.deterministic)

    with processes.main_first():
        data = read_data(config)
    stream = training_stream(config, data)
    classes = data.training.classes
    model = build_model(config.model, len(classes))
    resumed = find_resumed(output, processes) if config.resume is not None else None
    said = ["starting from scratch"]
    initial: Info | None = None
    if resumed is not None:
        initial = _continue(resumed[0], model)
        said = [f"resuming after iteration {resumed[1].iteration} of {config.iterations}"]
    elif config.checkpoint is not None:
        with processes.main_first():
            path = find_checkpoint(config.checkpoint, offline=config.offline)
        initial, remark = start_from(path, model, classes)
        said = [f"starting from {path}: {initial.describe()}", *([remark] if remark else [])]
        if config.model.encoder.weights is not None:
            said.append(f"model.encoder.weights={config.model.encoder.weights} is not used: a whole network is given")
    elif config.model.encoder.weights is not None:
        with processes.main_first():
            found = find_encoder(config.model.encoder, offline=config.offline)
        assert found is not None
        initial = start_encoder_from(found, model.encoder)
        said = [f"starting from {found}: {initial.describe()}"]

    if config.batch_norm == "frozen":
        freeze_bn(model)
    elif processes.size > 1 and device.type == "cuda":
        # In place; torch has none for CPUs.
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        part *= processes.size
    predictors = {"": _predictor(model, config, classes, device)}  # on the device before the optimizer looks at it
    weights = None
    if config.loss.class_weights == "balanced":
        weights = torch.from_numpy(class_weights(data.counts, len(classes))).float().to(device)
    updater = TrainStep(model, config, Loss(config.loss, weights), device=device, processes=processes)
    if updater.averaged is not None:
        predictors["ema_"] = _predictor(updater.averaged.module, config, classes, device)
    progress = Progress()
    if resumed is not None:
        folder, progress, state = resumed
        try:
            updater.load_state_dict(state)
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{folder}: damaged ({error}); remove it to continue from the one before it") from None
        if updater.averaged is not None:
            averaged = updater.averaged.module
            averaged.load_state_dict(read_weights(folder / AVERAGED, averaged.state_dict()))
    seen = tuple(dict.fromkeys([*(initial.splits_seen if initial else ()), data.training.name]))
    _warn(config, part)
    if data.validation is not None:
        warn_of_seen(data.validation, seen)
    return Setup(device, data, stream, updater, predictors, progress, initial, seen, said)


def find_resumed(output: Path, processes: Processes) -> Checkpoint | None:
    """The main process chooses."""
    newest = newest_checkpoint(output) if processes.main else None
    place = processes.from_main(None if newest is None else newest[0])
    return newest if processes.main or place is None else read_checkpoint(place)


def read_data(config: TrainConfig) -> Data:
    """Raises:
    UserError: data is missing, a label is wrong, or the two sets share an image.
    """
    check_network(config.data, config.offline)
    training, validation = config.data.dataset("train"), None
    if config.validate_every is not None:
        validation = config.data.dataset("val")
        check_apart(training, validation)
        check_classes(config.eval, validation)
    counts = scan_labels(training)
    if validation is not None:
        scan_labels(validation)
    return Data(training, validation, counts)


def training_stream(config: TrainConfig, data: Data) -> TrainingStream:
    """Raises:
    UserError: the transform does not fit; decoded images would not fit into memory.
    """
    order: Uniform | ClassBalanced = Uniform(len(data.training), config.seed)
    if config.data.sampler == "class_balanced":
        order = ClassBalanced(data.counts, len(data.training.classes), config.seed)
    samples = InMemory(data.training) if config.data.cache == "memory" else data.training
    stream = TrainingStream(samples, config.transform, config.seed, order)
    if isinstance(first := stream[0], UserError):
        raise first
    return stream


def part_size(config: TrainConfig, processes: Processes) -> int:
    """How many images are computed at once on one device.

    Raises:
        UserError: the batch cannot be divided so.
    """
    shares = processes.size * config.accumulate
    if config.batch_size % shares:
        whole = max(shares, config.batch_size // shares * shares)
        raise UserError(
            f"batch_size={config.batch_size} cannot be divided among {processes.size} processes with "
            f"accumulate={config.accumulate}; take batch_size={whole}"
        )
    if config.recompute_bn and config.batch_size == processes.size:
        raise UserError("recompute_bn needs at least 2 images a process: BN of one value a channel has no variance")
    return config.batch_size // shares


def _continue(folder: Path, model: DeepLabV3Plus) -> CheckpointInfo:
    path = folder / WEIGHTS
    info = read_network_info(path)
    model.load_state_dict(read_weights(path, model.state_dict()))
    return info


def _predictor(model: nn.Module, config: TrainConfig, classes: tuple[str, ...], device: torch.device) -> Predictor:
    assert isinstance(model, DeepLabV3Plus)
    return Predictor(
        model,
        classes,
        output_stride=config.model.output_stride,
        inference=config.inference,
        device=device,
        precision=config.precision,
    )


def _warn(config: TrainConfig, images_for_bn: int) -> None:
    if config.schedule.warmup_iterations >= config.iterations:
        log.warning("schedule.warmup_iterations=%d is the whole run", config.schedule.warmup_iterations)
    if config.batch_norm == "frozen":
        return
    if config.iterations * config.model.bn_momentum < 3 and not config.recompute_bn:
        log.warning(
            "BN's running statistics will lag behind: %d iterations are too few for model.bn_momentum=%g; "
            "raise it (up to 0.1), or take recompute_bn=100",
            config.iterations,
            config.model.bn_momentum,
        )
    if images_for_bn < FEW:
        log.warning(
            "each BN sees %d images at a time, fewer than %d: its statistics are noisy; raise batch_size, lower "
            "accumulate, or set batch_norm=frozen if the weights are pretrained",
            images_for_bn,
            FEW,
        )
