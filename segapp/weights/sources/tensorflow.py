"""Google's checkpoints of DeepLab and of ImageNet's encoders, read strictly."""

import logging
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from pydantic import TypeAdapter
from torch import Tensor

from segapp.base.classes import background_of
from segapp.base.errors import UserError
from segapp.models.classifier import ClassifierConfig
from segapp.models.deeplabv3plus import ASPPConfig, DecoderConfig, DeepLabV3PlusConfig, DensePredictionCellConfig
from segapp.models.encoders import EncoderConfig
from segapp.models.encoders.interface import INCEPTION
from segapp.models.encoders.mobilenet_v2 import MULTIPLIERS, STEM, wide
from segapp.weights.checkpoint import CLASSIFIER, CheckpointInfo, by, misfit, shapes_of, without_classifier
from segapp.weights.sources.common import (
    COUNT,
    FLOATS,
    Weights,
    WeightsMetadata,
    check_finite,
    class_names,
    counts,
    imagenet_classes,
)
from segapp.weights.sources.tensorflow_checkpoint import TFCheckpoint
from segapp.weights.sources.tensorflow_names import (
    CONV,
    TF_CELL,
    TF_HEAD,
    TF_SCOPES,
    VECTOR,
    Axes,
    tf_encoder_places,
    tf_is_left_out,
    tf_name,
    tf_places,
)

log = logging.getLogger(__name__)

MAX_STATE_BYTES = 1 << 20
"""Of the file that says which checkpoint is the last; it holds a few lines."""
TF_IMAGENET_CLASSES = 1001  # index 0 is background


def read(prefix: Path, metadata: WeightsMetadata, sha256: str | None = None) -> tuple[CheckpointInfo, Weights]:
    """Reads one of Google's checkpoints, strictly: every tensor is taken, or known to be of no use.

    Raises:
        UserError: the first tensor that is missing, unused or misshapen is named.
    """
    checkpoint = TFCheckpoint(prefix)
    names = frozenset(checkpoint)
    left_out = {name for name in names if tf_is_left_out(name, names)}
    found = names - left_out
    encoder = _encoder(checkpoint, found)
    files = [checkpoint.index, *map(checkpoint.shard, range(checkpoint.shards))]
    scopes = (*TF_HEAD.values(), *TF_CELL.values())
    has_head = any(name.startswith(f"{scope}{end}") for name in found for scope in scopes for end in "/_")
    read_as = _network if has_head else _classifier
    info, weights = read_as(checkpoint, found, encoder, metadata)
    log.info("%d tensors taken, %d of the optimizer and moving averages left out", len(found), len(left_out))
    return info.model_copy(update={"source": metadata.source(sha256, files)}), weights


def _network(
    checkpoint: TFCheckpoint, found: frozenset[str], encoder: EncoderConfig, metadata: WeightsMetadata
) -> tuple[CheckpointInfo, Weights]:
    network = _variant(encoder, found, metadata)
    biases = checkpoint.entries.get("logits/semantic/biases")
    has_logits = "logits/semantic/weights" in found or biases is not None
    classes = class_names(checkpoint.index, biases.shape[0], metadata) if biases and biases.shape else ()
    info = CheckpointInfo(
        network=network,
        classes=classes,
        background=background_of(classes),
        normalization=INCEPTION,
        canvas=metadata.canvas,
        trained_on=metadata.trained_on,
        jpeg_decoder="tensorflow",
        iteration=_iteration(checkpoint),
    )
    shapes = shapes_of(info if classes or not has_logits else info.model_copy(update={"classes": ("", "")}))
    return info, _take(checkpoint, found, _names(shapes, tf_places(network)), shapes)


def _classifier(
    checkpoint: TFCheckpoint, found: frozenset[str], encoder: EncoderConfig, metadata: WeightsMetadata
) -> tuple[CheckpointInfo, Weights]:
    """ImageNet's: the encoder, and the classifier without its background where there is one."""
    layer = f"{TF_SCOPES[encoder.name]}/logits"
    has_layer = f"{layer}/weights" in found
    info = CheckpointInfo(
        network=ClassifierConfig(encoder=encoder),
        classes=imagenet_classes() if has_layer else (),
        normalization=INCEPTION,
        trained_on=metadata.trained_on,
        jpeg_decoder="tensorflow",
    )
    shapes = shapes_of(info)
    own = [name for name in shapes if without_classifier(name)]
    expected = _names(own, tf_encoder_places(encoder.name))
    weight, bias = f"{CLASSIFIER}weight", f"{CLASSIFIER}bias"
    if has_layer:
        expected |= {weight: (f"{layer}/weights", CONV), bias: (f"{layer}/biases", VECTOR)}
        shapes[weight] = shapes[weight].new_empty(TF_IMAGENET_CLASSES, shapes[weight].shape[1], 1, 1)
        shapes[bias] = shapes[bias].new_empty(TF_IMAGENET_CLASSES)
    weights = _take(checkpoint, found, expected, shapes)
    if has_layer:
        weights[weight] = weights[weight][1:, :, 0, 0].contiguous()
        weights[bias] = weights[bias][1:].contiguous()
    return info, weights


def _names(ours: Iterable[str], places: dict[str, str]) -> dict[str, tuple[str, Axes]]:
    return {name: tf_name(name, places) for name in ours if not name.endswith(COUNT)}


def _iteration(checkpoint: TFCheckpoint) -> int | None:
    """The training steps done, where the checkpoint counts them as TensorFlow does."""
    entry = checkpoint.entries.get("global_step")
    if entry is None or entry.shape not in ((), (1,)) or entry.dtype not in (torch.int64, torch.int32):
        return None
    step = int(checkpoint["global_step"])
    return step if step >= 0 else None


def _encoder(checkpoint: TFCheckpoint, names: frozenset[str]) -> EncoderConfig:
    """The encoder whose scope the names begin with; of two in one scope, that whose first conv is as wide."""
    first = {name.partition("/")[0] for name in names}
    found = {scope for scope in TF_SCOPES.values() if scope in first}
    if len(found) != 1:
        raise UserError(
            f"{checkpoint.index}: no DeepLab with one encoder that is known here (Xception, MobileNetV2); it holds "
            f"{', '.join(sorted(first)[:5]) or 'nothing'}"
        )
    (scope,) = found
    known = [ours for ours, theirs in TF_SCOPES.items() if theirs == scope]
    stem = checkpoint.entries.get(f"{scope}/Conv/weights")
    if stem is not None and stem.shape[-1:] == (wide(STEM, *MULTIPLIERS[known[-1]]),):
        known.reverse()
    return TypeAdapter[EncoderConfig](EncoderConfig).validate_python({"name": known[0]})


def _variant(encoder: EncoderConfig, names: frozenset[str], metadata: WeightsMetadata) -> DeepLabV3PlusConfig:
    """The variant of the paper that the names belong to."""
    decoder = None
    if any(name.startswith("decoder/") for name in names):
        separable = not any(name.startswith("decoder/decoder_conv0/") for name in names)
        decoder = DecoderConfig(channels=256, low_level_channels=48, separable=separable)
    aspp: ASPPConfig | DensePredictionCellConfig
    if any(name.startswith("meta_architecture/") for name in names):
        aspp = DensePredictionCellConfig(name="dense_prediction_cell", channels=256, dropout=0.1)
    else:
        aspp = ASPPConfig(
            name="aspp",
            channels=256,
            separable="aspp1/weights" not in names,
            image_pooling="image_pooling/weights" in names,
            atrous=any(name.startswith("aspp1") for name in names),
            dropout=0.1,
        )
    return DeepLabV3PlusConfig(encoder=encoder, output_stride=metadata.output_stride, aspp=aspp, decoder=decoder)


def _take(
    checkpoint: TFCheckpoint, found: frozenset[str], expected: dict[str, tuple[str, Axes]], ours: Mapping[str, Tensor]
) -> Weights:
    """The tensors by our names, in our layout, as float32; nothing is read before all shapes are known to fit."""
    theirs = {name for name, _ in expected.values()}
    if wrong := misfit(theirs, found):
        raise UserError(f"{checkpoint.index}: not one of the known networks: it {wrong}")
    for name, (their_name, axes) in expected.items():
        shape, needed = checkpoint.entries[their_name].shape, ours[name].shape
        back = [0] * len(axes)
        for at, axis in enumerate(axes):
            back[axis] = needed[at]
        if list(shape) != back:
            raise UserError(f"{checkpoint.index}: {their_name} is {by(shape)}, {by(back)} is needed")
        if checkpoint.entries[their_name].dtype not in FLOATS:
            raise UserError(f"{checkpoint.index}: {their_name} is of no floating type that weights have")
    weights = {}
    for name, (their_name, axes) in expected.items():
        tensor = checkpoint[their_name]
        check_finite(checkpoint.index, their_name, tensor)
        weights[name] = tensor.permute(axes).to(torch.float32).contiguous()
    return weights | counts(ours)


def at_step(source: Path) -> tuple[Path, int | None]:
    """NAME@STEP, where there is no such file, as the folder or archive NAME and the training step of a checkpoint."""
    name, _, step = source.name.rpartition("@")
    if name and step.isascii() and step.isdigit() and not source.exists():
        return source.with_name(name), int(step)
    return source, None


def only_prefix(folder: Path, source: Path, step: int | None = None) -> Path:
    """The one checkpoint in a folder, or of several that of `step`, else the one that TensorFlow calls the last.

    Args:
        source: what the user has named, for messages.

    Raises:
        UserError: there is none, or not one alone.
    """
    found = [path for path in sorted([*folder.glob("*.index"), *folder.glob("*/*.index")]) if path.name[0] != "."]
    names = ", ".join(str(path.relative_to(folder)) for path in found[:5]) + (", ..." if len(found) > 5 else "")
    if step is not None:
        picked = [path for path in found if path.stem.endswith(f"-{step}")]
        if len(picked) != 1:
            raise UserError(f"{source}: no single checkpoint of step {step} in it; there are: {names or 'none'}")
        return picked[0].with_suffix("")
    last = [path for path in found if path.stem == _last_of(path.parent)]
    if len(found) > 1 and len(last) == 1:
        found = last
    if len(found) != 1:
        remedy = f"; {source.name}@STEP names one" if found else ""
        message = f"{source}: one TensorFlow checkpoint (NAME.index) is expected in it"
        raise UserError(f"{message}; there are: {names or 'none'}{remedy}")
    return found[0].with_suffix("")


def _last_of(folder: Path) -> str | None:
    """The name of the last checkpoint, from the file that tf.train.Saver keeps beside them."""
    try:
        with (folder / "checkpoint").open("rb") as file:
            state = file.read(MAX_STATE_BYTES).decode(errors="replace")
    except OSError:
        return None
    said = re.search(r'^\s*model_checkpoint_path\s*:\s*"([^"\n]*)"', state, re.MULTILINE)
    return re.split(r"[/\\]", said[1])[-1] if said else None


def prefix_of(source: Path) -> Path | None:
    """PREFIX, PREFIX.index and PREFIX.data-00000-of-00001 all name one checkpoint."""
    if source.with_name(f"{source.name}.index").is_file():
        return source
    if source.suffix == ".index" or source.suffix.startswith(".data-"):
        return source.with_suffix("")
    return None


def is_checkpoint_file(name: str) -> bool:
    last = name.rpartition("/")[2]
    return last.endswith(".index") or ".data-" in last or last == "checkpoint"
