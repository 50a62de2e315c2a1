"""Image classifiers: an encoder under its own head: the mean of its last feature, dropout, a fully connected layer."""

from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from segapp.base.config import Config
from segapp.base.errors import UserError
from segapp.models.encoders import EncoderConfig
from segapp.models.encoders.channelnet import ConvolutionalClassification
from segapp.models.encoders.interface import Encoder
from segapp.models.layers import trunc_normal

AUXILIARY_PLACES = 5
"""Of the auxiliary head's feature in height and width, which a convolution as large then makes one of."""


class ClassifierConfig(Config):
    """All that rebuilds it but its weights and the number of classes; see conf/model/image_classifier.yaml.

    `places`: in height and width, of the feature that ChannelNet-v3's classification layer takes; others are brought
    to it. `auxiliary`: a second head, on the feature before the last, with which the network is trained.
    """

    kind: Literal["classifier"] = "classifier"
    encoder: EncoderConfig
    dropout: float = Field(default=0.0, ge=0, lt=1)
    places: int = Field(default=7, gt=0, le=64)
    auxiliary: Literal["none", "plain", "batch_norm"] = "none"

    def build(self, num_classes: int) -> "Classifier":
        """Freshly initialised.

        Raises:
            UserError: the encoder cannot be built, or has fewer channels than its classification layer needs.
        """
        return Classifier(self, num_classes)


class Classifier(nn.Module):
    """N x 3 x H x W, normalised, to N x K logits; in training with an auxiliary head also to that one's.

    Args:
        num_classes: K; 0 for the encoder alone, which has no such layer and cannot be called.
    """

    def __init__(self, config: ClassifierConfig, num_classes: int) -> None:
        super().__init__()
        self.encoder: Encoder = config.encoder.build(32)
        self.dropout = nn.Dropout(config.dropout)
        self.places = config.places if config.encoder.name == "channelnet_v3" else None
        self.auxiliary: AuxiliaryHead | None = None
        if not num_classes:
            return
        channels = self.encoder.features[-1].channels
        if self.places is not None:
            try:
                self.fc: nn.Module = ConvolutionalClassification(channels, num_classes, self.places)
            except ValueError as error:
                raise UserError(f"model.encoder.width={getattr(config.encoder, 'width', 1):g}: {error}") from None
        else:
            self.fc = nn.Linear(channels, num_classes)
        if config.auxiliary != "none":
            channels = self.encoder.features[-2].channels
            self.auxiliary = AuxiliaryHead(channels, num_classes, has_bn=config.auxiliary == "batch_norm")

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        features = self.encoder(images)
        logits: Tensor = self.fc(self.dropout(self._pooled(features[-1])))
        if self.auxiliary is None or not self.training:
            return logits
        return logits, self.auxiliary(features[-2])

    def _pooled(self, feature: Tensor) -> Tensor:
        if self.places is None:
            return feature.mean((2, 3))
        return F.adaptive_avg_pool2d(feature, self.places)  # as it is, of images of 32 * places pixels


class AuxiliaryHead(nn.Module):
    """Inception-v3's (arXiv:1512.00567, section 4; research/slim/nets/inception_v3.py): N x C x h x w, the feature of
    stride 16, to N x K logits.

    A pool of 5x5 by 3, a 1x1 conv to 128 channels, one over all 5 x 5 places to 768, and a fully connected layer.
    Where there are fewer or more than 17 x 17 places, as images of 299 give, what is pooled is brought to 5 x 5.

    Args:
        has_bn: BN behind the conv over all places, too, which acts as a fully connected layer (section 10's
            BN-auxiliary).
    """

    def __init__(self, channels: int, num_classes: int, *, has_bn: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128, 1e-3),
            nn.ReLU(),
            nn.Conv2d(128, 768, AUXILIARY_PLACES, bias=not has_bn),
            nn.BatchNorm2d(768, 1e-3) if has_bn else nn.Identity(),
            nn.ReLU(),
        )
        self.fc = nn.Linear(768, num_classes)
        trunc_normal(self.layers[0].weight, 0.01)  # type: ignore[arg-type]
        trunc_normal(self.layers[3].weight, 0.01)  # type: ignore[arg-type]
        trunc_normal(self.fc.weight, 0.001)

    def forward(self, feature: Tensor) -> Tensor:
        if min(feature.shape[2:]) >= 5:
            feature = F.avg_pool2d(feature, 5, 3)
        x = self.layers(F.adaptive_avg_pool2d(feature, AUXILIARY_PLACES))
        return self.fc(x.flatten(1))  # type: ignore[no-any-return]
