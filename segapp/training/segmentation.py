"""Semantic segmentation as a task: validation by mIoU over whole images, as the evaluation scores them."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from segapp.base.classes import voc_palette
from segapp.base.errors import UserError
from segapp.data.dataset import Sample, SegmentationDataset
from segapp.evaluation.evaluate import Evaluation, evaluate
from segapp.evaluation.examples import make_examples
from segapp.evaluation.labellers import by_network
from segapp.inference.prediction import Prediction
from segapp.inference.predictor import Predictor
from segapp.models.deeplabv3plus import DeepLabV3Plus
from segapp.reports.grid import picture_grid
from segapp.runtimes.pytorch import PyTorchRuntime
from segapp.training.config import SegmentConfig
from segapp.training.losses import Loss
from segapp.training.stopping import StopRequest
from segapp.training.task import Metric, ScoredTask


class Segmentation(ScoredTask[SegmentConfig, Loss, SegmentationDataset, Predictor]):
    """A `Task`."""

    metric = Metric("miou", "mIoU")

    def add(self, prefix: str, network: nn.Module) -> None:
        """Moves a network to the device, to be validated with the others."""
        assert isinstance(network, DeepLabV3Plus)
        runtime = PyTorchRuntime(
            network,
            self.description.classes,
            background=self.description.background,
            normalization=self.description.normalization,
            device=self.device,
            precision=self.config.precision,
        )
        self.networks[prefix] = network
        self._predictors[prefix] = Predictor(runtime, self.config.inference, self.config.decoding)

    def validate(self, prefix: str, stop: StopRequest) -> dict[str, float]:
        scores = self._evaluate(prefix, stop).scores
        tells = np.count_nonzero(scores.confusion_matrix.sum(1)) > 1  # of one class, whatever says it always is best
        values = {self.metric.key: scores.miou if tells else math.nan, "pixel_accuracy": scores.pixel_accuracy}
        if not prefix:
            by_class = zip(scores.classes, scores.per_class_iou.tolist(), strict=True)
            values |= {f"iou/{name}": iou for name, iou in by_class}
        return values

    def final(self) -> Evaluation:
        """With all measures and examples; validations on the way have the confusion matrix alone."""
        return self._evaluate("", None)

    def _evaluate(self, prefix: str, stop: StopRequest | None) -> Evaluation:
        assert self.validation is not None
        predictor, is_final = self._predictors[prefix], stop is None
        label = by_network(predictor, confidence=is_final and self.config.eval.detailed)

        def label_or_stop(samples: Sequence[Sample]) -> Sequence[Prediction | UserError]:
            if stop is not None:
                stop.check()
            return label(samples)

        return evaluate(
            self.validation,
            label_or_stop,
            protocol=predictor.protocol,
            config=self.config.eval if is_final else self.config.eval.plain,
            workers=self.config.workers,
            device=predictor.device,
            processes=self.processes,
        )

    def pictures(self) -> npt.NDArray[np.uint8] | None:
        """Always the same images of the validation set."""
        assert self.validation is not None
        number = min(self.config.pictures, len(self.validation))
        places = torch.linspace(0, len(self.validation) - 1, number).long().tolist()
        examples = make_examples(self.validation, by_network(self._predictors[""]), places)
        return picture_grid(examples, self.validation.classes, voc_palette()) if examples else None
