"""What an evaluation is made from."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from segapp.base.config import Config, UserPath, Words
from segapp.base.errors import first_twice
from segapp.data import DataConfig
from segapp.data.loading.loader import Workers
from segapp.inference.open import PredictorOptions


class EvalConfig(Config):
    """What is measured, and what of it is shown; see conf/eval.yaml."""

    batch_size: int = Field(gt=0)
    classes: Words | None
    examples: int = Field(ge=0, le=100)
    detailed: bool
    trimap_widths: tuple[Annotated[int, Field(gt=0, le=1000)], ...] = Field(max_length=100)

    @field_validator("trimap_widths")
    @classmethod
    def _rising(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if list(value) != sorted(set(value)):
            raise ValueError("widths rise from each to the next")
        return value

    @field_validator("classes")
    @classmethod
    def _once(cls, value: Words | None) -> Words | None:
        if value is not None and len(set(value)) < len(value):
            raise ValueError(f"{first_twice(value)} is named twice")
        return value

    @property
    def plain(self) -> Self:
        """Without what a validation amid training has no use for."""
        return self.model_copy(update={"examples": 0, "detailed": False})


class EvalToolConfig(PredictorOptions):
    """What is scored, on which images and how; see conf/eval.yaml."""

    data: DataConfig
    eval: EvalConfig
    checkpoint: str
    predictions: UserPath | None
    against: UserPath | None
    table5: bool
    workers: Workers
    offline: bool
    resume: Literal["auto"] | UserPath | None
    output: UserPath | None

    @model_validator(mode="after")
    def _agree(self) -> "EvalToolConfig":
        if self.against is not None and not self.eval.detailed:
            raise ValueError("against compares image by image, which takes eval.detailed=true")
        if self.table5 and (self.predictions is not None or self.output_stride is not None):
            raise ValueError(
                "table5=true scores a network at output strides 16 and 8; leave predictions and output_stride"
            )
        if self.table5 and self.runtime not in ("auto", "torch"):
            raise ValueError(f"table5=true counts PyTorch's multiply-adds; leave runtime={self.runtime}")
        if self.resume == "auto" and self.output is None:
            raise ValueError("resume=auto needs output=DIR, the folder of the evaluation to start or to go on with")
        return self


RESUME_MAY_CHANGE = frozenset(
    {
        "checkpoint",
        "against",
        "data.root",
        "data.cache",
        "eval.batch_size",
        "eval.classes",
        "eval.examples",
        "device",
        "workers",
        "offline",
    }
)
"""Keys that do not change what is counted, but for rounding. The weights are told by what is in them."""
