"""What an evaluation is made from."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from segapp.base.config import Config, UserPath, Words
from segapp.base.errors import first_twice
from segapp.data.config import AnyDataConfig
from segapp.data.dataset import SegmentationDataset
from segapp.data.formats.image_folder import ImageFolderConfig
from segapp.data.loading.loader import Workers
from segapp.inference.open import PredictorOptions


class EvalOptions(Config):
    """What every evaluation has; see conf/eval.yaml."""

    batch_size: int = Field(gt=0)
    examples: int = Field(ge=0, le=100)


class EvalConfig(EvalOptions):
    """What is measured, and what of it is shown; see conf/eval.yaml."""

    classes: Words | None
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

    data: AnyDataConfig
    eval: EvalConfig
    checkpoint: str
    predictions: UserPath | None
    against: UserPath | None
    table5: bool
    workers: Workers
    offline: bool
    resume: Literal["auto"] | UserPath | None
    output: UserPath | None

    @property
    def of_classes(self) -> bool:
        """Whether classifiers are scored, and not networks that segment."""
        return isinstance(self.data, ImageFolderConfig)

    def dataset(self) -> SegmentationDataset:
        """What networks that segment are scored on."""
        assert not isinstance(self.data, ImageFolderConfig)
        return self.data.dataset("val")

    @model_validator(mode="after")
    def _agree(self) -> "EvalToolConfig":
        others = {
            "predictions": self.predictions,
            "against": self.against,
            "table5": self.table5 or None,
            "resume": self.resume,
            "eval.classes": self.eval.classes,
        }
        given = [name for name, value in others.items() if value is not None]
        if self.of_classes and given:
            raise ValueError(f"{given[0]} is for segmentation, and data=image_folder for classification; leave it")
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
