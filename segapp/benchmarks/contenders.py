"""The networks that are compared: ours, and those of other libraries that are installed."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segapp.base.classes import IGNORE_INDEX
from segapp.base.errors import UserError
from segapp.models.deeplabv3plus import DeepLabV3PlusConfig
from segapp.models.head import ATROUS_RATES
from segapp.models.layers import resize
from segapp.training.losses import Loss, LossConfig
from segapp.weights.sources.timm import ENCODERS

PAPER_LOSS = Loss(
    LossConfig(
        cross_entropy=1,
        label_smoothing=0,
        top_k=1,
        top_k_iterations=0,
        class_weights="none",
        divide_by="weights",
        dice=0,
        lovasz=0,
    )
)
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

    network: Callable[[DeepLabV3PlusConfig, int, bool], nn.Module]
    loss: Callable[[Tensor, Tensor], Tensor]
    memory_format: torch.memory_format = torch.channels_last
    package: str = "segapp"

    @property
    def installed(self) -> bool:
        return importlib.util.find_spec(self.package) is not None


class Adapted(nn.Module):
    """A network that gives what contenders are compared in: logits of the image's size, or an encoder's last feature.

    Args:
        network: that does the work.
        run: gives that output of the network for N x 3 x H x W images.
    """

    def __init__(self, network: nn.Module, run: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.network = network
        self.run = run

    def forward(self, images: Tensor) -> Tensor:
        return self.run(self.network, images)


def ours(config: DeepLabV3PlusConfig, classes: int, train: bool) -> nn.Module:
    network = config.build(classes)
    if train:  # the loss resizes
        return network
    return Adapted(network, lambda network, images: resize(network(images), (images.shape[2], images.shape[3])))


def our_encoder(config: DeepLabV3PlusConfig, classes: int, train: bool) -> nn.Module:
    return Adapted(config.build(classes).encoder, lambda encoder, images: encoder(images)[-1])


def smp(config: DeepLabV3PlusConfig, classes: int, train: bool) -> nn.Module:
    _check_is_in_timm(config)
    import segmentation_models_pytorch

    network: nn.Module = segmentation_models_pytorch.DeepLabV3Plus(
        f"tu-{config.encoder.name}",
        encoder_weights=None,
        encoder_output_stride=config.output_stride,
        decoder_atrous_rates=ATROUS_RATES[config.output_stride],
        classes=classes,
    )
    return network


def timm_encoder(config: DeepLabV3PlusConfig, classes: int, train: bool) -> nn.Module:
    _check_is_in_timm(config)
    import timm

    encoder = timm.create_model(config.encoder.name, num_classes=0, output_stride=config.output_stride)
    return Adapted(encoder, lambda encoder, images: encoder.forward_features(images))


def _check_is_in_timm(config: DeepLabV3PlusConfig) -> None:
    if config.encoder not in ENCODERS:
        raise UserError(f"it has no {config.encoder.describe()}")


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return PAPER_LOSS(logits, labels, PAPER_LOSS.counts(labels))


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
