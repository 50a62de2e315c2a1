"""From a config to all that training needs; nothing is written before it is known to be usable."""

import logging
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
from segapp.data.checks.label_findings import refuse_labels
from segapp.data.checks.labels import scan_set
from segapp.data.checks.scan import refuse_problems
from segapp.data.checks.splits import check_apart
from segapp.data.class_lists import matched, renumbered
from segapp.data.dataset import ClassificationDataset, SegmentationDataset
from segapp.data.loading.balance import class_weights
from segapp.data.loading.crops import TrainingStream
from segapp.data.loading.memory import InMemory
from segapp.data.loading.sampling import ClassBalanced, Uniform
from segapp.data.options import check_network
from segapp.evaluation.checks import check_classes, warn_of_seen
from segapp.evaluation.classification import Classification
from segapp.evaluation.evaluate import Evaluation
from segapp.models.classifier import Classifier
from segapp.models.deeplabv3plus import DeepLabV3Plus
from segapp.models.encoders.interface import Normalization
from segapp.models.surgery import checkpoint_activations, freeze_bn, set_bn_momentum
from segapp.runs.layout import AVERAGED, WEIGHTS
from segapp.training.checkpoints import Checkpoint, Progress, newest_checkpoint, read_checkpoint
from segapp.training.classifying import Classifying
from segapp.training.config import ClassifyConfig, SegmentConfig, TrainConfig
from segapp.training.distillation import Teachers
from segapp.training.losses import ClassLoss, Loss
from segapp.training.segmentation import Segmentation
from segapp.training.step import TrainStep
from segapp.training.task import EMA, Task
from segapp.weights.checkpoint import CheckpointInfo, read_info, restore_weights, start_encoder_from, start_from
from segapp.weights.find import AUTO, find_checkpoint, find_encoder

log = logging.getLogger(__name__)

FEW = 8
"""Fewer images than this make BN's statistics noisy."""


@dataclass(frozen=True)
class Data:
    """`validation`: None where nothing is scored. `counts`: the training masks' pixels by value, N x 256."""

    training: SegmentationDataset
    validation: SegmentationDataset | None
    counts: npt.NDArray[np.int64]

    @property
    def background(self) -> int | None:
        return self.training.background

    def class_weights(self) -> npt.NDArray[np.float64]:
        return class_weights(self.counts, len(self.training.classes))

    def balanced(self, seed: int) -> ClassBalanced:
        return ClassBalanced(self.counts, len(self.training.classes), seed)


@dataclass(frozen=True)
class ClassData:
    """Images of one class each. `validation`: None where nothing is scored."""

    training: ClassificationDataset
    validation: ClassificationDataset | None
    background = None

    @property
    def one_hot(self) -> npt.NDArray[np.int64]:
        """N x K."""
        return np.eye(len(self.training.classes), dtype=np.int64)[self.training.labels]

    def class_weights(self) -> npt.NDArray[np.float64]:
        """The classes' median number of images by each one's own; 0 where it has none."""
        images = np.bincount(self.training.labels, minlength=len(self.training.classes))
        return np.where(images, np.median(images[images > 0]) / np.maximum(images, 1), 0)

    def balanced(self, seed: int) -> ClassBalanced:
        return ClassBalanced(self.one_hot, len(self.training.classes), seed)


@dataclass(frozen=True)
class Setup:
    """All that the trainer needs.

    Attributes:
        normalization: of the images that the network is given.
        progress: how far a resumed run had come.
        remarks, beginning: what the log is to say once there is one: of the data, and of what training starts from.
    """

    device: torch.device
    stream: TrainingStream
    task: Task[Evaluation | Classification]
    train_step: TrainStep
    normalization: Normalization
    progress: Progress
    remarks: list[str]
    beginning: list[str]


def prepare(config: TrainConfig, output: Path, processes: Processes) -> Setup:
    """Raises:
    UserError: the data, a checkpoint or the device cannot be used, or the batch cannot be divided so.
    """
    device = pick_device(config.device)
    images_at_once = micro_batch_size(config, processes)
    torch.manual_seed(config.seed)
    torch.backends.cudnn.benchmark = not config.deterministic  # every crop has one size
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without which cuBLAS is not deterministic
    torch.use_deterministic_algorithms(config.deterministic)

    with processes.main_first():
        data = read_data(config) if isinstance(config, SegmentConfig) else read_class_data(config)
    stream = training_stream(config, data)
    classes = data.training.classes
    model = config.model.build(len(classes))
    resumed = find_resumed(output, processes) if config.resume is not None else None
    initial, anew, beginning = load_initial(config, model, classes, resumed, processes)
    normalization = initial.normalization if initial is not None else model.encoder.normalization

    set_bn_momentum(model, config.bn_momentum)
    if config.activation_checkpointing:
        checkpoint_activations(model.encoder.blocks)
    if config.batch_norm == "frozen":
        for name, part in model.named_children():
            if name not in anew:
                freeze_bn(part)
    elif processes.world_size > 1 and device.type == "cuda":
        # In place; torch has none for CPUs.
        nn.SyncBatchNorm.convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
        images_at_once *= processes.world_size

    trained_on = tuple(dict.fromkeys([*(initial.trained_on if initial else ()), data.training.name]))
    description = CheckpointInfo(
        network=config.model,
        classes=classes,
        background=data.background,
        normalization=normalization,
        trained_on=trained_on,
        jpeg_decoder=config.jpeg_decoder,
        white_level=config.white_level,
        source=initial.source if initial else None,
    )
    task = make_task(config, data, description, device=device, processes=processes)
    task.add("", model)  # which is on the device before the optimizer looks at it
    teachers = find_teachers(config, classes, device, processes)
    train_step = TrainStep(
        model, config, task.loss, normalization, device=device, processes=processes, teachers=teachers
    )
    if train_step.averaged is not None:
        task.add(EMA, train_step.averaged.module)
    progress = Progress(anew=anew) if resumed is None else restore(resumed, train_step)
    _warn(config, images_at_once)
    if data.validation is not None:
        warn_of_seen(data.validation, trained_on)
    sets = [each for each in (data.training, data.validation) if each is not None]
    remarks = [f"{each.name}: {len(each)} images, {len(each.classes)} classes" for each in sets]
    return Setup(device, stream, task, train_step, normalization, progress, remarks, beginning)


def make_task(
    config: TrainConfig,
    data: Data | ClassData,
    description: CheckpointInfo,
    *,
    device: torch.device,
    processes: Processes,
) -> Task[Evaluation | Classification]:
    """The config's task, with its loss; `description` gets how images are shown in validation."""
    assert isinstance(config, SegmentConfig | ClassifyConfig)
    weights = None
    if config.loss.class_weights == "balanced":
        weights = torch.from_numpy(data.class_weights()).float().to(device)
    side = config.inference.side
    shown: dict[str, object] = {"canvas": side if isinstance(side, int) else None}
    if isinstance(config, SegmentConfig):
        assert isinstance(data, Data)
        loss = Loss(config.loss, weights)
        description = description.model_copy(update=shown)
        return Segmentation(config, loss, data.validation, description, device=device, processes=processes)
    assert isinstance(data, ClassData)
    description = description.model_copy(update=shown | {"center": config.inference.share})
    class_loss = ClassLoss(config.loss, weights, config.auxiliary_loss)
    return Classifying(config, class_loss, data.validation, description, device=device, processes=processes)


def load_initial(
    config: TrainConfig,
    model: DeepLabV3Plus | Classifier,
    classes: tuple[str, ...],
    resumed: Checkpoint | None,
    processes: Processes,
) -> tuple[CheckpointInfo | None, tuple[str, ...], list[str]]:
    """Loads what training starts from into `model`. Returns what the file says of itself, which parts of the network
    begin anew beside what was loaded, and lines for the log."""
    if resumed is not None:
        path = resumed[0] / WEIGHTS
        initial = read_info(path)
        if initial.classes != classes:
            raise UserError(
                f"{path}: the run has the classes [{', '.join(initial.classes)}], the data now "
                f"[{', '.join(classes)}]; start another run"
            )
        restore_weights(path, model)
        return initial, resumed[1].anew, [f"resuming after iteration {resumed[1].iteration} of {config.iterations}"]
    if config.checkpoint is not None:
        with processes.main_first():
            path = find_checkpoint(config.checkpoint, offline=config.offline)
        initial, remark = start_from(path, model, classes)
        lines = [f"starting from {path}: {initial.describe()}", *([remark] if remark else [])]
        if config.encoder_weights not in (None, AUTO):
            lines.append(f"encoder_weights={config.encoder_weights} is not used: a whole network is given")
        return initial, (), lines
    if config.encoder_weights is not None:
        with processes.main_first():
            path = find_encoder(config.encoder_weights, config.model.encoder, offline=config.offline)
        initial = start_encoder_from(path, model.encoder)
        anew = tuple(name for name, _ in model.named_children() if name != "encoder")
        return initial, anew, [f"starting from {path}: {initial.describe()}"]
    return None, (), ["starting from scratch"]


def find_teachers(
    config: TrainConfig, classes: tuple[str, ...], device: torch.device, processes: Processes
) -> Teachers | None:
    """None where there are none to learn from."""
    if not isinstance(config, SegmentConfig) or not config.distillation.teachers:
        return None
    with processes.main_first():
        paths = [find_checkpoint(name, offline=config.offline) for name in config.distillation.teachers]
    return Teachers(config.distillation, paths, classes, device)


def restore(resumed: Checkpoint, train_step: TrainStep) -> Progress:
    """Raises:
    UserError: the checkpoint is damaged.
    """
    folder, progress, state = resumed
    try:
        train_step.load_state_dict(state)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder}: damaged ({error}); remove it to continue from the one before it") from None
    if train_step.averaged is not None:
        restore_weights(folder / AVERAGED, train_step.averaged.module)
    return progress


def find_resumed(output: Path, processes: Processes) -> Checkpoint | None:
    """The main process chooses."""
    newest = newest_checkpoint(output) if processes.main else None
    place = processes.from_main(None if newest is None else newest[0])
    return newest if processes.main or place is None else read_checkpoint(place)


def read_data(config: SegmentConfig) -> Data:
    """Raises:
    UserError: data is missing, a label is wrong, there is nothing to learn, or the two sets share an image or have
        other classes.
    """
    check_network(config.data, config.offline)
    training, validation = config.data.dataset("train"), None
    if config.validate_every is not None:
        validation = matched(config.data.dataset("val"), training.classes, training.name)
        check_apart(training, validation)
        check_classes(config.eval, validation)
    scanned = [scan_set(training, "train"), *([] if validation is None else [scan_set(validation, "val")])]
    for each in scanned:
        each.dataset.decoding = config.decoding
        refuse_problems(each.dataset, each)
    refuse_labels(scanned)
    return Data(training, validation, scanned[0].counts)


def read_class_data(config: TrainConfig) -> ClassData:
    """Raises:
    UserError: data is missing, or the two sets share an image, or validation has classes that training has not.
    """
    assert isinstance(config, ClassifyConfig)
    check_network(config.data, config.offline)
    training, validation = config.data.dataset("train"), None
    if config.validate_every is not None:
        validation = config.data.dataset("val")
        if not {*validation.classes} < {*training.classes}:  # a part of them is scored as it is
            validation = matched(validation, training.classes, training.name)
        validation = renumbered(validation, training.classes)
        check_apart(training, validation)
    for each in (training, validation):
        if each is not None:
            each.decoding = config.decoding
    return ClassData(training, validation)


def training_stream(config: TrainConfig, data: Data | ClassData) -> TrainingStream:
    """Raises:
    UserError: the transform does not fit; decoded images would not fit into memory.
    """
    order: Uniform | ClassBalanced = Uniform(len(data.training), config.seed)
    if config.data.sampler == "class_balanced":
        order = data.balanced(config.seed)
    samples = InMemory(data.training) if config.data.cache == "memory" else data.training
    labels = data.training.labels if isinstance(data, ClassData) else None
    stream = TrainingStream(samples, config.transform, config.seed, order, labels)
    if isinstance(first := stream[0], UserError):
        raise first
    return stream


def micro_batch_size(config: TrainConfig, processes: Processes) -> int:
    """How many images are computed at once on one device.

    Raises:
        UserError: the batch cannot be divided so.
    """
    shares = processes.world_size * config.accumulate
    if config.batch_size % shares:
        whole = max(shares, config.batch_size // shares * shares)
        raise UserError(
            f"batch_size={config.batch_size} cannot be divided among {processes.world_size} processes with "
            f"accumulate={config.accumulate}; take batch_size={whole}"
        )
    if config.recompute_bn and config.batch_size == processes.world_size:
        raise UserError("recompute_bn needs at least 2 images a process: BN of one value a channel has no variance")
    return config.batch_size // shares


def _warn(config: TrainConfig, images_for_bn: int) -> None:
    for key in ("warmup_iterations", "slow_start_iterations"):
        if getattr(config.schedule, key) >= config.iterations:
            log.warning("schedule.%s=%d is the whole run", key, getattr(config.schedule, key))
    if config.batch_norm == "frozen":
        if config.checkpoint is None and config.encoder_weights is None:
            log.warning("batch_norm=frozen from scratch: no statistics have been loaded that are worth keeping")
        return
    if config.iterations * config.bn_momentum < 3 and not config.recompute_bn:
        log.warning(
            "BN's running statistics will lag behind: %d iterations are too few for bn_momentum=%g; "
            "raise it (up to 0.1), or take recompute_bn=100",
            config.iterations,
            config.bn_momentum,
        )
    if images_for_bn < FEW:
        log.warning(
            "each BN sees %d images at a time, fewer than %d: its statistics are noisy; raise batch_size, lower "
            "accumulate, or set batch_norm=frozen if the weights are pretrained",
            images_for_bn,
            FEW,
        )
