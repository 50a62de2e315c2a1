"""What moves the weights, at which share of the rate, and which of them decay."""

from typing import Annotated, Any, Literal

import torch
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor, nn

from segapp.base.config import Config
from segapp.models.deformable import OffsetConv2d
from segapp.models.layers import is_depthwise


class OptimizerOptions(Config):
    """Keys that every optimizer has.

    `offset_lr_factor`: of what moves the taps of deformable convolutions; 0.1 in arXiv:1811.11168, Section 3.1.
    `clip_norm`: the most that the L2 norm of all gradients may be; None: any.
    """

    lr: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    bias_lr_factor: float = Field(gt=0)
    offset_lr_factor: float = Field(default=0.1, gt=0)
    clip_norm: float | None = Field(gt=0)


class SGDConfig(OptimizerOptions):
    """See conf/optimizer/sgd.yaml."""

    name: Literal["sgd"]
    momentum: float = Field(ge=0, lt=1)
    nesterov: bool

    @field_validator("nesterov")
    @classmethod
    def _has_momentum(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("momentum") == 0:
            raise ValueError("it needs a momentum above 0; take false")
        return value


class AdamWConfig(OptimizerOptions):
    """See conf/optimizer/adamw.yaml."""

    name: Literal["adamw"]
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]]
    eps: float = Field(gt=0)


OptimizerConfig = Annotated[SGDConfig | AdamWConfig, Field(discriminator="name")]


def parameter_groups(model: nn.Module, config: OptimizerOptions) -> list[dict[str, Any]]:
    """Decays the weights of dense and pointwise convs and of fully connected layers alone; biases run at
    `bias_lr_factor` times the rate, what moves the taps of deformable convs at `offset_lr_factor` times it.

    No decay on depthwise weights and BN (research/deeplab: core/xception.py's regularize_depthwise=False, and slim's
    batch_norm without a regularizer); the factor is train_utils.py's gradient multiplier for biases. Frozen
    parameters are in no group.

    Returns:
        Groups for torch.optim. "base_lr" stays as it is while a schedule sets "lr" to its share of it.
    """
    decayed: list[Tensor] = []
    plain: list[Tensor] = []
    biases: list[Tensor] = []
    offsets: list[Tensor] = []
    offset_biases: list[Tensor] = []
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad:
                continue
            if isinstance(module, OffsetConv2d):
                (offset_biases if name == "bias" else offsets).append(parameter)
            elif not isinstance(module, nn.Conv2d | nn.Linear):
                plain.append(parameter)
            elif name == "bias":
                biases.append(parameter)
            else:
                (plain if is_depthwise(module) else decayed).append(parameter)
    kinds = [(decayed, 1.0, config.weight_decay), (plain, 1.0, 0.0), (biases, config.bias_lr_factor, 0.0)]
    if offsets:
        factor = config.offset_lr_factor
        kinds += [(offsets, factor, config.weight_decay), (offset_biases, factor, 0.0)]
    return [
        {"params": params, "lr": config.lr * factor, "base_lr": config.lr * factor, "weight_decay": decay}
        for params, factor, decay in kinds
    ]


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Of the parameters that are not frozen, where they lie; in one kernel on CUDA."""
    groups = parameter_groups(model, config)
    fused = True if next(model.parameters()).is_cuda else None
    match config:
        case SGDConfig():
            return torch.optim.SGD(
                groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov, fused=fused
            )
        case AdamWConfig():
            return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, fused=fused)
