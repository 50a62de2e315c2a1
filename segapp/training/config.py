"""What a training run is made from."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from segapp.base.config import Config, UserPath
from segapp.base.devices import DeviceName, Precision
from segapp.base.images import Decoding, JpegDecoder, WhiteLevel
from segapp.data import DataConfig
from segapp.data.loading.loader import Workers
from segapp.data.loading.transforms import TransformConfig
from segapp.evaluation.config import EvalConfig
from segapp.inference.options import InferenceConfig
from segapp.models.deeplabv3plus import DeepLabV3PlusConfig
from segapp.training.losses import LossConfig
from segapp.training.optimizers import OptimizerConfig
from segapp.training.schedules import ScheduleConfig

LESS_MEMORY = "lower batch_size or eval.batch_size, raise accumulate, or set activation_checkpointing=true"


class TrainConfig(Config):
    """See conf/train.yaml."""

    name: str
    model: DeepLabV3PlusConfig
    data: DataConfig
    transform: TransformConfig
    loss: LossConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    inference: InferenceConfig
    eval: EvalConfig
    iterations: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    accumulate: int = Field(gt=0)
    batch_norm: Literal["train", "frozen"]
    bn_momentum: float = Field(gt=0, le=1)
    recompute_bn: int = Field(ge=0)
    ema: Annotated[float, Field(gt=0, lt=1)] | None
    seed: int = Field(ge=0, lt=2**63)
    deterministic: bool
    device: DeviceName
    precision: Precision
    jpeg_decoder: JpegDecoder
    white_level: WhiteLevel
    compile: bool
    activation_checkpointing: bool
    workers: Workers
    validate_every: Annotated[int, Field(gt=0)] | None
    save_every: int = Field(gt=0)
    keep: int = Field(gt=0)
    log_every: int = Field(gt=0)
    pictures: int = Field(ge=0, le=32)
    colour_baseline: bool
    encoder_weights: str | None
    checkpoint: str | None
    offline: bool
    resume: Literal["auto"] | UserPath | None
    output: UserPath | None

    @property
    def decoding(self) -> Decoding:
        return Decoding(self.jpeg_decoder, self.white_level)

    @field_validator("inference")
    @classmethod
    def _given(cls, value: InferenceConfig) -> InferenceConfig:
        if value.side == "trained":
            raise ValueError(
                "only a checkpoint has a canvas of training; take inference=canvas or inference=full, "
                f"or give inference.{value.key} a number"
            )
        return value

    @model_validator(mode="after")
    def _agree(self) -> "TrainConfig":
        if self.batch_norm == "frozen" and self.recompute_bn:
            raise ValueError("recompute_bn counts the statistics that batch_norm=frozen keeps; set one or the other")
        if self.resume == "auto" and self.output is None:
            raise ValueError("resume=auto needs output=DIR, the folder of the run to start or to continue")
        if self.validate_every is None and self.colour_baseline:
            raise ValueError("colour_baseline is scored in validation; validate_every=null has none")
        return self


RESUME_MAY_CHANGE = frozenset(
    {
        "data.root",
        "data.cache",
        "accumulate",
        "compile",
        "activation_checkpointing",
        "eval.batch_size",
        "eval.examples",
        "colour_baseline",
        "device",
        "workers",
        "log_every",
        "validate_every",
        "save_every",
        "keep",
        "pictures",
        "offline",
    }
)
"""Keys that do not change what a run computes, but for rounding, and for BN where a micro-batch has other images."""
