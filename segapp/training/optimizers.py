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

    `encoder_lr_factor`: of all that the encoder has, on top of the others: below 1 where it is pretrained and the
    head is not.
    `offset_lr_factor`: of what moves the taps of deformable convolutions; 0.1 in arXiv:1811.11168, Section 3.1.
    `clip_norm`: the most that the L2 norm of all gradients may be; None: any.
    """

    lr: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    bias_lr_factor: float = Field(gt=0)
    encoder_lr_factor: float = Field(default=1.0, gt=0)
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


class RMSPropConfig(OptimizerOptions):
    """See conf/optimizer/rmsprop.yaml."""

    name: Literal["rmsprop"]
    decay: float = Field(ge=0, lt=1)
    momentum: float = Field(ge=0, lt=1)
    eps: float = Field(gt=0)


OptimizerConfig = Annotated[SGDConfig | AdamWConfig | RMSPropConfig, Field(discriminator="name")]


def parameter_groups(model: nn.Module, config: OptimizerOptions) -> list[dict[str, Any]]:
    """Decays the weights of dense and pointwise convs and of fully connected layers alone; biases run at
    `bias_lr_factor` times the rate, what moves the taps of deformable convs at `offset_lr_factor` times it, and all of
    the encoder at `encoder_lr_factor` times its own.

    No decay on depthwise weights and BN (research/deeplab: core/xception.py's regularize_depthwise=False, and slim's
    batch_norm without a regularizer); the factors are train_utils.py's gradient multipliers, that of the encoder seen
    from the other side, last_layer_gradient_multiplier. Frozen parameters are in no group.

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
    if config.encoder_lr_factor != 1:
        kinds = [part for kind in kinds for part in _apart(kind, model, config.encoder_lr_factor)]
    return [
        {"params": params, "lr": config.lr * factor, "base_lr": config.lr * factor, "weight_decay": decay}
        for params, factor, decay in kinds
    ]


Kind = tuple[list[Tensor], float, float]
"""Parameters, their factor of the rate, and their decay."""


def _apart(kind: Kind, model: nn.Module, encoder_factor: float) -> list[Kind]:
    """The head's of these parameters, and the encoder's at their own factor; neither where it has none."""
    params, factor, decay = kind
    encoder = {id(each) for each in model.get_submodule("encoder").parameters()}
    head = [each for each in params if id(each) not in encoder]
    rest = [each for each in params if id(each) in encoder]
    return [part for part in ((head, factor, decay), (rest, factor * encoder_factor, decay)) if part[0]]


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
        case RMSPropConfig():
            return RMSProp(groups, lr=config.lr, decay=config.decay, momentum=config.momentum, eps=config.eps)


class RMSProp(torch.optim.Optimizer):
    """TensorFlow's form (tensorflow/core/kernels/training_ops.cc, ApplyRMSProp), which eps=1 belongs to.

    The mean square of the gradients begins at 1, eps stands under the root, and the momentum holds steps with their
    rate: mean = decay mean + (1 - decay) g^2; step = momentum step + lr g / sqrt(mean + eps); w = w - step.
    torch.optim.RMSprop begins at 0, adds eps to the root, and holds no rate.

    Args:
        params: as of any optimizer of torch; each group may have a weight decay of its own, which is added to the
            gradient.
    """

    def __init__(self, params: Any, *, lr: float, decay: float, momentum: float, eps: float) -> None:
        super().__init__(params, {"lr": lr, "decay": decay, "momentum": momentum, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            params = [each for each in group["params"] if each.grad is not None]
            if not params:
                continue
            for each in params:
                if not self.state[each]:
                    self.state[each] |= {"square": torch.ones_like(each), "step": torch.zeros_like(each)}
            squares, steps = ([self.state[each][name] for each in params] for name in ("square", "step"))
            gradients = torch._foreach_add([each.grad for each in params], params, alpha=group["weight_decay"])
            torch._foreach_mul_(squares, group["decay"])
            torch._foreach_addcmul_(squares, gradients, gradients, 1 - group["decay"])
            roots = torch._foreach_sqrt(torch._foreach_add(squares, group["eps"]))
            torch._foreach_mul_(steps, group["momentum"])
            torch._foreach_addcdiv_(steps, gradients, roots, group["lr"])
            torch._foreach_sub_(params, steps)
