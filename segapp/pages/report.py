"""The evaluation report: one HTML file that needs nothing beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from segapp.evaluation.confusion import Scores
from segapp.evaluation.evaluate import Example
from segapp.pages.grid import legend
from segapp.pages.kit import Array, css_colour, data_uri, render

WRONG = (239, 50, 50)
IGNORED = (150, 150, 150)


def write_report(
    path: Path,
    *,
    title: str,
    scores: Scores,
    palette: Array,
    protocol: str,
    images: int,
    figures: Sequence[tuple[str, float, str]],
    examples: Sequence[Example],
    problems: Sequence[str],
    provenance: Mapping[str, str],
) -> None:
    """Writes the page whole or not at all.

    Args:
        palette: 256 x 3 RGB.
        protocol: the name of how the images were scored, shown beside every headline figure.
        images: how many images were scored.
        figures: further measures (name, value in [0, 1] or NaN, the protocol it was scored by).
        examples: in the order to show.
        problems: one line for each image that could not be scored; any marks the result incomplete.
        provenance: what the result came from (checkpoint, command, versions, date...).
    """
    matrix = scores.confusion_matrix
    truth = matrix.sum(1)
    absent = set(scores.absent)
    render(
        "report.html.j2",
        path,
        title=title,
        miou=scores.miou,
        figures=[
            ("Pixel accuracy", scores.pixel_accuracy, protocol),
            ("Mean accuracy", scores.mean_accuracy, protocol),
            ("Frequency-weighted IoU", scores.frequency_weighted_iou, protocol),
            *figures,
        ],
        protocol=protocol,
        images=images,
        problems=problems,
        rows=[
            {
                "name": name,
                "colour": css_colour(palette[index]),
                "absent": name in absent,
                "iou": float(scores.per_class_iou[index]),
                "accuracy": float(scores.per_class_accuracy[index]),
                "share": float(truth[index] / max(truth.sum(), 1)),
            }
            for index, name in enumerate(scores.classes)
        ],
        confusion=(matrix / np.maximum(truth, 1)[:, None]).tolist(),
        examples=[_shown(example, scores.classes, palette) for example in examples],
        provenance=provenance,
    )


def _shown(example: Example, classes: Sequence[str], palette: Array) -> dict[str, object]:
    return {
        "id": example.id,
        "miou": example.miou,
        "pictures": {
            "image": data_uri(example.image),
            "truth": data_uri(example.truth, palette),
            "prediction": data_uri(example.prediction, palette),
            "errors": data_uri(_error_map(example, len(classes))),
        },
        "legend": legend([example.truth, example.prediction], classes, palette),
    }


def _error_map(example: Example, num_classes: int) -> Array:
    """H x W x 3: wrong pixels red, right ones the image in dim greys, ignored ones grey."""
    grey = np.array(Image.fromarray(example.image).convert("L")) // 3
    errors = np.repeat(grey[..., None], 3, axis=-1)
    errors[example.truth != example.prediction] = WRONG
    errors[example.truth >= num_classes] = IGNORED
    return errors
