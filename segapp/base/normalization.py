"""How pixels become what a network is given."""

from typing import Annotated

from pydantic import Field

from segapp.base.config import Config

Positive = Annotated[float, Field(gt=0)]


class Normalization(Config):
    """Per channel of R, G, B, of values in [0, 1]: (x - mean) / std is what the network is given."""

    mean: tuple[float, float, float]
    std: tuple[Positive, Positive, Positive]


INCEPTION = Normalization(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
"""To [-1, 1] (research/slim/preprocessing/inception_preprocessing.py)."""

IMAGENET = Normalization(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
"""By the mean and the standard deviation of ImageNet's pixels, as torchvision's and timm's networks want it."""
