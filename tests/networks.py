"""Networks for tests."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from segapp.inference.options import Resized, Sliding, Whole
from segapp.inference.predictor import Predictor
from segapp.models.classifier import ClassifierConfig
from segapp.models.deeplabv3plus import DeepLabV3Plus, DeepLabV3PlusConfig
from segapp.models.encoders.interface import INCEPTION
from segapp.runtimes.pytorch import PyTorchRuntime
from segapp.weights.checkpoint import CheckpointInfo, save_checkpoint

CONF = Path(__file__).parent.parent / "conf" / "model"


def config(**changes: Any) -> DeepLabV3PlusConfig:
    values = yaml.safe_load((CONF / "deeplabv3plus_xception.yaml").read_text())
    for group, choice in (pair for each in values.pop("defaults") if isinstance(each, dict) for pair in each.items()):
        values[group] = yaml.safe_load((CONF / group / f"{choice}.yaml").read_text())
    for key, value in changes.items():
        *parents, last = key.split("__")
        target = values
        for parent in parents:
            target = target[parent]
        target[last] = value
    return DeepLabV3PlusConfig.model_validate(values)


def small(**changes: Any) -> DeepLabV3PlusConfig:
    """The same code with few channels, for tests of behaviour."""
    narrow = {
        "encoder__name": "xception41",
        "encoder__width": 0.125,
        "aspp__channels": 16,
        "decoder": {"channels": 16, "low_level_channels": 8, "separable": True},
    }
    return config(**(narrow | changes))


def whole(canvas: int | None, scales: Sequence[float] = (1,), flip: bool = False) -> Whole:
    """How a predictor shows images."""
    return Whole(canvas=canvas, scales=tuple(scales), flip=flip)


def predictor_of(model: DeepLabV3Plus, classes: tuple[str, ...], inference: Whole | Sliding | Resized) -> Predictor:
    """On the CPU."""
    return Predictor(PyTorchRuntime(model, classes, device=torch.device("cpu")), inference)


def runtime_of(predictor: Predictor) -> PyTorchRuntime:
    assert isinstance(predictor.runtime, PyTorchRuntime)
    return predictor.runtime


def model_of(predictor: Predictor) -> nn.Module:
    return runtime_of(predictor).model


def randomise(model: nn.Module, seed: int = 0) -> None:
    """Weights that keep activations alive, and BN statistics unlike the initial ones."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
                if module.bias is not None:
                    module.bias.normal_(0, 0.2, generator=generator)
            elif isinstance(module, nn.BatchNorm2d):
                assert module.running_mean is not None
                assert module.running_var is not None
                module.weight.uniform_(0.7, 1.3, generator=generator)
                module.bias.normal_(0, 0.2, generator=generator)
                module.running_mean.normal_(0, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)


def save_random(
    path: Path,
    network: DeepLabV3PlusConfig | ClassifierConfig,
    classes: tuple[str, ...],
    trained_on: tuple[str, ...] = (),
    seed: int = 0,
) -> None:
    """Writes a checkpoint with random weights."""
    model = network.build(len(classes))
    randomise(model, seed)
    info = CheckpointInfo(
        network=network,
        classes=classes,
        background=0,
        normalization=INCEPTION,
        canvas=65,
        trained_on=trained_on,
        iteration=0,
    )
    save_checkpoint(path, model, info)
