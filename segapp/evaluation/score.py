"""Scores what a config names, a checkpoint or a folder of saved masks, against the labels of a data set."""

import logging
from pathlib import Path

from segapp.base.distributed import ALONE, Processes
from segapp.base.errors import UserError
from segapp.data.dataset import SegmentationDataset
from segapp.data.loading.loader import Workers
from segapp.data.options import check_network
from segapp.evaluation.checkpoint import EvaluationCheckpoint, open_checkpoint
from segapp.evaluation.checks import (
    check_any_scored,
    check_number_of_classes,
    matched_to_weights,
    warn_of_dim,
    warn_of_seen,
)
from segapp.evaluation.config import EvalConfig, EvalToolConfig
from segapp.evaluation.evaluate import Evaluation, evaluate
from segapp.evaluation.labellers import by_network, by_saved_masks
from segapp.inference.saving import FOLDERS
from segapp.weights.exported.description import digest
from segapp.weights.find import find_checkpoint
from segapp.weights.zoo import ZOO

log = logging.getLogger(__name__)


def score(config: EvalToolConfig, folder: Path, processes: Processes = ALONE) -> tuple[Evaluation, dict[str, str]]:
    """Scores the data's val list; what is counted is kept in `folder`. Returns the result and, by name, its source.

    Raises:
        UserError: the data, the checkpoint or the folder of masks cannot be used, the classes do not match, or no
            image could be scored.
    """
    check_network(config.data, config.offline)
    with processes.main_first():
        dataset = config.dataset()
    if config.predictions is None:
        evaluation, source = _score_network(config, dataset, folder, processes)
    else:
        if config.inference.scales != (1.0,) or config.inference.flip or config.output_stride is not None:
            log.warning("predictions=DIR scores masks as they are; inference and output_stride change nothing")
        source = {"masks": str(config.predictions.resolve())}
        checkpoint = open_checkpoint(folder, config, dataset, source)
        evaluation = score_masks(config.predictions, dataset, config.eval, config.workers, processes, checkpoint)
    if processes.main:
        pixels = int(evaluation.scores.confusion_matrix.sum())
        check_any_scored(evaluation.images, evaluation.problems, pixels)
    return evaluation, source | {"data": dataset.name}


def _score_network(
    config: EvalToolConfig, dataset: SegmentationDataset, folder: Path, processes: Processes
) -> tuple[Evaluation, dict[str, str]]:
    published = ZOO.get(config.checkpoint)
    if published is not None and published.classes is not None:  # told before a long download
        check_number_of_classes(config.checkpoint, published.classes, dataset)
    with processes.main_first():
        path = find_checkpoint(config.checkpoint, offline=config.offline)
    predictor, info = config.open(path, as_validated=True)
    dataset.decoding = predictor.decoding
    log.info("scoring %s: %s", path, info.describe())
    dataset = matched_to_weights(dataset, path, info.classes)
    warn_of_dim(dataset)
    sha256 = digest(path)
    caution = warn_of_seen(dataset, info.trained_on)
    scored = {"weights": sha256, "protocol": predictor.protocol}
    evaluation = evaluate(
        dataset,
        by_network(predictor, confidence=config.eval.detailed),
        protocol=predictor.protocol,
        config=config.eval,
        workers=config.workers,
        device=predictor.device,
        processes=processes,
        checkpoint=open_checkpoint(folder, with_file(config, path), dataset, scored),
    )
    source = {
        "checkpoint": str(path.resolve()),
        "SHA-256": sha256,
        "network": info.network.encoder.describe(),
        "trained on": info.describe(),
    }
    if info.source is not None:
        source |= {"weights from": info.source.address, "SHA-256 there": info.source.sha256}
    return evaluation, source if caution is None else source | {"caution": caution}


def score_masks(
    folder: Path,
    dataset: SegmentationDataset,
    config: EvalConfig,
    workers: Workers,
    processes: Processes = ALONE,
    checkpoint: EvaluationCheckpoint | None = None,
) -> Evaluation:
    """Scores masks ID.png of class indices.

    Raises:
        UserError: no such folder, or predict's output in the place of its masks.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder of masks")
    masks = folder / FOLDERS["mask"]
    if masks.is_dir():
        raise UserError(f"{folder} is predict's output; the masks are in {masks}")
    log.info("scoring the masks in %s", folder)
    return evaluate(
        dataset,
        by_saved_masks(folder, len(dataset.classes)),
        protocol="saved masks",
        config=config,
        workers=workers,
        processes=processes,
        checkpoint=checkpoint,
    )


def with_file(config: EvalToolConfig, path: Path) -> EvalToolConfig:
    """With the file in the place of a name that may mean another one next time, such as "latest"."""
    if config.checkpoint in ZOO:
        return config
    return config.model_copy(update={"checkpoint": str(path.resolve())})
