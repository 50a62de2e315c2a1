"""What a training run is made from."""

from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import AfterValidator, Field, model_validator

from segapp.base.config import Config, UserPath
from segapp.base.devices import DeviceName, Precision
from segapp.base.images import Decoding, JpegDecoder, WhiteLevel
from segapp.data.config import AnyDataConfig, DataConfig
from segapp.data.formats.image_folder import ImageFolderConfig
from segapp.data.loading.loader import Workers
from segapp.data.loading.transforms import TransformConfig
from segapp.evaluation.config import EvalConfig, EvalOptions
from segapp.inference.options import InferenceConfig, InferenceOptions, Resized, check_whole
from segapp.models.classifier import ClassifierConfig
from segapp.models.deeplabv3plus import DeepLabV3PlusConfig
from segapp.training.distillation import DistillationConfig
from segapp.training.losses import LossConfig
from segapp.training.optimizers import OptimizerConfig
from segapp.training.schedules import ScheduleConfig
from segapp.weights.checkpoint import Network

LESS_MEMORY = "lower batch_size or eval.batch_size, raise accumulate, or set activation_checkpointing=true"

I = TypeVar("I", bound=InferenceOptions)  # noqa: E741


class TrainConfig(Config):
    """What every task's run has; see conf/train.yaml."""

    name: str
    model: Network
    data: AnyDataConfig
    transform: TransformConfig
    loss: LossConfig
    optimizer: OptimizerConfig
    schedule: ScheduleConfig
    eval: EvalOptions
    iterations: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    accumulate: int = Field(gt=0)
    batch_norm: Literal["train", "frozen"]
    freeze_encoder_iterations: int = Field(default=0, ge=0)
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
    encoder_weights: str | None
    checkpoint: str | None
    offline: bool
    resume: Literal["auto"] | UserPath | None
    output: UserPath | None

    @property
    def decoding(self) -> Decoding:
        return Decoding(self.jpeg_decoder, self.white_level)

    @classmethod
    def kind_of(cls, values: dict[str, Any]) -> type[Self]:
        """The chosen task's; segmentation's where nobody chose, as before there were others."""
        kind = TASKS.get(values.get("task", "segmentation"), cls)
        return kind if issubclass(kind, cls) else cls

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.batch_norm == "frozen" and self.recompute_bn:
            raise ValueError("recompute_bn counts the statistics that batch_norm=frozen keeps; set one or the other")
        if self.resume == "auto" and self.output is None:
            raise ValueError("resume=auto needs output=DIR, the folder of the run to start or to continue")
        return self


def _given(value: I) -> I:
    if value.side == "trained":
        raise ValueError(
            "only a checkpoint has a canvas of training; take inference=canvas or inference=full, "
            f"or give inference.{value.key} a number"
        )
    return value


class SegmentConfig(TrainConfig):
    """See conf/task/segmentation.yaml."""

    task: Literal["segmentation"] = "segmentation"
    model: DeepLabV3PlusConfig
    data: DataConfig
    inference: Annotated[InferenceConfig, AfterValidator(_given), AfterValidator(check_whole)]
    eval: EvalConfig
    colour_baseline: bool
    distillation: DistillationConfig = DistillationConfig(teachers=(), weight=1, temperature=1)

    @model_validator(mode="after")
    def _validated(self) -> Self:
        if self.validate_every is None and self.colour_baseline:
            raise ValueError("colour_baseline is scored in validation; validate_every=null has none")
        return self


class ClassifyConfig(TrainConfig):
    """See conf/task/classification.yaml."""

    task: Literal["classification"]
    model: ClassifierConfig
    data: ImageFolderConfig
    inference: Annotated[Resized, AfterValidator(_given)]
    auxiliary_loss: float = Field(gt=0)

    @model_validator(mode="after")
    def _of_images(self) -> Self:
        usual = {"cross_entropy": 1, "top_k": 1, "dice": 0, "lovasz": 0}
        for key, value in usual.items():
            given = getattr(self.loss, key)
            if given != value:
                raise ValueError(f"loss.{key}={given} is for pixels; task=classification takes {value}")
        return self


TASKS: dict[str, type[TrainConfig]] = {"segmentation": SegmentConfig, "classification": ClassifyConfig}

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
