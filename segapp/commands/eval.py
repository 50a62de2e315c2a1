"""Scores a checkpoint, or a folder of saved masks, against labels, and writes a report.

python tools/eval.py data=voc2012                                   the published VOC weights, by the paper's protocol
python tools/eval.py checkpoint=runs/train/RUN output_stride=8
python tools/eval.py inference=multi_scale output_stride=8           six scales and their mirror images
python tools/eval.py table5=true                                     the paper's Table 5, ours beside its figures
python tools/eval.py checkpoint=latest data=folder data.root=DIR     what was trained here last
python tools/eval.py predictions=DIR data=voc2012
python tools/eval.py predictions=DIR against=OTHER data=voc2012      is DIR better than OTHER, or is it chance?
"""

import hashlib
import logging
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Literal

from pydantic import model_validator

from segapp.base.config import Config, UserPath
from segapp.base.devices import DeviceName, Precision, pick_device
from segapp.base.distributed import ALONE, Processes, processes, rank
from segapp.base.errors import Stopped, UserError
from segapp.base.files import sha256, write_json
from segapp.cli import PARTIAL, output_folder
from segapp.commands.resumable import check_unused, read_resumable
from segapp.data import DataConfig
from segapp.data.dataset import SegmentationDataset
from segapp.data.loading.loader import Workers
from segapp.data.options import check_network
from segapp.evaluation.bootstrap import LEVEL, RESAMPLES, Difference, miou_difference
from segapp.evaluation.evaluate import (
    EvalConfig,
    Evaluation,
    by_network,
    by_saved_masks,
    evaluate,
    masks_of,
    warn_of_seen,
)
from segapp.evaluation.state import EvaluationCheckpoint
from segapp.evaluation.table5 import CELLS, Grid, print_grid, score_row, write_grid
from segapp.inference.open import open_predictor
from segapp.inference.options import InferenceConfig, TestTimeAugmentation
from segapp.reports.results import print_results, write_results
from segapp.runs.layout import COUNTS
from segapp.weights.find import find_checkpoint
from segapp.weights.zoo import ZOO

log = logging.getLogger(__name__)

LESS_MEMORY = "lower eval.batch_size, or take a smaller canvas or window with inference"


class EvalToolConfig(Config):
    """See conf/eval.yaml."""

    data: DataConfig
    inference: InferenceConfig
    eval: EvalConfig
    checkpoint: str
    predictions: UserPath | None
    against: UserPath | None
    output_stride: Literal[8, 16, 32] | None
    table5: bool
    device: DeviceName
    precision: Precision
    workers: Workers
    offline: bool
    resume: Literal["auto"] | UserPath | None
    output: UserPath | None

    @model_validator(mode="after")
    def _agree(self) -> "EvalToolConfig":
        if self.against is not None and not self.eval.detailed:
            raise ValueError("against compares image by image, which takes eval.detailed=true")
        if self.table5 and (self.predictions is not None or self.output_stride is not None):
            raise ValueError(
                "table5=true scores a network at output strides 16 and 8; leave predictions and output_stride"
            )
        if self.resume == "auto" and self.output is None:
            raise ValueError("resume=auto needs output=DIR, the folder of the evaluation to start or to go on with")
        return self


RESUME_MAY_CHANGE = frozenset(
    {
        "checkpoint",
        "against",
        "data.root",
        "data.cache",
        "eval.batch_size",
        "eval.classes",
        "eval.examples",
        "device",
        "workers",
        "offline",
    }
)
"""Keys that do not change what is counted, but for rounding. The weights are told by what is in them."""


def main(overrides: list[str]) -> int:
    """Scores a checkpoint or a folder of masks, and leaves a report. Returns the exit status."""
    config = read_resumable("eval", overrides, EvalToolConfig, RESUME_MAY_CHANGE)
    if config.resume is None and not rank():
        check_unused(config.output, resumable=True)
    with (
        processes(gpu=pick_device(config.device).type == "cuda") as job,
        output_folder(config.output, "eval", config.data.name + "_table5" * config.table5, job) as output,
        going_on_told(output, job),
    ):
        if config.table5:
            return table5(config, output, job)
        evaluation, source = score(config, output, job)
        if job.main:
            check_any(evaluation.images, evaluation.problems)
            report(config, output, evaluation, source)
    return 0 if evaluation.complete else PARTIAL


@contextmanager
def going_on_told(output: Path, job: Processes) -> Iterator[None]:
    """Says, where the work is broken off and no mistake in it is to blame, how it goes on. SIGTERM breaks it off, too.

    Raises:
        Stopped: by SIGTERM.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except (KeyboardInterrupt, Stopped, OSError, MemoryError, RuntimeError):
        if job.main and any((output / COUNTS).rglob("*.npz")):
            log.warning("what was counted is kept; resume=%s goes on", output)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def report(config: EvalToolConfig, output: Path, evaluation: Evaluation, source: dict[str, str]) -> None:
    """Writes the report, and prints the figures."""
    compared = None if config.against is None else compare(config, config.against, evaluation)
    for name in ("pictures.png", "against.json"):  # of a report that is made anew
        (output / name).unlink(missing_ok=True)
    write_results(output, evaluation, config.eval, title=evaluation.dataset, source=source)
    if compared is not None:
        write_json(output / "against.json", {"masks": str(config.against), "level": LEVEL, **asdict(compared)})
    print(f"report    {output / 'report.html'}")
    if evaluation.examples:
        print(f"pictures  {output / 'pictures.png'}")
    print()
    if compared is not None:
        gain = compared.gain
        print(
            f"mIoU less that of {config.against}: {gain.value:+.4f}, 95 % interval {gain.low:+.4f} to {gain.high:+.4f}"
        )
        print(f"better in {compared.better:.1%} of {RESAMPLES} resamples of the images\n")
    print_results(evaluation, config.eval)


def score(config: EvalToolConfig, output: Path, job: Processes = ALONE) -> tuple[Evaluation, dict[str, str]]:
    """Scores the data's val list; what is counted is kept in `output`. Returns the result and, by name, its source.

    Raises:
        UserError: the data, the checkpoint or the folder of masks cannot be used, or the classes do not match.
    """
    check_network(config.data, config.offline)
    with job.main_first():
        dataset = config.data.dataset("val")
    if config.predictions is not None:
        if (
            config.inference.augmentation != TestTimeAugmentation((1.0,), flip=False)
            or config.output_stride is not None
        ):
            log.warning("predictions=DIR scores masks as they are; inference and output_stride change nothing")
        kept = keep(config, output, {"masks": str(config.predictions.resolve())}, dataset)
        evaluation = score_masks(config.predictions, dataset, config.eval, config.workers, job, kept)
        return evaluation, {"masks": str(config.predictions.resolve()), "data": dataset.name}

    known = ZOO.get(config.checkpoint)
    if known is not None and known.classes is not None:  # told before a long download
        check_number(config.checkpoint, known.classes, dataset)
    with job.main_first():
        path = find_checkpoint(config.checkpoint, offline=config.offline)
    predictor, info = open_predictor(
        path,
        config.inference,
        output_stride=config.output_stride,
        device=config.device,
        precision=config.precision,
    )
    log.info("scoring %s: %s", path, info.describe())
    check_number(str(path), len(info.classes), dataset)
    digest = sha256(path)
    config = with_checkpoint(config, path)
    caution = warn_of_seen(dataset, info.trained_on)
    if info.classes != dataset.classes:
        log.warning("the class names of %s and %s differ; they are matched by index", path, dataset.name)
    evaluation = evaluate(
        dataset,
        by_network(predictor, confidence=config.eval.detailed),
        protocol=predictor.protocol,
        config=config.eval,
        workers=config.workers,
        device=predictor.device,
        processes=job,
        kept=keep(config, output, {"weights": digest, "protocol": predictor.protocol}, dataset),
    )
    origin = {}
    if info.source is not None:
        origin = {"weights from": info.source.address, "SHA-256 there": info.source.sha256}
    origin |= {} if caution is None else {"caution": caution}
    return evaluation, {
        "checkpoint": str(path.resolve()),
        "SHA-256": digest,
        "network": f"{info.network.encoder.name}, width {info.network.encoder.width}",
        "trained on": info.describe(),
        **origin,
        "data": dataset.name,
    }


def keep(
    config: EvalToolConfig, output: Path, what: dict[str, str], dataset: SegmentationDataset, name: str = ""
) -> EvaluationCheckpoint:
    """Where an evaluation keeps what it counts.

    Args:
        what: is scored.
        name: of a part of the evaluation.
    """
    images, masks = dataset.images, masks_of(dataset)
    ids = hashlib.sha256(os.fsencode("\n".join(dataset.ids))).hexdigest()

    def files(place: int) -> list[Path]:
        own = [] if config.predictions is None else [config.predictions / f"{dataset.ids[place]}.png"]
        return [images[place], masks[place], *own]

    key = what | {"images": f"{len(dataset)} of {dataset.name}, list {ids[:16]}"}
    return EvaluationCheckpoint(output, key, config, files, name=name)


def with_checkpoint(config: EvalToolConfig, path: Path) -> EvalToolConfig:
    """With the file in the place of a name that may mean another one next time, such as "latest"."""
    if config.checkpoint in ZOO:
        return config
    return config.model_copy(update={"checkpoint": str(path.resolve())})


def check_any(images: int, problems: Sequence[str]) -> None:
    """Raises:
    UserError: no image could be scored.
    """
    if not images:
        raise UserError(f"none of {len(problems)} images could be scored; {problems[0]}")


def score_masks(
    folder: Path,
    dataset: SegmentationDataset,
    settings: EvalConfig,
    workers: Workers,
    job: Processes = ALONE,
    kept: EvaluationCheckpoint | None = None,
) -> Evaluation:
    """Raises:
    UserError: no such folder, or predict's output in the place of its masks.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of masks")
    if (folder / "masks").is_dir():
        raise UserError(f"{folder} is predict's output; the masks are in {folder / 'masks'}")
    log.info("scoring the masks in %s", folder)
    label = by_saved_masks(folder, len(dataset.classes))
    return evaluate(dataset, label, protocol="saved masks", config=settings, workers=workers, processes=job, kept=kept)


def compare(config: EvalToolConfig, folder: Path, evaluation: Evaluation) -> Difference:
    """How much better what was scored is than the masks in a folder, image by image.

    Raises:
        UserError: the folder cannot be used, or not the same images could be scored.
    """
    settings = config.eval.model_copy(update={"examples": 0, "trimap_widths": ()})
    other = score_masks(folder, config.data.dataset("val"), settings, config.workers)
    if evaluation.details is None or other.details is None or evaluation.details.ids != other.details.ids:
        problem = [*other.problems, *evaluation.problems][0]
        raise UserError(f"against={folder}: not the same images could be scored; {problem}")
    return miou_difference(other.details.areas, evaluation.details.areas)


def table5(config: EvalToolConfig, output: Path, job: Processes = ALONE) -> int:
    """Scores a checkpoint in all settings of the paper's Table 5. Returns the exit status."""
    check_network(config.data, config.offline)
    with job.main_first():
        dataset = config.data.dataset("val")
        path = find_checkpoint(config.checkpoint, offline=config.offline)
    what = {"weights": sha256(path)}
    config = with_checkpoint(config, path)
    cells = []
    for stride in CELLS:
        predictor, info = open_predictor(
            path, config.inference, output_stride=stride, device=config.device, precision=config.precision
        )
        check_number(str(path), len(info.classes), dataset)
        row, images, problems = score_row(
            dataset,
            predictor,
            batch_size=config.eval.batch_size,
            workers=config.workers,
            processes=job,
            kept=keep(config, output, what | {"protocol": predictor.protocol}, dataset, f"output_stride_{stride}"),
        )
        cells += row
    if job.main:
        check_any(images, problems)
        warn_of_seen(dataset, info.trained_on)
        grid = Grid(dataset.name, images, problems, cells)
        write_grid(output, grid)
        print(f"table     {output / 'table5.md'}\n")
        print_grid(grid)
    return PARTIAL if problems else 0


def check_number(checkpoint: str, classes: int, dataset: SegmentationDataset) -> None:
    """Raises:
    UserError: the weights are for another number of classes than the data's.
    """
    if classes != len(dataset.classes):
        raise UserError(
            f"{checkpoint} knows {classes} classes, {dataset.name} has {len(dataset.classes)}; "
            "checkpoint=latest is what was trained here last"
        )
