"""What is predicted of an image."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from segapp.inference.geometry import Size


@dataclass(frozen=True)
class Prediction:
    """Of one image; `labels` and `confidence` on the predictor's device.

    Attributes:
        labels: H x W uint8.
        probabilities: K x H x W float16, if asked for.
        confidence: H x W float32, the probability of the label, if asked for.
    """

    labels: Tensor
    probabilities: npt.NDArray[np.float16] | None = None
    confidence: Tensor | None = None


class Outputs(NamedTuple):
    """What a prediction holds beside the labels."""

    probabilities: bool = False
    confidence: bool = False


def empty_prediction(num_classes: int, size: Size, device: torch.device, outputs: Outputs) -> Prediction:
    """To be filled in."""
    return Prediction(
        torch.empty(size, dtype=torch.uint8, device=device),
        np.empty((num_classes, *size), np.float16) if outputs.probabilities else None,
        torch.empty(size, device=device) if outputs.confidence else None,
    )
