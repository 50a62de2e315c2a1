"""Image classifiers: an encoder, the mean of its last feature, and a fully connected layer."""

from typing import Literal

from torch import Tensor, nn

from segapp.base.config import Config
from segapp.models.encoders import EncoderConfig
from segapp.models.encoders.interface import Encoder


class ClassifierConfig(Config):
    """All that rebuilds it but its weights and the number of classes."""

    kind: Literal["classifier"] = "classifier"
    encoder: EncoderConfig

    def build(self, num_classes: int) -> "Classifier":
        """Freshly initialised."""
        return Classifier(self.encoder.build(32), num_classes)


class Classifier(nn.Module):
    """N x 3 x H x W, normalised, to N x K logits.

    Args:
        num_classes: K; 0 for the encoder alone, which has no such layer and cannot be called.
    """

    def __init__(self, encoder: Encoder, num_classes: int) -> None:
        super().__init__()
        self.encoder = encoder
        if num_classes:
            self.fc = nn.Linear(encoder.features[-1].channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.fc(self.encoder(images)[-1].mean((2, 3)))  # type: ignore[no-any-return]
