"""Encoders by name: a config class beside each family, which builds it; docs/adding-an-encoder.md."""

from segapp.models.encoders.aligned_xception import AlignedXceptionConfig

EncoderConfig = AlignedXceptionConfig
