"""Segments images, or names their classes if the checkpoint is a classifier: files, folders or globs, then key=value.

python tools/predict.py img.jpg                                     the published VOC weights, downloaded once
python tools/predict.py photos/ more/*.png checkpoint=runs/train/RUN output=DIR
python tools/predict.py img.jpg checkpoint=latest                   what was trained here last
python tools/predict.py img.jpg save=[mask,overlay,probabilities,json]
python tools/predict.py photo.jpg inference=sliding                 windows over an image of any size
python tools/predict.py img.jpg inference=multi_scale output_stride=8    slower and better
python tools/predict.py images/ labels=masks/                       reports mIoU, too
python tools/predict.py photos/ checkpoint=runs/train/CLASSIFIER     the most probable classes, in classes.csv, too
"""

import logging
from pathlib import Path

from pydantic import Field, field_validator

from segapp.base.compose import read_config
from segapp.base.config import UserPath, Words, save_config
from segapp.base.errors import UserError
from segapp.base.images import MAX_PIXELS
from segapp.cli import PARTIAL, output_folder
from segapp.commands.inputs import find_images, split_arguments
from segapp.commands.resumable import check_unused
from segapp.evaluation.label_folder import PIXELS_ALONE, LabelFolder
from segapp.inference.classify import classify_files, save_classes, save_json
from segapp.inference.open import PredictorOptions
from segapp.inference.saving import FOLDERS, label_files
from segapp.models.classifier import ClassifierConfig
from segapp.reports.results import print_results, write_results
from segapp.runs.layout import CLASSES, CONFIG, REPORT
from segapp.weights.checkpoint import read_info
from segapp.weights.exported.description import is_exported
from segapp.weights.find import find_checkpoint

log = logging.getLogger(__name__)

LESS_MEMORY = "take inference=sliding, or a smaller canvas or window with inference"


class PredictConfig(PredictorOptions):
    """See conf/predict.yaml."""

    checkpoint: str
    save: Words = Field(min_length=1)
    labels: UserPath | None
    max_pixels: int = Field(gt=0, le=2 * MAX_PIXELS)
    offline: bool
    output: UserPath | None

    @field_validator("save")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [kind for kind in value if kind not in FOLDERS]
        if unknown:
            raise ValueError(f"{unknown[0]} is none of {', '.join(FOLDERS)}")
        return value


def main(arguments: list[str]) -> int:
    """Labels the images named in `arguments`, which Hydra overrides may follow. Returns the exit status."""
    named, overrides = split_arguments(arguments)
    config = read_config("predict", overrides, PredictConfig)
    images = find_images(named)
    check_unused(config.output, resumable=False)
    if config.labels is not None and not config.labels.is_dir():
        raise UserError(f"labels={config.labels}: no such folder")
    path = find_checkpoint(config.checkpoint, offline=config.offline)
    if not is_exported(path) and isinstance(read_info(path).network, ClassifierConfig):
        return name_classes(images, config, path)
    predictor, info = config.open(path)
    labels = None if config.labels is None else LabelFolder(config.labels, predictor.classes)
    with output_folder(config.output, "predict", images[0].stem) as output:
        log.info("%s: %s", path, info.describe())
        folders = len({image.parent for image in images})
        if folders > 1:
            log.info("%d images in %d folders; those of one stem are numbered, as in NAME-2", len(images), folders)
        save_config(output / CONFIG, config)
        score = None if labels is None else labels.score
        saved, problems = label_files(
            images, predictor, output, config.save, max_pixels=config.max_pixels, score=score
        )
        print(f"{saved} of {len(images)} images")
        for kind in config.save if saved else ():
            print(f"{kind:13} {output / FOLDERS[kind]}")
        if labels is None:
            for problem in problems:
                print(f"failed: {problem}")
        else:
            report(labels, problems, predictor.protocol, path, output)
    return PARTIAL if problems else 0


def name_classes(images: list[Path], config: PredictConfig, path: Path) -> int:
    """Prints and saves the most probable classes of each image. Returns the exit status."""
    if config.labels is not None:
        raise UserError(f"labels={config.labels}: {path} is a classifier; tools/eval.py data=image_folder scores it")
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


def report(labels: LabelFolder, problems: list[str], protocol: str, checkpoint: Path, output: Path) -> None:
    """Writes and prints how well the images were labelled."""
    evaluation = labels.evaluation(problems, protocol)
    source = {"checkpoint": str(checkpoint.resolve()), "labels": str(labels.folder.resolve())}
    write_results(output, evaluation, PIXELS_ALONE, title=labels.folder.name, source=source)
    print(f"report        {output / REPORT}\n")
    print_results(evaluation, PIXELS_ALONE)
