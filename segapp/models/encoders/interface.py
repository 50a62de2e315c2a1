"""What every encoder is: the head, the trainer and the weights know no more of it; docs/adding-an-encoder.md."""

from typing import NamedTuple

from pydantic import ConfigDict
from torch import nn

from segapp.base.normalization import IMAGENET as IMAGENET
from segapp.base.normalization import INCEPTION as INCEPTION
from segapp.base.normalization import Normalization as Normalization
from segapp.models.outline import EncoderOutline


class Feature(NamedTuple):
    """One tensor that an encoder gives: its channels, and the input's pixels to a step of its own."""

    channels: int
    stride: int


AT_BORDERS = ("padding", "counts_padding")
"""Keys of encoders that change values at an image's borders alone."""


class EncoderOptions(EncoderOutline):
    """The config of every encoder: all that rebuilds it but its weights and its output stride.

    Keys beside `name` are of its architecture. Their defaults are what published weights have, and what a file of
    weights means that does not say.
    """

    model_config = ConfigDict(extra="forbid")

    def build(self, output_stride: int) -> "Encoder":
        """Freshly initialised."""
        raise NotImplementedError

    @property
    def is_as_published(self) -> bool:
        """Whether published weights are for it: what is done at an image's borders leaves them as they are."""
        fields = type(self).model_fields
        return all(value == fields[key].default for key, value in self if key not in ("name", *AT_BORDERS))


class Encoder(nn.Module):
    """N x 3 x H x W, normalised, of any size, to the tensors that `features` describes, shallow to deep.

    A feature of stride s has ceil(H / s) x ceil(W / s) places. The last one is at the output stride for which the
    encoder is built, 8, 16 or 32; the weights do not depend on it. One before it has stride 4, for the decoder.

    Attributes:
        features: of what `forward` returns, in its order.
        normalization: that its published weights want.
        blocks: what it repeats, in order: units of freezing and of activation checkpointing.
    """

    features: tuple[Feature, ...]
    normalization: Normalization
    blocks: nn.ModuleList
