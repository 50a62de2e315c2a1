"""The paper's SGD: its parameter groups and its poly schedule."""

from typing import Any

import torch
from pydantic import Field
from torch import nn

from segapp.config import Config
from segapp.models.layers import DepthwiseConv2d


class OptimizerConfig(Config):
    """See conf/optimizer/sgd.yaml."""

    lr: float = Field(gt=0)
    momentum: float = Field(ge=0, lt=1)
    nesterov: bool
    weight_decay: float = Field(ge=0)
    bias_lr_factor: float = Field(gt=0)
    power: float = Field(ge=0)
    warmup_iterations: int = Field(ge=0)


def parameter_groups(model: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Decays the weights of dense and pointwise convs alone; biases run at `bias_lr_factor` times the rate.

    None on depthwise weights and BN (research/deeplab: core/xception.py's regularize_depthwise=False, and slim's
    batch_norm without a regularizer); the factor is train_utils.py's gradient multiplier for biases.
    """
    decayed: list[torch.Tensor] = []
    plain: list[torch.Tensor] = []
    biases: list[torch.Tensor] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            (plain if isinstance(module, DepthwiseConv2d) else decayed).append(module.weight)
            if module.bias is not None:
                biases.append(module.bias)
        else:
            plain.extend(module.parameters(recurse=False))
    return [
        {"params": decayed, "lr": config.lr, "weight_decay": config.weight_decay},
        {"params": plain, "lr": config.lr, "weight_decay": 0.0},
        {"params": biases, "lr": config.lr * config.bias_lr_factor, "weight_decay": 0.0},
    ]


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.SGD:
    groups = parameter_groups(model, config)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.nesterov)


def lr_factor(iteration: int, iterations: int, config: OptimizerConfig) -> float:
    """What the learning rate is multiplied by at `iteration` (from 0): poly, after a linear warm-up."""
    poly: float = (1 - iteration / iterations) ** config.power
    return poly * min(1.0, (iteration + 1) / (config.warmup_iterations + 1))
