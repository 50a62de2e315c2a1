"""DeepLabV3+, and its construction from plain arguments."""

from typing import Literal

from pydantic import Field
from torch import Tensor, nn

from segapp.base.config import Config
from segapp.models.encoders.aligned_xception import XCEPTIONS, AlignedXception
from segapp.models.head import ASPP, Decoder


class DeepLabV3Plus(nn.Module):
    """N x 3 x H x W in [-1, 1], of any size, to N x K logits.

    Args:
        encoder: gives a low-level feature and a high-level one.
        aspp: maps the high-level one to `channels` channels.
        decoder: joins the two, or None for the paper's ablation.
        channels: of what enters the logits layer.
        num_classes: K.
    """

    def __init__(
        self, encoder: AlignedXception, aspp: ASPP, decoder: Decoder | None, channels: int, num_classes: int
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.aspp = aspp
        self.decoder = decoder
        self.logits = nn.Conv2d(channels, num_classes, 1)
        nn.init.trunc_normal_(self.logits.weight, std=0.01, a=-0.02, b=0.02)
        nn.init.zeros_(self.logits.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """Logits at stride 4, at the output stride without a decoder."""
        low_level, x = self.encoder(images)
        x = self.aspp(x)
        if self.decoder is not None:
            x = self.decoder(x, low_level)
        logits: Tensor = self.logits(x)
        return logits


class EncoderConfig(Config):
    """`weights`: what training starts from, a file or a name; a checkpoint's own description has None."""

    name: Literal["xception41", "xception65", "xception71"]
    width: float = Field(gt=0, le=4)
    weights: str | None = None


class ASPPConfig(Config):
    channels: int = Field(gt=0, le=4096)
    separable: bool
    image_pooling: bool
    dropout: float = Field(ge=0, lt=1)


class DecoderConfig(Config):
    channels: int = Field(gt=0, le=4096)
    low_level_channels: int = Field(gt=0, le=4096)
    separable: bool


class ModelConfig(Config):
    """Everything that rebuilds a network but its weights and the number of classes; see conf/model."""

    name: Literal["deeplabv3plus"]
    encoder: EncoderConfig
    output_stride: Literal[8, 16, 32]
    aspp: ASPPConfig
    decoder: DecoderConfig | None
    bn_momentum: float = Field(gt=0, le=1)
    activation_checkpointing: bool


def build_encoder(config: EncoderConfig) -> AlignedXception:
    """A freshly initialised encoder, as for ImageNet."""
    return AlignedXception(XCEPTIONS[config.name], output_stride=32, width=config.width)


def build_model(config: ModelConfig, num_classes: int) -> DeepLabV3Plus:
    """A freshly initialised network."""
    encoder = AlignedXception(
        XCEPTIONS[config.encoder.name],
        output_stride=config.output_stride,
        width=config.encoder.width,
        momentum=config.bn_momentum,
        activation_checkpointing=config.activation_checkpointing,
    )
    aspp = ASPP(
        encoder.out_channels,
        config.aspp.channels,
        output_stride=config.output_stride,
        separable=config.aspp.separable,
        image_pooling=config.aspp.image_pooling,
        dropout=config.aspp.dropout,
        momentum=config.bn_momentum,
    )
    decoder, channels = None, config.aspp.channels
    if config.decoder is not None:
        channels = config.decoder.channels
        decoder = Decoder(
            config.aspp.channels,
            encoder.low_level_channels,
            channels,
            low_level_channels=config.decoder.low_level_channels,
            separable=config.decoder.separable,
            momentum=config.bn_momentum,
        )
    return DeepLabV3Plus(encoder, aspp, decoder, channels, num_classes)
