"""How the learning rate runs over the iterations."""

import math
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator

from segapp.base.config import Config


class ScheduleOptions(Config):
    """Keys that every schedule has. `slow_start_lr`: the rate of the slow start."""

    warmup_iterations: int = Field(ge=0)
    slow_start_iterations: int = Field(ge=0)
    slow_start_lr: float = Field(gt=0)

    @field_validator("slow_start_iterations")
    @classmethod
    def _one_beginning(cls, value: int, info: ValidationInfo) -> int:
        if value and info.data.get("warmup_iterations"):
            raise ValueError("a run begins with a warm-up or with a slow start; set one of them to 0")
        return value


class PolyConfig(ScheduleOptions):
    """See conf/schedule/poly.yaml."""

    name: Literal["poly"]
    power: float = Field(ge=0)


class CosineConfig(ScheduleOptions):
    """See conf/schedule/cosine.yaml."""

    name: Literal["cosine"]
    end_factor: float = Field(ge=0, le=1)


class StepConfig(ScheduleOptions):
    """See conf/schedule/step.yaml."""

    name: Literal["step"]
    milestones: tuple[Annotated[float, Field(gt=0, lt=1)], ...] = Field(min_length=1)
    gamma: float = Field(gt=0, lt=1)

    @field_validator("milestones")
    @classmethod
    def _ascending(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if any(later <= earlier for earlier, later in pairwise(value)):
            raise ValueError("each must be later than the one before it")
        return value


class StaircaseConfig(ScheduleOptions):
    """See conf/schedule/staircase.yaml."""

    name: Literal["staircase"]
    gamma: float = Field(gt=0, lt=1)
    every: int = Field(gt=0)


ScheduleConfig = Annotated[PolyConfig | CosineConfig | StepConfig | StaircaseConfig, Field(discriminator="name")]


def lr_factor(iteration: int, iterations: int, config: ScheduleConfig, lr: float) -> float:
    """What the base learning rate `lr` is multiplied by at `iteration`, from 0 to `iterations` - 1.

    The schedule's own factor, after a linear warm-up: (iteration + 1) / (warmup_iterations + 1) of it, at most 1. Or
    after a slow start at a rate of its own, behind which the schedule has the iterations that are left
    (get_model_learning_rate in research/deeplab/utils/train_utils.py).
    """
    slow = config.slow_start_iterations
    if iteration < slow:
        return config.slow_start_lr / lr
    done = (iteration - slow) / (iterations - slow)
    match config:
        case PolyConfig():
            factor: float = (1 - done) ** config.power
        case CosineConfig():
            factor = config.end_factor + (1 - config.end_factor) * (1 + math.cos(math.pi * done)) / 2
        case StepConfig():
            factor = config.gamma ** sum(done >= milestone for milestone in config.milestones)
        case StaircaseConfig():
            factor = config.gamma ** ((iteration - slow) // config.every)
    return factor * min(1.0, (iteration + 1) / (config.warmup_iterations + 1))
