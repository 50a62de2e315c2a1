"""Encoders by name: a config class beside each family, which builds it; docs/adding-an-encoder.md."""

from typing import Annotated

from pydantic import Field

from segapp.models.encoders.alexnet import AlexNetConfig
from segapp.models.encoders.aligned_xception import AlignedXceptionConfig
from segapp.models.encoders.channelnet import ChannelNetConfig
from segapp.models.encoders.googlenet import GoogLeNetConfig, TorchvisionGoogLeNetConfig
from segapp.models.encoders.inception_v3 import InceptionV3Config
from segapp.models.encoders.mobilenet_v2 import MobileNetV2Config
from segapp.models.encoders.shufflenet import ShuffleNetConfig
from segapp.models.encoders.timm import TimmConfig
from segapp.models.encoders.xception import XceptionConfig

EncoderConfig = Annotated[
    AlexNetConfig
    | AlignedXceptionConfig
    | ChannelNetConfig
    | GoogLeNetConfig
    | InceptionV3Config
    | MobileNetV2Config
    | ShuffleNetConfig
    | TimmConfig
    | TorchvisionGoogLeNetConfig
    | XceptionConfig,
    Field(discriminator="name"),
]
"""One class a family; each is an `EncoderOptions`."""
