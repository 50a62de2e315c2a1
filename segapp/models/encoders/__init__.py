"""Encoders by name: a config class beside each family, which builds it; docs/adding-an-encoder.md."""

from typing import Annotated

from pydantic import Field

from segapp.models.encoders.alexnet import AlexNetConfig
from segapp.models.encoders.aligned_xception import AlignedXceptionConfig
from segapp.models.encoders.channelnet import ChannelNetConfig
from segapp.models.encoders.mobilenet_v2 import MobileNetV2Config
from segapp.models.encoders.shufflenet import ShuffleNetConfig
from segapp.models.encoders.timm import TimmConfig

EncoderConfig = Annotated[
    AlexNetConfig | AlignedXceptionConfig | ChannelNetConfig | MobileNetV2Config | ShuffleNetConfig | TimmConfig,
    Field(discriminator="name"),
]
"""One class a family; each is an `EncoderOptions`."""
