"""How the learning rate runs over the iterations."""

import math
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import Field, field_validator

from segapp.base.config import Config


class ScheduleOptions(Config):
    """Keys that every schedule has."""

    warmup_iterations: int = Field(ge=0)


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


ScheduleConfig = Annotated[PolyConfig | CosineConfig | StepConfig, Field(discriminator="name")]


def lr_factor(iteration: int, iterations: int, config: ScheduleConfig) -> float:
    """What the base learning rate is multiplied by at `iteration`, from 0 to `iterations` - 1.

    The schedule's own factor, after a linear warm-up: (iteration + 1) / (warmup_iterations + 1) of it, at most 1.
    """
    done = iteration / iterations
    match config:
        case PolyConfig():
            factor: float = (1 - done) ** config.power
        case CosineConfig():
            factor = config.end_factor + (1 - config.end_factor) * (1 + math.cos(math.pi * done)) / 2
        case StepConfig():
            factor = config.gamma ** sum(done >= milestone for milestone in config.milestones)
    return factor * min(1.0, (iteration + 1) / (config.warmup_iterations + 1))
