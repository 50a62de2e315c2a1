"""What is to be known of a network to run an export of it: read without PyTorch, whose import takes seconds."""

from typing import Literal

from pydantic import ConfigDict, Field

from segapp.base.config import Config

LOW_LEVEL_STRIDE = 4
"""Of the feature that the decoder takes, where a config does not say."""
OUTPUT_STRIDES = (8, 16, 32)


class _Outline(Config):
    """Other keys are kept and not looked into: the network's own config does so, where it is built."""

    model_config = ConfigDict(extra="allow")


class EncoderOutline(_Outline):
    name: str

    def describe(self) -> str:
        """As in "xception41 of width 0.25"."""
        keys = ((key, f"{value:g}" if isinstance(value, float) else value) for key, value in self if key != "name")
        return " ".join([self.name, *(f"of {key} {value}" for key, value in keys)])


class DecoderOutline(_Outline):
    low_level_stride: int = Field(default=LOW_LEVEL_STRIDE, ge=2, le=16)


class NetworkOutline(_Outline):
    """Part of `DeepLabV3PlusConfig` or `ClassifierConfig`; the latter has no output stride."""

    kind: Literal["deeplabv3plus", "classifier"]
    encoder: EncoderOutline
    output_stride: Literal[8, 16, 32] | None = None
    decoder: DecoderOutline | None = None
