"""The networks that tools/benchmark.py times: ours, and those of peers that are installed."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segapp.base.classes import IGNORE_INDEX
from segapp.base.errors import UserError
from segapp.models.deeplabv3plus import DeepLabV3Plus, ModelConfig, build_model
from segapp.models.head import ATROUS_RATES
from segapp.training.losses import Loss, LossConfig

PAPERS = Loss(LossConfig(cross_entropy=1, label_smoothing=0, top_k=1, class_weights="none", dice=0, lovasz=0))
"""The paper's loss: that of conf/loss/cross_entropy.yaml."""


@dataclass(frozen=True)
class Contender:
    """One row of the table.

    Args:
        network: from the config, the number of classes, and whether it is to be trained.
        loss: of its output and N x H x W labels.
        memory_format: of its weights and images.
        package: what must be installed.
    """

    network: Callable[[ModelConfig, int, bool], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    memory_format: torch.memory_format = torch.channels_last
    package: str = "segapp"

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None


class FullSize(nn.Module):
    """Our network's logits at the image's size, as the peers give them."""

    def __init__(self, network: DeepLabV3Plus) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images, full_size=True)  # type: ignore[no-any-return]


class OurEncoder(nn.Module):
    """The last feature alone."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder(images)[1]  # type: ignore[no-any-return]


class TimmEncoder(nn.Module):
    """The last feature alone."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder.forward_features(images)  # type: ignore[no-any-return]


def ours(config: ModelConfig, classes: int, train: bool) -> nn.Module:
    network = build_model(config, classes)
    return network if train else FullSize(network)  # in training the loss resizes


def our_encoder(config: ModelConfig, classes: int, train: bool) -> nn.Module:
    return OurEncoder(build_model(config, classes).encoder)


def smp(config: ModelConfig, classes: int, train: bool) -> nn.Module:
    import segmentation_models_pytorch

    _only_full_width(config)
    network: nn.Module = segmentation_models_pytorch.DeepLabV3Plus(
        f"tu-{config.encoder.name}",
        encoder_weights=None,
        encoder_output_stride=config.output_stride,
        decoder_atrous_rates=ATROUS_RATES[config.output_stride],
        classes=classes,
    )
    return network


def timm_encoder(config: ModelConfig, classes: int, train: bool) -> nn.Module:
    import timm

    _only_full_width(config)
    return TimmEncoder(timm.create_model(config.encoder.name, num_classes=0, output_stride=config.output_stride))


def _only_full_width(config: ModelConfig) -> None:
    if config.encoder.width != 1:
        raise UserError("it has no other width than model.encoder.width=1")


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return PAPERS(logits, labels, PAPERS.counts(labels))


def full_size_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The same, of logits that have the labels' size."""
    return F.cross_entropy(logits.float(), labels.long(), ignore_index=IGNORE_INDEX)


def mean(features: Tensor, labels: Tensor) -> Tensor:
    """In place of a loss, where an encoder is timed alone."""
    return features.float().mean()


CONTENDERS = {
    "segapp": Contender(ours, cross_entropy),
    "smp": Contender(smp, full_size_cross_entropy, torch.contiguous_format, "segmentation_models_pytorch"),
    "smp-channels_last": Contender(smp, full_size_cross_entropy, package="segmentation_models_pytorch"),
    "segapp-encoder": Contender(our_encoder, mean),
    "timm-encoder": Contender(timm_encoder, mean, torch.contiguous_format, "timm"),
    "timm-encoder-channels_last": Contender(timm_encoder, mean, package="timm"),
}
"""smp is segmentation_models.pytorch's DeepLabV3Plus with timm's encoder and our atrous rates.

Peers are timed in PyTorch's default memory format, as they come, and in ours.
"""
