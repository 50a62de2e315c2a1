"""Classification as a task: validation by the share of images whose class is the network's first choice."""

import math
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from segapp.base.errors import UserError
from segapp.data.dataset import ClassificationDataset, Sample
from segapp.evaluation.classification import Classification, classify
from segapp.evaluation.examples import reduced
from segapp.inference.classify import ClassPredictor
from segapp.models.classifier import Classifier
from segapp.reports.grid import class_grid
from segapp.training.config import ClassifyConfig
from segapp.training.losses import ClassLoss
from segapp.training.stopping import StopRequest
from segapp.training.task import Metric, ScoredTask


class Classifying(ScoredTask[ClassifyConfig, ClassLoss, ClassificationDataset, ClassPredictor]):
    """A `Task`."""

    metric = Metric("top1", "top-1")

    def add(self, prefix: str, network: nn.Module) -> None:
        assert isinstance(network, Classifier)
        self.networks[prefix] = network
        self._predictors[prefix] = ClassPredictor(
            network,
            self.description.classes,
            self.config.inference,
            self.config.decoding,
            normalization=self.description.normalization,
            device=self.device,
            precision=self.config.precision,
        )

    def validate(self, prefix: str, stop: StopRequest) -> dict[str, float]:
        scored = self._classify(prefix, stop)
        tells = np.count_nonzero(scored.per_class_images) > 1  # of one class, whatever says it always is best
        return {self.metric.key: scored.top1 if tells else math.nan, "top5": scored.top5}

    def final(self) -> Classification:
        return self._classify("", None)

    def _classify(self, prefix: str, stop: StopRequest | None) -> Classification:
        assert self.validation is not None
        predictor = self._predictors[prefix]

        def predict_or_stop(samples: Sequence[Sample]) -> Tensor:
            if stop is not None:
                stop.check()
            return predictor.predict([sample.image for sample in samples])

        return classify(
            self.validation,
            predict_or_stop,
            protocol=predictor.protocol,
            config=self.config.eval if stop is None else self.config.eval.model_copy(update={"examples": 0}),
            workers=self.config.workers,
            processes=self.processes,
        )

    def pictures(self) -> npt.NDArray[np.uint8] | None:
        """Always the same images of the validation set, which lies in order of the classes."""
        assert self.validation is not None
        number = min(self.config.pictures, len(self.validation))
        examples = []
        for index in torch.linspace(0, len(self.validation) - 1, number).long().tolist():
            with suppress(UserError):  # what cannot be read is told by the validation
                image = self.validation[index].image
                probability, choice = self._predictors[""].predict([image])[0].max(0)
                names = self.validation.classes
                truth = names[int(self.validation.labels[index])]
                examples.append((reduced(image), truth, names[int(choice)], float(probability)))
        return class_grid(examples) if examples else None
