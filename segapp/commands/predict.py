"""Segments images and videos, or names images' classes by a classifier: files, folders or globs, then key=value.

python tools/predict.py img.jpg                                     the published VOC weights, downloaded once
python tools/predict.py img.jpg checkpoint=embedded                 the small network that comes with the program
python tools/predict.py photos/ more/*.png checkpoint=runs/train/RUN output=DIR
python tools/predict.py img.jpg checkpoint=latest                   what was trained here last
python tools/predict.py img.jpg save=[mask,overlay,probabilities,json]
python tools/predict.py photo.jpg inference=sliding                 windows over an image of any size
python tools/predict.py img.jpg inference=multi_scale output_stride=8    slower and better
python tools/predict.py images/ labels=masks/                       reports mIoU, too
python tools/predict.py @list.txt output=DIR resume=auto             a path a line; goes on where it was broken off
python tools/predict.py clip.mp4 every=2 start=10 end=20             a video; or camera:0, rtsp://..., until Ctrl-C
torchrun --nproc-per-node=8 -m segapp predict photos/                each image by one of the processes
python tools/predict.py photos/ checkpoint=runs/train/CLASSIFIER     the most probable classes, in classes.csv, too
"""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from segapp.base.config import UserPath, Words, save_config
from segapp.base.devices import DeviceName, device_kind
from segapp.base.distributed import Processes, is_job, processes
from segapp.base.errors import UserError
from segapp.base.files import remove_leftovers
from segapp.base.images import MAX_PIXELS
from segapp.cli import PARTIAL, output_folder
from segapp.commands.inputs import Inputs, find_inputs, sorted_out, split_arguments
from segapp.commands.resumable import check_unused, read_resumable, resume_hint
from segapp.commands.videos import VideoOptions, check_videos, label_videos, video_names
from segapp.inference.predictor import Predictor
from segapp.inference.saving import FOLDERS, label_files
from segapp.inference.summary import (
    FORMATS,
    Progress,
    begin_progress,
    check_formats,
    check_network,
    read_names,
    read_rows,
    starts,
    write_summary,
)
from segapp.inference.video import FRAMES
from segapp.runs.layout import CLASSES, CONFIG, REPORT, is_prediction
from segapp.weights.description import outline_of
from segapp.weights.exported.description import is_exported
from segapp.weights.find import chosen, find_checkpoint

if TYPE_CHECKING:
    from segapp.evaluation.label_folder import LabelFolder

log = logging.getLogger(__name__)

LESS_MEMORY = "take inference=sliding, or a smaller canvas or window with inference"


class PredictConfig(VideoOptions):
    """See conf/predict.yaml."""

    checkpoint: str
    summary: Words
    labels: UserPath | None
    max_pixels: int = Field(gt=0, le=2 * MAX_PIXELS)
    batch_size: int = Field(gt=0)
    offline: bool
    resume: Literal["auto"] | UserPath | None
    output: UserPath | None

    @field_validator("save")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [kind for kind in value if kind not in FOLDERS]
        if unknown:
            raise ValueError(f"{unknown[0]} is none of {', '.join(FOLDERS)}")
        return value

    @field_validator("summary")
    @classmethod
    def _written(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [each for each in value if each not in FORMATS]
        if unknown:
            raise ValueError(f"{unknown[0]} is none of {', '.join(FORMATS)}")
        return value

    @model_validator(mode="after")
    def _agree(self) -> "PredictConfig":
        if self.resume == "auto" and self.output is None:
            raise ValueError("resume=auto needs output=DIR, the folder of the run to start or to go on with")
        if self.resume is not None and self.labels is not None:
            raise ValueError("labels=DIR scores what one start has labelled; leave resume")
        return self


RESUME_MAY_CHANGE = frozenset({"checkpoint", "max_pixels", "summary", "device", "offline"})
"""Keys that do not change what is written."""


def main(arguments: list[str]) -> int:
    """Labels what is named in `arguments`, which Hydra overrides may follow. Returns the exit status."""
    named, overrides = split_arguments(arguments)
    config = read_resumable("predict", overrides, PredictConfig, RESUME_MAY_CHANGE)
    with processes(gpu=takes_gpu(config.device)) as job:
        inputs = job.from_main(inputs_of(named, config, job) if job.main else Inputs([], []))
        checkpoint = job.from_main(chosen(config.checkpoint, offline=config.offline) if job.main else "")
        config = config.model_copy(update={"checkpoint": checkpoint})
        with job.main_first():
            path = find_checkpoint(checkpoint, offline=config.offline)
        if not is_exported(path) and not outline_of(path).is_segmentation:
            return name_classes(inputs, config, path, job)
        predictor, info = config.open(path)
        if len({*job.gather(info.identity())}) > 1:
            raise UserError(f"checkpoint={config.checkpoint} is not the same network everywhere; name a file")
        labels = None if config.labels is None else label_folder(config.labels, predictor)
        name = inputs.images[0].stem if inputs.images else video_names(inputs.videos)[0]
        with output_folder(config.output, "predict", name, job) as output, resume_hint(output, job):
            log.info("%s: %s", path, info.describe())
            if job.main:
                if config.resume is None or not is_prediction(output):
                    begin_progress(output, inputs.names, info.identity())
                else:
                    check_network(output, info.identity())
                    for part in (*FOLDERS.values(), FRAMES):
                        remove_leftovers(output / part)
                save_config(output / CONFIG, config)
            job.barrier()
            problems = []
            if inputs.images:
                problems += label_images(inputs, predictor, config, output, job, labels)
            if labels is not None:
                report(labels, problems, predictor.protocol, path, output)
                return PARTIAL if problems else 0
            problems += label_videos(inputs.videos, predictor, config, output, job)
            for problem in problems if job.main else ():
                print(f"failed: {problem}")
    return PARTIAL if problems else 0


def takes_gpu(device: DeviceName) -> bool:
    """Whether this process of a job computes on one; PyTorch, which knows, is asked only where it matters.

    Raises:
        UserError: the device that is named is not there.
    """
    return (device != "auto" or is_job()) and device_kind(device) == "cuda"


def inputs_of(named: list[str], config: PredictConfig, job: Processes) -> Inputs:
    """What is to be labelled, once it is known that it can be.

    Raises:
        UserError: it cannot; or a run that is gone on with was given something else.
    """
    if isinstance(config.resume, Path):
        if named:
            raise UserError(f"{named[0]}: resume={config.resume} knows what it was given; name nothing")
        inputs = sorted_out(read_names(config.resume))
    else:
        inputs = find_inputs(named)
        check_unused(config.output, resumable=False)
    there = config.output if config.resume == "auto" else None
    if there is not None and is_prediction(there) and read_names(there) != inputs.names:
        raise UserError(f"output={there} holds a run of other images; name another folder")
    if config.labels is not None:
        if not config.labels.is_dir():
            raise UserError(f"labels={config.labels}: no such folder")
        if inputs.videos or job.world_size > 1:
            what = inputs.videos[0] if inputs.videos else "torchrun"
            raise UserError(f"labels={config.labels} is for images and one process; leave {what}")
    check_formats(config.summary)
    if inputs.videos:
        check_videos(inputs.videos, config.save)
    return inputs


def label_images(
    inputs: Inputs,
    predictor: Predictor,
    config: PredictConfig,
    output: Path,
    job: Processes,
    labels: "LabelFolder | None",
) -> list[str]:
    """Labels this process's part of the images, prints what became of all, and gives a line for each that failed."""
    images = inputs.images
    folders = len({name.parent for name in images})
    if folders > 1:
        log.info("%d images in %d folders; those of one stem are numbered, as in NAME-2", len(images), folders)
    todo, start = job.from_main(left_to_do(inputs, config, output) if job.main else None) or ([], 0)
    mine = [at for at in todo if at // config.batch_size % job.world_size == job.rank]
    with Progress(output, start, job.rank) as progress:
        _, problems = label_files(
            images,
            predictor,
            output,
            config.save,
            max_pixels=config.max_pixels,
            score=None if labels is None else labels.score,
            todo=mine,
            batch_size=config.batch_size,
            record=progress.add,
        )
    job.barrier()
    if not job.main:
        return []
    failed = [row.error for row in read_rows(output) if row.error]
    files = write_summary(output, images, predictor.classes, config.summary)
    print(f"{len(images) - len(failed)} of {len(images)} images")
    for kind in config.save if len(failed) < len(images) else ():
        print(f"{kind:13} {output / FOLDERS[kind]}")
    for path in files:
        print(f"{'summary':13} {path}")
    return failed if labels is None else problems


def left_to_do(inputs: Inputs, config: PredictConfig, output: Path) -> tuple[list[int], int]:
    """The places of the images that no earlier start has done, and the number of such starts.

    Those that are shown to the network together are done together, so that a result does not depend on when the work
    was broken off.
    """
    number, size = len(inputs.images), config.batch_size
    group = np.arange(number) // size
    done = np.zeros(number, bool)
    done[[row.at for row in read_rows(output) if not row.error]] = True
    open_groups = np.bincount(group, ~done) > 0
    return np.flatnonzero(open_groups[group]).tolist(), len(starts(output))


def name_classes(inputs: Inputs, config: PredictConfig, path: Path, job: Processes) -> int:
    """Prints and saves the most probable classes of each image. Returns the exit status."""
    images = inputs.images
    if inputs.videos or config.resume is not None or job.world_size > 1:
        what = "videos" if inputs.videos else "resume" if config.resume is not None else "torchrun"
        raise UserError(f"{path} is a classifier, which names images in one process; leave {what}")
    if config.labels is not None:
        raise UserError(f"labels={config.labels}: {path} is a classifier; tools/eval.py data=image_folder scores it")
    from segapp.inference.classify import classify_files, save_classes, save_json  # PyTorch

    predictor, info = config.open_classifier(path)
    with output_folder(config.output, "predict", images[0].stem) as output:
        log.info("%s: %s", path, info.describe())
        save_config(output / CONFIG, config)
        results, problems = classify_files(images, predictor, max_pixels=config.max_pixels)
        for image, choices in results:
            print(f"{image}  {', '.join(f'{name} {probability:.3f}' for name, probability in choices)}")
        print(f"{len(results)} of {len(images)} images")
        if results:
            save_classes(output / CLASSES, results)
            print(f"{'classes':13} {output / CLASSES}")
            if "json" in config.save:
                save_json(output / FOLDERS["json"], results)
                print(f"{'json':13} {output / FOLDERS['json']}")
        for problem in problems:
            print(f"failed: {problem}")
    return PARTIAL if problems else 0


def label_folder(folder: Path, predictor: Predictor) -> "LabelFolder":
    from segapp.evaluation.label_folder import LabelFolder  # counts with PyTorch

    return LabelFolder(folder, predictor.classes)


def report(labels: "LabelFolder", problems: list[str], protocol: str, checkpoint: Path, output: Path) -> None:
    """Writes and prints how well the images were labelled."""
    from segapp.evaluation.label_folder import PIXELS_ALONE
    from segapp.reports.results import print_results, write_results

    evaluation = labels.evaluation(problems, protocol)
    source = {"checkpoint": str(checkpoint.resolve()), "labels": str(labels.folder.resolve())}
    write_results(output, evaluation, PIXELS_ALONE, title=labels.folder.name, source=source)
    print(f"report        {output / REPORT}\n")
    print_results(evaluation, PIXELS_ALONE)
