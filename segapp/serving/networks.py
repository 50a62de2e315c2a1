"""The network that a process answers with, of either task."""

from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from pydantic import TypeAdapter, ValidationError

from segapp import __version__
from segapp.base.classes import voc_palette
from segapp.base.compose import compose_config
from segapp.base.devices import compute_dtype
from segapp.base.errors import UserError
from segapp.base.images import Array, Decoding
from segapp.inference.arrays import Size, to_numpy
from segapp.inference.classify import ClassPredictor
from segapp.inference.options import InferenceConfig
from segapp.inference.prediction import Outputs, Prediction
from segapp.inference.predictor import Predictor
from segapp.serving.config import Limits, ServeConfig
from segapp.serving.refusals import Refusal
from segapp.weights.description import Description, outline_of
from segapp.weights.exported.description import is_exported


class Segmenter:
    """A network for segmentation in the ways of showing it images that requests may choose.

    Args:
        ways: by the names of conf/inference.
        limits: of which `inference` and `scales` are narrowed to what the network can do.
    """

    task = "segmentation"

    def __init__(
        self, predictor: Predictor, info: Description, ways: dict[str, InferenceConfig], limits: Limits
    ) -> None:
        self.info = info
        self.usual = predictor
        self.spec = predictor.runtime.spec
        self._ways: dict[str, InferenceConfig] = {}
        for name, way in ways.items():
            try:
                Predictor(predictor.runtime, resolved := way.resolved(info.canvas))
                self._ways[name] = resolved
            except UserError:  # one that this network cannot be shown
                continue
        only_one = self.spec.input_size is not None
        offered = {"inference": (*self._ways,), "scales": () if only_one else limits.scales}
        self.limits = limits.model_copy(update=offered)
        self.chosen = lru_cache(256)(self._chosen)

    @property
    def device(self) -> torch.device:
        return self.usual.device

    @property
    def decoding(self) -> Decoding:
        return self.usual.decoding

    def _chosen(self, way: str | None, scales: tuple[float, ...] | None, flip: bool | None) -> Predictor:
        """The predictor of a request; None: as the service was started.

        Raises:
            Refusal: it is not offered.
        """
        limits = self.limits
        if way is not None and way not in self._ways:
            offered = f"one of {', '.join(self._ways)}" if self._ways else "left to the service"
            raise Refusal(400, f"inference={way} is not offered; it is {offered}")
        unknown = [scale for scale in scales or () if scale not in limits.scales]
        if unknown:
            offered = ", ".join(f"{scale:g}" for scale in limits.scales) or "none"
            raise Refusal(400, f"scale {unknown[0]:g} is not offered; these are: {offered}")
        if flip and not limits.flip:
            raise Refusal(400, "flip=true is not offered; leave it")
        inference = self.usual.inference if way is None else self._ways[way]
        changes = {"scales": scales, "flip": flip}
        values = inference.model_dump() | {key: value for key, value in changes.items() if value is not None}
        try:
            return Predictor(self.usual.runtime, type(inference).model_validate(values), self.usual.decoding)
        except ValidationError as error:
            raise Refusal(400, f"scales: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
        except UserError as error:
            raise Refusal(400, str(error)) from None

    @staticmethod
    def key(predictor: Predictor, size: Size, outputs: Outputs) -> Hashable:
        """Images of one key go through the network together."""
        return predictor, outputs, object() if predictor.is_alone(size) else None

    @staticmethod
    def compute(key: Any, images: Sequence[Array]) -> list[Prediction]:
        """With NumPy's arrays, so that nobody else waits for the device."""
        predictor, outputs, _ = key
        return [
            replace(
                each, labels=each.mask(), confidence=None if each.confidence is None else to_numpy(each.confidence)
            )
            for each in predictor.predict(images, **outputs._asdict())
        ]

    @property
    def protocol(self) -> str:
        return self.usual.protocol

    @property
    def classes(self) -> tuple[str, ...]:
        return self.usual.classes

    @property
    def background(self) -> int | None:
        return self.spec.background

    @property
    def runtime(self) -> str:
        library = "" if self.usual.runtime.device is None else "PyTorch, "
        return library + self.usual.runtime.description


class ClassNetwork:
    """A classifier; images are shown to it in one way."""

    task = "classification"
    background = None

    def __init__(self, predictor: ClassPredictor, info: Description, limits: Limits) -> None:
        self.info = info
        self.predictor = predictor
        self.limits = limits.model_copy(update={"inference": (), "scales": (), "flip": False})

    @property
    def device(self) -> torch.device:
        return self.predictor.device

    @property
    def decoding(self) -> Decoding:
        return self.predictor.decoding

    @property
    def protocol(self) -> str:
        return self.predictor.protocol

    @property
    def classes(self) -> tuple[str, ...]:
        return self.predictor.classes

    @property
    def runtime(self) -> str:
        dtype = str(compute_dtype(self.predictor.device, self.predictor.precision)).removeprefix("torch.")
        return f"PyTorch, {dtype}"

    @staticmethod
    def compute(key: Any, images: Sequence[Array]) -> list[npt.NDArray[np.float32]]:
        """The probabilities of the classes of each image."""
        return list(key.predict(images).cpu().numpy())


Network = Segmenter | ClassNetwork


Ways = dict[str, InferenceConfig]
"""Choices of conf/inference, by their names."""


def ways_of(limits: Limits) -> Ways:
    """Those that requests may name."""
    composed = compose_config("serve", [f"+inference@ways.{name}={name}" for name in limits.inference])
    adapter: TypeAdapter[InferenceConfig] = TypeAdapter(InferenceConfig)
    return {name: adapter.validate_python(values) for name, values in composed.get("ways", {}).items()}


def open_network(config: ServeConfig, ways: Ways, path: Path) -> Network:
    """The network of a checkpoint's file.

    Raises:
        UserError: as `PredictorOptions.open`.
    """
    if not is_exported(path) and not outline_of(path).is_segmentation:
        return ClassNetwork(*config.open_classifier(path), config.limits)
    return Segmenter(*config.open(path), ways, config.limits)


def described(network: Network, checkpoint: str) -> dict[str, Any]:
    """What GET /v1/model answers."""
    info, limits, palette = network.info, network.limits, voc_palette()
    return {
        "task": network.task,
        "checkpoint": Path(checkpoint).name,  # where it lies is nobody's business
        "source": None if info.source is None else info.source.model_dump(),
        "describe": info.describe(),
        "classes": [
            {"index": index, "name": name, "color": palette[index % 256].tolist()}
            for index, name in enumerate(network.classes)
        ],
        "background": network.background,
        "protocol": network.protocol,
        "runtime": network.runtime,
        "scores": info.scores,
        "limits": limits.model_dump(mode="json"),
        "version": __version__,
    }
