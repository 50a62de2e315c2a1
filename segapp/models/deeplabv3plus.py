"""DeepLabV3+ around any encoder, and its construction from plain arguments."""

from typing import Annotated, Any, Literal

import torch
from pydantic import BeforeValidator, Field
from torch import Tensor, nn

from segapp.base.config import Config
from segapp.base.errors import UserError
from segapp.models.deformable import Version, deform_last_stage
from segapp.models.encoders import EncoderConfig
from segapp.models.encoders.interface import Encoder, Feature
from segapp.models.head import ASPP, Decoder, DensePredictionCell
from segapp.models.outline import LOW_LEVEL_STRIDE


class ASPPConfig(Config):
    """See conf/model/aspp/aspp.yaml."""

    name: Literal["aspp"]
    channels: int = Field(gt=0, le=4096)
    separable: bool
    image_pooling: bool
    atrous: bool = True
    dropout: float = Field(ge=0, lt=1)
    deformable: Version | None = None

    def build(self, in_channels: int, output_stride: int) -> ASPP:
        return ASPP(
            in_channels,
            self.channels,
            output_stride=output_stride,
            separable=self.separable,
            image_pooling=self.image_pooling,
            atrous=self.atrous,
            dropout=self.dropout,
            deformable=self.deformable,
        )


class DensePredictionCellConfig(Config):
    """See conf/model/aspp/dense_prediction_cell.yaml."""

    name: Literal["dense_prediction_cell"]
    channels: int = Field(gt=0, le=4096)
    dropout: float = Field(ge=0, lt=1)

    def build(self, in_channels: int, output_stride: int) -> DensePredictionCell:
        """Raises:
        UserError: at output stride 32, where its rates would be half of odd numbers.
        """
        if output_stride == 32:
            raise UserError("model/aspp=dense_prediction_cell has rates for output strides 16 and 8, not 32")
        return DensePredictionCell(in_channels, self.channels, output_stride=output_stride, dropout=self.dropout)


def _named(value: Any) -> Any:
    """What was written while there was one kind alone does not name it."""
    return {"name": "aspp"} | value if isinstance(value, dict) else value


class DecoderConfig(Config):
    """`low_level_stride`: the low-level feature is the encoder's deepest one of this stride."""

    channels: int = Field(gt=0, le=4096)
    low_level_channels: int = Field(gt=0, le=4096)
    low_level_stride: int = Field(default=LOW_LEVEL_STRIDE, ge=2, le=16)
    separable: bool


class DeepLabV3PlusConfig(Config):
    """All that rebuilds a network but its weights and the number of classes; see conf/model."""

    kind: Literal["deeplabv3plus"] = "deeplabv3plus"
    encoder: EncoderConfig
    deformable: Version | None = None
    output_stride: Literal[8, 16, 32]
    aspp: Annotated[ASPPConfig | DensePredictionCellConfig, Field(discriminator="name"), BeforeValidator(_named)]
    decoder: DecoderConfig | None

    def build_encoder(self) -> Encoder:
        """Freshly initialised, its last stage deformable if asked.

        Raises:
            UserError: it has no feature of the output stride, or no 3x3 convolutions to deform.
        """
        encoder = self.encoder.build(self.output_stride)
        if self.deformable is not None:
            with torch.device("meta"):
                try:
                    reference = self.encoder.build(32)
                except UserError:  # it has no feature of stride 32
                    reference = self.encoder.build(16)
            deform_last_stage(encoder, reference, self.deformable)
        return encoder

    def build(self, num_classes: int) -> "DeepLabV3Plus":
        """Freshly initialised.

        Raises:
            UserError: the encoder has no feature of `decoder.low_level_stride`, or the head no rates for the output
                stride.
        """
        encoder = self.build_encoder()
        aspp = self.aspp.build(encoder.features[-1].channels, self.output_stride)
        if self.decoder is None:
            return DeepLabV3Plus(encoder, aspp, None, 0, self.aspp.channels, num_classes)
        low_level = low_level_place(encoder.features, self.decoder.low_level_stride)
        decoder = Decoder(
            self.aspp.channels,
            encoder.features[low_level].channels,
            self.decoder.channels,
            low_level_channels=self.decoder.low_level_channels,
            separable=self.decoder.separable,
        )
        return DeepLabV3Plus(encoder, aspp, decoder, low_level, self.decoder.channels, num_classes)


def low_level_place(features: tuple[Feature, ...], stride: int) -> int:
    """Where the deepest feature of this stride is, the last one, which the ASPP has, left out.

    Raises:
        UserError: there is none.
    """
    places = [at for at, feature in enumerate(features[:-1]) if feature.stride == stride]
    if not places:
        strides = ", ".join(str(feature.stride) for feature in features[:-1])
        raise UserError(f"model.decoder.low_level_stride={stride}: this encoder has features of stride {strides}")
    return places[-1]


class DeepLabV3Plus(nn.Module):
    """N x 3 x H x W, normalised, of any size, to N x K logits at `logits_stride`.

    Args:
        encoder: gives features, shallow to deep.
        aspp: maps the deepest one to `channels` channels, or what the decoder takes.
        decoder: joins that with the low-level feature, or None for the paper's ablation.
        low_level: which of the encoder's features is the low-level one.
        channels: of what enters the logits layer.
        num_classes: K.

    Attributes:
        logits_stride: the image's pixels to a step of the logits: that of the low-level feature, without a decoder
            the output stride.
    """

    def __init__(
        self,
        encoder: Encoder,
        aspp: ASPP | DensePredictionCell,
        decoder: Decoder | None,
        low_level: int,
        channels: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.aspp = aspp
        self.decoder = decoder
        self.low_level = low_level
        self.logits_stride = encoder.features[-1 if decoder is None else low_level].stride
        self.logits = nn.Conv2d(channels, num_classes, 1)
        nn.init.trunc_normal_(self.logits.weight, std=0.01, a=-0.02, b=0.02)
        nn.init.zeros_(self.logits.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        features = self.encoder(images)
        x = self.aspp(features[-1])
        if self.decoder is not None:
            x = self.decoder(x, features[self.low_level])
        return self.logits(x)  # type: ignore[no-any-return]
