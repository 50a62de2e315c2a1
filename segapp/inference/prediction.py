"""What is predicted of an image."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from segapp.inference.arrays import Size, to_numpy, zeros

if TYPE_CHECKING:
    import torch

Confidence = bool | Literal["as_shown"]


@dataclass(frozen=True)
class Prediction:
    """Of one image; `labels` and `confidence` are tensors on the predictor's device, or NumPy's where it has none.

    Attributes:
        labels: H x W uint8.
        probabilities: K x H x W float16, if asked for.
        confidence: H x W float32, the probability of the label, if asked for; as "as_shown" of the image that the
            network was shown, where that had to be scaled down.
    """

    labels: Any
    probabilities: npt.NDArray[np.float16] | None = None
    confidence: Any = None

    def mask(self) -> npt.NDArray[np.uint8]:
        """The labels as NumPy's, on the CPU."""
        return to_numpy(self.labels)


class Outputs(NamedTuple):
    """What a prediction holds beside the labels."""

    probabilities: bool = False
    confidence: Confidence = False


def empty_prediction(num_classes: int, size: Size, device: "torch.device | None", outputs: Outputs) -> Prediction:
    """To be filled in."""
    return Prediction(
        zeros(size, device, "uint8"),
        np.empty((num_classes, *size), np.float16) if outputs.probabilities else None,
        zeros(size, device) if outputs.confidence else None,
    )
