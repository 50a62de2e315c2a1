"""Image classifiers: an encoder under its own head: the mean of its last feature, dropout, a fully connected layer."""

from functools import partial
from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from segapp.base.config import Config
from segapp.base.errors import UserError
from segapp.models.encoders import EncoderConfig
from segapp.models.encoders.channelnet import ConvolutionalClassification
from segapp.models.encoders.googlenet import GoogLeNetBase
from segapp.models.encoders.interface import Encoder
from segapp.models.layers import trunc_normal


class ClassifierConfig(Config):
    """All that rebuilds it but its weights and the number of classes; see conf/model/image_classifier.yaml.

    `places`: in height and width, of the feature that ChannelNet-v3's classification layer takes; others are brought
    to it. `auxiliary`: another head with which the network is trained; see `auxiliary_of`.
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
    """N x 3 x H x W, normalised, to N x K logits; in training with auxiliary heads also to those of each.

    Args:
        num_classes: K; 0 for the encoder alone, which has no such layer and cannot be called.
    """

    def __init__(self, config: ClassifierConfig, num_classes: int) -> None:
        super().__init__()
        self.encoder: Encoder = config.encoder.build(32)
        self.dropout = nn.Dropout(config.dropout)
        self.places = config.places if config.encoder.name == "channelnet_v3" else None
        self.auxiliary: nn.Module | None = None
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
            self.auxiliary = auxiliary_of(self.encoder, num_classes, has_bn=config.auxiliary == "batch_norm")

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, ...]:
        if self.auxiliary is None or not self.training:
            return self._logits(self.encoder(images)[-1])
        if isinstance(self.auxiliary, nn.ModuleList):
            assert isinstance(self.encoder, GoogLeNetBase)
            *wanted, _ = self.encoder.auxiliary
            *middle, last = self.encoder.outputs(images, [*wanted, True])
            return self._logits(last), *(head(each) for head, each in zip(self.auxiliary, middle, strict=True))
        features = self.encoder(images)
        return self._logits(features[-1]), self.auxiliary(features[-2])

    def _logits(self, feature: Tensor) -> Tensor:
        return self.fc(self.dropout(self._pooled(feature)))  # type: ignore[no-any-return]

    def _pooled(self, feature: Tensor) -> Tensor:
        if self.places is None:
            return feature.mean((2, 3))
        return F.adaptive_avg_pool2d(feature, self.places)  # as it is, of images of 32 * places pixels


def auxiliary_of(encoder: Encoder, num_classes: int, *, has_bn: bool) -> nn.Module:
    """A head on the feature before the last, Inception-v3's; for GoogLeNet its own, one behind each of two units.

    Args:
        has_bn: of Inception-v3 BN behind the conv over all places, too, which acts as a fully connected layer
            (arXiv:1512.00567, section 10's BN-auxiliary); of GoogLeNet behind the 1x1 conv, as torchvision has it.
    """
    if not isinstance(encoder, GoogLeNetBase):
        # Section 4, and research/slim/nets/inception_v3.py.
        return AuxiliaryHead(encoder.features[-2].channels, num_classes, places=5, wide=768, bn=(True, has_bn))
    inputs = [channels for channels, is_at in zip(encoder.channels, encoder.auxiliary, strict=True) if is_at]
    # arXiv:1409.4842, section 5.
    own = partial(AuxiliaryHead, num_classes=num_classes, places=4, wide=1024, bn=(has_bn, False), dropout=0.7)
    return nn.ModuleList(map(own, inputs))


class AuxiliaryHead(nn.Module):
    """N x C x h x w, a feature of stride 16, to N x K logits: a pool of 5x5 by 3, a 1x1 conv to 128 channels, one over
    all places, dropout and a fully connected layer.

    Args:
        places: in height and width, of what is pooled from images as large as the published networks'; of others it
            is brought to as many.
        wide: channels of the conv over all places.
        bn: behind the 1x1 conv, and behind that one.
    """

    def __init__(
        self, channels: int, num_classes: int, *, places: int, wide: int, bn: tuple[bool, bool], dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.places = places
        self.layers = nn.Sequential(
            nn.Conv2d(channels, 128, 1, bias=not bn[0]),
            nn.BatchNorm2d(128, 1e-3) if bn[0] else nn.Identity(),
            nn.ReLU(),
            nn.Conv2d(128, wide, places, bias=not bn[1]),
            nn.BatchNorm2d(wide, 1e-3) if bn[1] else nn.Identity(),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.fc = nn.Linear(wide, num_classes)
        trunc_normal(self.layers[0].weight, 0.01)  # type: ignore[arg-type]
        trunc_normal(self.layers[3].weight, 0.01)  # type: ignore[arg-type]
        trunc_normal(self.fc.weight, 0.001)

    def forward(self, feature: Tensor) -> Tensor:
        if min(feature.shape[2:]) >= 5:
            feature = F.avg_pool2d(feature, 5, 3)
        x = self.layers(F.adaptive_avg_pool2d(feature, self.places))
        return self.fc(x.flatten(1))  # type: ignore[no-any-return]
