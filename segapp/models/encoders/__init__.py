"""Encoders by name: a config class beside each family, which builds it; docs/adding-an-encoder.md."""

from typing import Annotated

from pydantic import Field

from segapp.models.encoders.aligned_xception import AlignedXceptionConfig
from segapp.models.encoders.mobilenet_v2 import MobileNetV2Config

EncoderConfig = Annotated[AlignedXceptionConfig | MobileNetV2Config, Field(discriminator="name")]
"""One class a family; each is an `EncoderOptions`."""
