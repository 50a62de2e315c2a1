"""Whether a data set, its classes and a network's weights go together, told before hours of scoring."""

import logging
from collections.abc import Iterable, Sequence

from segapp.base.errors import UserError
from segapp.data.checks.splits import overlapping
from segapp.data.dataset import SegmentationDataset
from segapp.evaluation.config import EvalConfig

log = logging.getLogger(__name__)


def check_classes(config: EvalConfig, dataset: SegmentationDataset) -> None:
    """Raises:
    UserError: a class named in `config.classes` is none of the data set's.
    """
    unknown = [name for name in config.classes or () if name not in dataset.classes]
    if unknown:
        raise UserError(f"eval.classes: {unknown[0]} is none of {', '.join(dataset.classes)}")


def check_number_of_classes(checkpoint: str, classes: int, dataset: SegmentationDataset) -> None:
    """Raises:
    UserError: the weights are for another number of classes than the data's.
    """
    if classes != len(dataset.classes):
        raise UserError(
            f"{checkpoint} knows {classes} classes, {dataset.name} has {len(dataset.classes)}; "
            "checkpoint=latest is what was trained here last"
        )


def check_any_scored(images: int, problems: Sequence[str]) -> None:
    """Raises:
    UserError: no image could be scored.
    """
    if not images:
        raise UserError(f"none of {len(problems)} images could be scored; {problems[0]}")


def warn_of_seen(dataset: SegmentationDataset, trained_on: Iterable[str]) -> str | None:
    """Says so, and returns it, where weights were trained on images that they are to be scored on."""
    splits = list(trained_on)
    seen = ", ".join(overlapping(dataset.name, splits))
    if not seen and splits:
        return None
    caution = f"these weights were trained on {seen}: their figures on {dataset.name} say little"
    if not splits:
        caution = f"nobody knows what these weights were trained on: whether they have seen {dataset.name}, too"
    log.warning(caution)
    return caution
