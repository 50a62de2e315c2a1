"""What other networks think of a crop, as something to learn beside its labels."""

from collections.abc import Sequence
from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor

from segapp.base.classes import IGNORE_INDEX
from segapp.base.config import Config, Words
from segapp.base.errors import UserError
from segapp.inference.preprocess import normalize
from segapp.models.deeplabv3plus import DeepLabV3Plus
from segapp.models.encoders.interface import Normalization
from segapp.models.layers import resize
from segapp.weights.checkpoint import load_model


class DistillationConfig(Config):
    """See conf/task/segmentation.yaml."""

    teachers: Words
    weight: float = Field(gt=0)
    temperature: float = Field(ge=1)


class Teachers:
    """Knowledge distillation (arXiv:1503.02531): the mean of the teachers' class probabilities is learned, too.

    The loss is T^2 KL(p || q) at temperature T, p the teachers' and q the network's probabilities, a mean over the
    points of the network's logits whose pixel is labelled. Teachers keep what the labels at hand seldom show.

    Args:
        paths: of checkpoints with all of `classes`, in any order.
        classes: the network's.

    Raises:
        UserError: a checkpoint cannot be read, or has other classes.
    """

    def __init__(
        self, config: DistillationConfig, paths: Sequence[Path], classes: tuple[str, ...], device: torch.device
    ) -> None:
        self._config = config
        self._networks: list[tuple[DeepLabV3Plus, Normalization, list[int]]] = []
        for path in paths:
            network, info = load_model(path)
            if {*info.classes} != {*classes}:
                raise UserError(
                    f"distillation.teachers: {path} has the classes [{', '.join(info.classes)}], the data "
                    f"[{', '.join(classes)}]; a teacher needs the same"
                )
            order = [info.classes.index(name) for name in classes]
            network.requires_grad_(False).to(device)
            self._networks.append((network, info.normalization, order))

    def counts(self, labels: Tensor, stride: int) -> Tensor:
        """How many points `__call__` is a mean over, float32; those of a batch's parts add up.

        Args:
            labels: N x H x W uint8.
            stride: of the network's logits, in pixels.
        """
        return (labels[:, ::stride, ::stride] != IGNORE_INDEX).sum().float()

    def __call__(self, images: Tensor, logits: Tensor, labels: Tensor, count: Tensor, stride: int) -> Tensor:
        """These images' part of the weighted loss of the batch whose points `count` counts.

        Args:
            images: uint8, N x H x W x 3, H and W k * stride + 1.
            logits: the network's, N x K x h x w.
            labels: N x H x W uint8.
        """
        temperature = self._config.temperature
        log_q = (logits.to(torch.promote_types(logits.dtype, torch.float32)) / temperature).log_softmax(1)
        p = self.probabilities(images, (logits.shape[2], logits.shape[3])).to(log_q.dtype)
        valid = labels[:, ::stride, ::stride] != IGNORE_INDEX
        divergence: Tensor = (torch.special.xlogy(p, p) - p * log_q).sum(1)
        factor = self._config.weight * temperature * temperature / count.clamp(min=1)
        return divergence.masked_fill(~valid, 0).sum() * factor

    @torch.no_grad()
    def probabilities(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        """N x K x h x w float32: the teachers' mean, at `size` and their temperature."""
        found = []
        for network, normalization, order in self._networks:
            logits = network(normalize(images, normalization)).float()[:, order]
            found.append((resize(logits.contiguous(), size) / self._config.temperature).softmax(1))
        return torch.stack(found).mean(0)
