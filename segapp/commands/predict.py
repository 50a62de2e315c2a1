"""Segments images: files, folders or globs first, then key=value.

python tools/predict.py img.jpg                                     the published VOC weights, downloaded once
python tools/predict.py photos/ more/*.png checkpoint=runs/train/RUN output=DIR
python tools/predict.py img.jpg checkpoint=latest                   what was trained here last
python tools/predict.py img.jpg save=[mask,overlay,probabilities,json]
python tools/predict.py photo.jpg inference=sliding                 windows over an image of any size
python tools/predict.py img.jpg inference=multi_scale output_stride=8    slower and better
python tools/predict.py images/ labels=masks/                       reports mIoU, too
"""

import errno
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from pycocotools import mask as coco_mask
from pydantic import Field, field_validator

from segapp.base.classes import background_of, voc_palette
from segapp.base.config import Config, UserPath, Words, save_config
from segapp.base.devices import DeviceName, Precision
from segapp.base.drawing import overlay
from segapp.base.errors import UserError
from segapp.base.files import atomic_write, write_json
from segapp.base.images import MAX_PIXELS, read_image, read_mask, write_image, write_mask
from segapp.base.logs import progress_bar
from segapp.cli import PARTIAL, output_folder, read_config
from segapp.commands.inputs import find_images, output_names, split_arguments
from segapp.commands.resumable import check_unused
from segapp.data.dataset import check_labels, check_size
from segapp.evaluation.confusion import ConfusionMatrix, Scores
from segapp.evaluation.evaluate import EvalConfig, Evaluation
from segapp.inference.open import open_predictor
from segapp.inference.options import InferenceConfig
from segapp.inference.predictor import Predictor
from segapp.reports.results import print_results, write_results
from segapp.runs.layout import CONFIG
from segapp.weights.find import find_checkpoint

log = logging.getLogger(__name__)

LESS_MEMORY = "take inference=sliding, or a smaller canvas or window with inference"

Array = npt.NDArray[np.uint8]


FOLDERS = {"mask": "masks", "overlay": "overlays", "probabilities": "probabilities", "json": "json"}
"""Each kind of result has a folder of its own, so that no name of one image's file is another's."""


class PredictConfig(Config):
    """See conf/predict.yaml."""

    inference: InferenceConfig
    checkpoint: str
    output_stride: Literal[8, 16, 32] | None
    save: Words = Field(min_length=1)
    labels: UserPath | None
    max_pixels: int = Field(gt=0, le=2 * MAX_PIXELS)
    device: DeviceName
    precision: Precision
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
    paths, overrides = split_arguments(arguments)
    config = read_config("predict", overrides, PredictConfig)
    images = find_images(paths)
    check_unused(config.output, resumable=False)
    if config.labels is not None and not config.labels.is_dir():
        raise UserError(f"labels={config.labels}: no such folder")
    checkpoint = find_checkpoint(config.checkpoint, offline=config.offline)
    predictor, info = open_predictor(
        checkpoint,
        config.inference,
        output_stride=config.output_stride,
        device=config.device,
        precision=config.precision,
    )
    with output_folder(config.output, "predict", images[0].stem) as output:
        log.info("%s: %s", checkpoint, info.describe())
        folders = len({path.parent for path in images})
        if folders > 1:
            log.info("%d images in %d folders; those of one stem are numbered, as in NAME-2", len(images), folders)
        save_config(output / CONFIG, config)
        result = label_images(images, predictor, config, output)
        print(f"{result.saved} of {len(images)} images")
        for kind in config.save if result.saved else ():
            print(f"{kind:13} {output / FOLDERS[kind]}")
        if config.labels is None:
            for problem in result.problems:
                print(f"failed: {problem}")
        elif not result.scored:
            raise UserError(f"no image could be scored; the first: {result.problems[0]}")
        else:
            evaluation = Evaluation(
                str(config.labels), result.scores, result.scored, result.problems, predictor.protocol, examples=[]
            )
            settings = EvalConfig(batch_size=1, classes=None, examples=0, detailed=False, trimap_widths=())
            source = {"checkpoint": str(checkpoint.resolve()), "labels": str(config.labels.resolve())}
            write_results(output, evaluation, settings, title=config.labels.name, source=source)
            print(f"report        {output / 'report.html'}\n")
            print_results(evaluation, settings)
    return PARTIAL if result.problems else 0


@dataclass(frozen=True)
class Labelled:
    """`problems`: a line for each image that could not be read, or whose label could not be used."""

    saved: int
    scored: int
    problems: list[str]
    scores: Scores


def label_images(images: Sequence[Path], predictor: Predictor, config: PredictConfig, output: Path) -> Labelled:
    """Labels and saves every image that can be read, and scores those that have labels."""
    classes = predictor.classes
    matrix = ConfusionMatrix(len(classes))
    saved = scored = 0
    problems: list[str] = []
    with progress_bar(len(images), "predicting", "image") as progress:
        for path, name in zip(images, output_names(images), strict=True):
            try:
                image = read_image(path, config.max_pixels)
                prediction = predictor.predict([image], probabilities="probabilities" in config.save)[0]
                labels = prediction.labels.cpu().numpy()
                save(output, name, path, image, labels, prediction.probabilities, config.save, classes)
                saved += 1
                if config.labels is not None:
                    truth = read_truth(config.labels, path.stem, image.shape, len(classes))
                    matrix.update(torch.from_numpy(truth), torch.from_numpy(labels))
                    scored += 1
            except UserError as error:
                problems.append(str(error))
            except OSError as error:
                if error.errno not in (None, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ):
                    raise  # a full or a failing disk would fail for every image
                problems.append(f"{path}: its results cannot be written ({error.strerror or error})")
            progress.update()
    return Labelled(saved, scored, problems, Scores(classes, matrix.compute()))


def save(
    output: Path,
    name: str,
    source: Path,
    image: Array,
    labels: Array,
    probabilities: npt.NDArray[np.float16] | None,
    kinds: Sequence[str],
    classes: tuple[str, ...],
) -> None:
    """Writes one image's results, each file whole or not at all."""
    palette = voc_palette()
    for kind in kinds:
        folder = output / FOLDERS[kind]
        folder.mkdir(exist_ok=True)
        if kind == "mask":
            write_mask(folder / f"{name}.png", labels, palette)
        elif kind == "overlay":
            shown = overlay(image, labels, classes, palette, background=background_of(classes))
            write_image(folder / f"{name}{'.jpg' if max(shown.shape) < 65500 else '.png'}", shown)  # JPEG's limit
        elif kind == "json":
            write_json(folder / f"{name}.json", describe(source, labels, classes))
        elif probabilities is not None:
            with atomic_write(folder / f"{name}.npz") as temporary:
                np.savez_compressed(temporary, probabilities=probabilities, classes=np.array(classes))


def describe(source: Path, labels: Array, classes: tuple[str, ...]) -> dict[str, Any]:
    """The classes found, largest first: pixels, share in [0, 1], box [x, y, width, height], COCO run-length mask."""
    found = []
    pixels = np.bincount(labels.ravel(), minlength=len(classes))
    for index in np.argsort(-pixels, kind="stable").tolist():
        if pixels[index]:
            encoded = coco_mask.encode(np.asfortranarray(labels == index, np.uint8))
            found.append(
                {
                    "index": index,
                    "name": classes[index],
                    "pixels": int(pixels[index]),
                    "share": float(pixels[index] / labels.size),
                    "box": coco_mask.toBbox(encoded).tolist(),
                    "segmentation": {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")},
                }
            )
    return {"image": str(source), "width": labels.shape[1], "height": labels.shape[0], "classes": found}


def read_truth(folder: Path, stem: str, size: tuple[int, ...], num_classes: int) -> Array:
    """The label of an image: an indexed mask of its stem, H x W.

    Raises:
        UserError: missing, of another size than the image, or with a value outside the classes.
    """
    candidates = [folder / f"{stem}{suffix}" for suffix in (".png", ".bmp", ".tif", ".tiff", ".gif")]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        raise UserError(f"{folder / stem}.png: no label of this image")
    truth = read_mask(path)
    check_size(path, truth.shape, size)
    check_labels(path, np.bincount(truth.ravel(), minlength=256), num_classes)
    return truth
