"""Files of any network of timm's, for `model/encoder=timm`."""

from pathlib import Path
from typing import Any

from segapp.base.errors import UserError
from segapp.models.classifier import ClassifierConfig
from segapp.models.encoders.timm import TimmConfig
from segapp.weights.checkpoint import CheckpointInfo, by, misfit
from segapp.weights.sources.common import COUNT, FLOATS, Weights, WeightsMetadata, check_finite
from segapp.weights.sources.timm import safetensors_of

NETWORK = "network."
"""What the names of such an encoder's tensors begin with."""


def read(
    path: Path, model: str, metadata: WeightsMetadata, sha256: str | None = None
) -> tuple[CheckpointInfo, Weights]:
    """The encoder out of a whole network of timm's, strictly, with the normalisation that its tag has there.

    Args:
        path: a safetensors file with timm's names, as on its hub.
        model: the network's name in timm, with or without a tag.

    Raises:
        UserError: timm has no such network, it can be no encoder, or the file is not its own to the last tensor; its
            classifier may be of any number of classes.
    """
    import timm
    import torch

    if path.suffix != ".safetensors" or not path.is_file():
        raise UserError(f"{path}: no such safetensors file, of which timm={model} reads weights")
    config = TimmConfig(name="timm", model=model)
    with torch.device("meta"):
        encoder = config.build(32 if _has_stride_32(config) else 16)
        whole: Any = timm.create_model(model)
    weights = safetensors_of(path)
    _check(path, model, weights, whole)
    # timm itself knows which of the whole's tensors its features have, and what they are called there.
    features: Any = timm.create_model(
        model, features_only=True, pretrained=True, pretrained_cfg_overlay={"file": str(path), "custom_load": False}
    )
    found = {f"{NETWORK}{name}": tensor for name, tensor in features.state_dict().items()}
    if wrong := misfit(encoder.state_dict().keys(), found.keys()):
        raise UserError(f"{path}: no {model} of timm's: it {wrong}")
    info = CheckpointInfo(
        network=ClassifierConfig(encoder=config),
        classes=(),
        normalization=encoder.normalization,
        trained_on=metadata.trained_on,
        source=metadata.source(sha256, [path]),
    )
    return info, {name: found[name].clone() for name in encoder.state_dict()}


def _has_stride_32(config: TimmConfig) -> bool:
    try:
        config.build(32)
    except UserError:
        return False
    return True


def _check(path: Path, model: str, weights: Weights, whole: Any) -> None:
    """Raises:
    UserError: the first tensor that is missing, unused, misshapen or not finite is named.
    """
    expected = whole.state_dict()
    given = whole.pretrained_cfg.get("classifier") or ()
    heads = tuple(f"{name}." for name in ((given,) if isinstance(given, str) else given))
    of_heads = {name for name in {*expected, *weights} if name.startswith(heads)} if heads else set()
    counts = {name for name in expected if name.endswith(COUNT)}
    if wrong := misfit(expected.keys() - of_heads, (weights.keys() | counts) - of_heads):
        raise UserError(f"{path}: no {model} of timm's: it {wrong}")
    for name, tensor in weights.items():
        if name in of_heads:
            continue
        if tensor.shape != expected[name].shape:
            raise UserError(f"{path}: {name} is {by(tensor.shape)}, {by(expected[name].shape)} is needed")
        if tensor.dtype in FLOATS:
            check_finite(path, name, tensor)
