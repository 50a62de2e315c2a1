"""What metrics.json holds (docs/metrics.md)."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from segapp.evaluation.bootstrap import LEVEL, RESAMPLES
from segapp.evaluation.calibration import Reliability
from segapp.evaluation.components import AREAS
from segapp.evaluation.config import EvalConfig
from segapp.evaluation.confusion import Scores, mean
from segapp.evaluation.details import Details
from segapp.evaluation.evaluate import Evaluation


def metrics(evaluation: Evaluation, config: EvalConfig) -> dict[str, Any]:
    """Measures are in [0, 1], null where nothing was counted."""
    scores = evaluation.scores
    values: dict[str, Any] = {
        "miou": scores.miou,
        "per_class_iou": _by_class(scores, scores.per_class_iou),
        "pixel_accuracy": scores.pixel_accuracy,
        "mean_accuracy": scores.mean_accuracy,
        "frequency_weighted_iou": scores.frequency_weighted_iou,
        "mean_dice": float(mean(scores.per_class_dice)),
        "mean_precision": float(mean(scores.per_class_precision)),
        "per_class_accuracy": _by_class(scores, scores.per_class_accuracy),
        "per_class_precision": _by_class(scores, scores.per_class_precision),
        "per_class_dice": _by_class(scores, scores.per_class_dice),
    }
    if config.classes is not None:
        values["selected"] = {"classes": list(config.classes), "miou": scores.miou_of(config.classes)}
    if evaluation.details is not None:
        values |= _detailed(evaluation.details, scores)
    values = null_for_nan(values)
    return values | {
        "data": evaluation.dataset,
        "absent_classes": list(scores.absent),
        "images": evaluation.images,
        "complete": evaluation.complete,
        "problems": evaluation.problems,
        "confusion_matrix": scores.confusion_matrix.tolist(),
        "protocol": evaluation.protocol,
    }


def _detailed(details: Details, scores: Scores) -> dict[str, Any]:
    boundary, components, interval = details.counts.boundary, details.counts.components, details.interval
    in_bands = np.stack([Scores(scores.classes, matrix).per_class_iou for matrix in boundary.trimap], 1)
    return {
        "miou_interval": {"level": LEVEL, "low": interval.low, "high": interval.high, "resamples": RESAMPLES},
        "boundary_iou": float(mean(boundary.per_class_iou)),
        "boundary_f": float(mean(boundary.per_class_f)),
        "per_class_boundary_iou": _by_class(scores, boundary.per_class_iou),
        "per_class_boundary_f": _by_class(scores, boundary.per_class_f),
        "trimap": {
            "widths": list(details.widths),
            "miou": boundary.trimap_miou.tolist(),
            "per_class_iou": _by_class(scores, in_bands),
        },
        "components": {
            "areas": list(AREAS),
            "number": components.components.sum(0).tolist(),
            "iou": mean(components.iou).tolist(),
            "recall": mean(components.recall).tolist(),
            "per_class_number": _by_class(scores, components.components),
            "per_class_iou": _by_class(scores, components.iou),
            "per_class_recall": _by_class(scores, components.recall),
        },
        **({} if details.reliability is None else calibration(details.reliability)),
    }


def calibration(reliability: Reliability) -> dict[str, Any]:
    return {
        "calibration_error": reliability.ece,
        "reliability": {
            "pixels": reliability.pixels.tolist(),
            "confidence": reliability.mean_confidence.tolist(),
            "accuracy": reliability.accuracy.tolist(),
        },
    }


def _by_class(scores: Scores, values: npt.NDArray[Any]) -> dict[str, Any]:
    return dict(zip(scores.classes, values.tolist(), strict=True))


def null_for_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: null_for_nan(each) for key, each in value.items()}
    if isinstance(value, list):
        return [null_for_nan(each) for each in value]
    return None if isinstance(value, float) and math.isnan(value) else value
