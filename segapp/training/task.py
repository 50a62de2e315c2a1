"""What is learned, and by which metric it is judged: the trainer knows no more of it."""

import math
from dataclasses import dataclass
from typing import ClassVar, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from segapp.base.distributed import Processes
from segapp.data.dataset import ClassificationDataset, SegmentationDataset
from segapp.training.losses import AnyLoss
from segapp.training.stopping import StopRequest
from segapp.weights.checkpoint import CheckpointInfo

EMA = "ema_"
"""What the metrics of the moving average's weights begin with; those of the network as it is have no prefix."""


@dataclass(frozen=True)
class Metric:
    """`key`: in logs and checkpoints. `title`: for people. The higher, the better."""

    key: str
    title: str


R = TypeVar("R", covariant=True)


class Task(Protocol[R]):
    """What the trainer asks for: a loss to minimise, and validation of the network, and of its moving average.

    Attributes:
        networks: those that are validated, by the prefix of their metrics: "" and EMA.
        validates: whether there is anything to validate on.
        data_name: of what is validated on.
    """

    @property
    def metric(self) -> Metric: ...

    @property
    def loss(self) -> AnyLoss: ...

    @property
    def networks(self) -> dict[str, nn.Module]: ...

    @property
    def validates(self) -> bool: ...

    @property
    def data_name(self) -> str: ...

    def validate(self, prefix: str, stop: StopRequest) -> dict[str, float]:
        """One network's metrics, by key without prefix; the metric that judges is among them.

        Raises:
            Stopped: a signal has come meanwhile.
        """
        ...

    def final(self) -> R:
        """The result that is reported, of the network."""
        ...

    def pictures(self) -> npt.NDArray[np.uint8] | None:
        """A few examples with what the network makes of them now, H x W x 3 RGB; None without any."""
        ...

    def add(self, prefix: str, network: nn.Module) -> None:
        """Moves a network to the device, to be validated with the others."""
        ...

    def describe(self, iteration: int, score: float | None) -> CheckpointInfo:
        """What stands beside the weights as they are after `iteration`."""
        ...


Config = TypeVar("Config")
Loss = TypeVar("Loss", bound=AnyLoss)
Data = TypeVar("Data", bound=SegmentationDataset | ClassificationDataset)
AnyPredictor = TypeVar("AnyPredictor")


class ScoredTask(Generic[Config, Loss, Data, AnyPredictor]):
    """What tasks share, whatever is learned.

    Args:
        loss: on logits and labels.
        validation: None where nothing is scored.
        description: of the weights, but for their iteration and score.
        device: on which networks are validated.
    """

    metric: ClassVar[Metric]

    def __init__(
        self,
        config: Config,
        loss: Loss,
        validation: Data | None,
        description: CheckpointInfo,
        *,
        device: torch.device,
        processes: Processes,
    ) -> None:
        self.config = config
        self.loss = loss
        self.validation = validation
        self.description = description
        self.device = device
        self.processes = processes
        self.networks: dict[str, nn.Module] = {}
        self._predictors: dict[str, AnyPredictor] = {}

    @property
    def validates(self) -> bool:
        return self.validation is not None

    @property
    def data_name(self) -> str:
        return self.validation.name if self.validation is not None else "nothing"

    def describe(self, iteration: int, score: float | None) -> CheckpointInfo:
        known = score is not None and math.isfinite(score)  # NaN: validation of nothing but void
        scores = {self.metric.key: score} if known else {}
        return self.description.model_copy(update={"iteration": iteration, "scores": scores})
