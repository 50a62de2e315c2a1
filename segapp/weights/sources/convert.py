"""From weights as others publish them, or our own, to one file of ours; and back to timm's."""

import hashlib
import logging
import struct
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from segapp.base.archives import extract
from segapp.base.classes import ADE20K_CLASSES, CITYSCAPES_CLASSES, VOC_CLASSES
from segapp.base.errors import UserError
from segapp.models.deeplabv3plus import (
    ASPPConfig,
    DecoderConfig,
    EncoderConfig,
    ModelConfig,
    build_encoder,
    build_model,
)
from segapp.runs.layout import run_weights
from segapp.weights.checkpoint import (
    CLASSIFIER,
    LOGITS,
    CheckpointInfo,
    EncoderInfo,
    Info,
    Source,
    by,
    encoder_name,
    misfit,
    read_info,
    read_weights,
    write_weights,
)
from segapp.weights.sources.tensorflow_checkpoint import TFCheckpoint
from segapp.weights.sources.tensorflow_names import (
    CONV,
    TF_HEAD,
    TF_SCOPES,
    TF_UNITS,
    VECTOR,
    Axes,
    tf_encoder_places,
    tf_is_left_out,
    tf_name,
    tf_places,
)

log = logging.getLogger(__name__)

CLASS_NAMES = {19: CITYSCAPES_CLASSES, 21: VOC_CLASSES, 151: ADE20K_CLASSES}
"""Those of the released checkpoints, by their number."""

IMAGENET_CLASSES = 1000
TF_IMAGENET_CLASSES = 1001  # index 0 is background
FEATURES = 2048
"""Channels that the encoder gives."""

MAX_BYTES = 4 << 30
"""Of what an archive may unfold to; the largest published checkpoint has 0.5 GB."""

FLOATS = (torch.float32, torch.float16, torch.bfloat16)
"""Types of weights; they become float32, which holds them all."""

COUNT = ".num_batches_tracked"
"""PyTorch's own, of no effect with a fixed momentum; not everybody keeps it."""

ARCHIVES = (".tar.gz", ".tgz", ".tar")
PICKLES = (".pth", ".pt", ".bin")


@dataclass(frozen=True)
class WeightsMetadata:
    """What weights from elsewhere do not tell of themselves. `classes`: None for the names usual for their number."""

    address: str
    licence: str
    splits_seen: tuple[str, ...]
    classes: tuple[str, ...] | None
    output_stride: Literal[8, 16, 32]
    canvas: int | None


Weights = dict[str, Tensor]


def convert(source: Path, facts: WeightsMetadata, scratch: Path, sha256: str | None = None) -> tuple[Info, Weights]:
    """Reads any file or folder of weights that is known here.

    Args:
        source: a published archive, a folder, a TensorFlow checkpoint's prefix, a file of timm's, or one of ours.
        scratch: an existing folder on a disk with room for the unpacked archive.
        sha256: of the source, where it is known already.

    Raises:
        UserError: it is none of these, or does not fit its architecture to the last tensor.
    """
    own = own_file(source)
    if own is not None:
        return _ours(own)
    if source.is_dir():
        return from_tensorflow(_only_prefix(source, source), facts, sha256)
    if source.name.endswith(ARCHIVES):
        if not source.is_file():
            raise UserError(f"{source}: no such file")
        with tempfile.TemporaryDirectory(dir=scratch, prefix=".import-") as folder:
            extract(source, Path(folder), _is_checkpoint_file, limit=MAX_BYTES)
            return from_tensorflow(_only_prefix(Path(folder), source), facts, sha256 or _sha256([source]))
    prefix = _prefix_of(source)
    if prefix is not None:
        return from_tensorflow(prefix, facts, sha256)
    if not source.is_file():
        raise UserError(f"{source}: no such file, folder or checkpoint prefix")
    if source.suffix == ".safetensors":
        return from_timm(_safetensors(source), source, facts, sha256)
    if source.suffix in PICKLES:
        return from_timm(_unpickle(source), source, facts, sha256)
    kinds = ", ".join((*ARCHIVES, ".safetensors", *PICKLES))
    raise UserError(f"{source}: of no known kind; a {kinds}, a folder or a checkpoint prefix is expected")


def to_timm(info: Info, weights: Weights) -> Weights:
    """The encoder under timm's names, with its classifier if there is one."""
    if isinstance(info, EncoderInfo):
        return weights
    return {renamed: tensor for name, tensor in weights.items() if (renamed := encoder_name(name)) is not None}


def write_converted(path: Path, info: Info, weights: Weights) -> None:
    write_weights(path, weights, {"segapp": info.model_dump_json()})


def write_timm(path: Path, info: Info, weights: Weights) -> None:
    write_weights(path, to_timm(info, weights), {"format": "pt"})


# TensorFlow


def from_tensorflow(prefix: Path, facts: WeightsMetadata, sha256: str | None = None) -> tuple[Info, Weights]:
    """Reads one of Google's checkpoints, strictly: every tensor is taken, or known to be of no use.

    Raises:
        UserError: the first tensor that is missing, unused or misshapen is named.
    """
    checkpoint = TFCheckpoint(prefix)
    names = frozenset(checkpoint)
    left_out = {name for name in names if tf_is_left_out(name, names)}
    found = names - left_out
    encoder = EncoderConfig(name=_tf_encoder(checkpoint.index, found), width=1.0)
    files = [checkpoint.index, *map(checkpoint.shard, range(checkpoint.shards))]
    has_head = any(name.startswith(f"{scope}{end}") for name in found for scope in TF_HEAD.values() for end in "/_")
    read = _tf_network if has_head else _tf_classifier
    info, weights = read(checkpoint, found, encoder, facts)
    log.info("%d tensors taken, %d of the optimizer and moving averages left out", len(found), len(left_out))
    return info.model_copy(update={"source": _source(facts, sha256, files)}), weights


def _tf_network(
    checkpoint: TFCheckpoint, found: frozenset[str], encoder: EncoderConfig, facts: WeightsMetadata
) -> tuple[Info, Weights]:
    model = _tf_model(encoder, found, facts)
    biases = checkpoint.entries.get("logits/semantic/biases")
    classes = _class_names(checkpoint.index, biases.shape[0], facts) if biases and biases.shape else ()
    with torch.device("meta"):
        shapes = build_model(model, len(classes) or 2).state_dict()
    if "logits/semantic/weights" not in found and not classes:
        shapes = {name: each for name, each in shapes.items() if not name.startswith(LOGITS)}
    info = CheckpointInfo(
        model=model,
        classes=classes,
        canvas=facts.canvas,
        splits_seen=facts.splits_seen,
        iteration=_iteration(checkpoint),
        miou=None,
    )
    return info, _take(checkpoint, found, _tf_names(shapes, tf_places(model)), shapes)


def _tf_classifier(
    checkpoint: TFCheckpoint, found: frozenset[str], encoder: EncoderConfig, facts: WeightsMetadata
) -> tuple[Info, Weights]:
    """ImageNet's: the encoder, and the classifier without its background where there is one."""
    with torch.device("meta"):
        shapes = build_encoder(encoder).state_dict()
    expected = _tf_names(shapes, tf_encoder_places(encoder.name))
    weight, bias = f"{CLASSIFIER}weight", f"{CLASSIFIER}bias"
    classifier = f"{TF_SCOPES[encoder.name]}/logits"
    has_classifier = f"{classifier}/weights" in found
    if has_classifier:
        expected |= {weight: (f"{classifier}/weights", CONV), bias: (f"{classifier}/biases", VECTOR)}
        shapes |= {
            weight: torch.empty(TF_IMAGENET_CLASSES, FEATURES, 1, 1, device="meta"),
            bias: torch.empty(TF_IMAGENET_CLASSES, device="meta"),
        }
    weights = _take(checkpoint, found, expected, shapes)
    if has_classifier:
        weights[weight] = weights[weight][1:, :, 0, 0].contiguous()
        weights[bias] = weights[bias][1:].contiguous()
    classes = imagenet_classes() if has_classifier else ()
    return EncoderInfo(encoder=encoder, classes=classes, splits_seen=facts.splits_seen, source=None), weights


def _tf_names(ours: Mapping[str, Tensor], places: dict[str, str]) -> dict[str, tuple[str, Axes]]:
    return {name: tf_name(name, places) for name in ours if not name.endswith(COUNT)}


def _iteration(checkpoint: TFCheckpoint) -> int | None:
    """The training steps done, where the checkpoint counts them as TensorFlow does."""
    entry = checkpoint.entries.get("global_step")
    if entry is None or entry.shape not in ((), (1,)) or entry.dtype not in (torch.int64, torch.int32):
        return None
    step = int(checkpoint["global_step"])
    return step if step >= 0 else None


def _tf_encoder(index: Path, names: frozenset[str]) -> Literal["xception41", "xception65", "xception71"]:
    first = {name.partition("/")[0] for name in names}
    found = [ours for ours in ("xception41", "xception65", "xception71") if TF_SCOPES[ours] in first]
    if len(found) != 1:
        raise UserError(
            f"{index}: no DeepLab with one Xception encoder; it holds {', '.join(sorted(first)[:5]) or 'nothing'}"
        )
    return found[0]  # type: ignore[return-value]


def _tf_model(encoder: EncoderConfig, names: frozenset[str], facts: WeightsMetadata) -> ModelConfig:
    """The variant of the paper that the names belong to."""
    decoder = None
    if any(name.startswith("decoder/") for name in names):
        separable = not any(name.startswith("decoder/decoder_conv0/") for name in names)
        decoder = DecoderConfig(channels=256, low_level_channels=48, separable=separable)
    return ModelConfig(
        name="deeplabv3plus",
        encoder=encoder,
        output_stride=facts.output_stride,
        aspp=ASPPConfig(
            channels=256,
            separable="aspp1/weights" not in names,
            image_pooling="image_pooling/weights" in names,
            dropout=0.1,
        ),
        decoder=decoder,
        bn_momentum=3e-4,
        activation_checkpointing=False,
    )


def _class_names(index: Path, number: int, facts: WeightsMetadata) -> tuple[str, ...]:
    if not 2 <= number <= 255:
        raise UserError(f"{index}: its logits are for {number} classes; 2 to 255 are possible")
    if facts.classes is None:
        names = CLASS_NAMES.get(number) or tuple(f"class {i}" for i in range(number))
        log.info(
            "class names as usual for %d classes: %s, ... (classes=FILE gives others)", number, ", ".join(names[:3])
        )
        return names
    if len(facts.classes) != number:
        raise UserError(f"{index}: its logits are for {number} classes; {len(facts.classes)} names were given")
    return facts.classes


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
        _check_finite(checkpoint.index, their_name, tensor)
        weights[name] = tensor.permute(axes).to(torch.float32).contiguous()
    return weights | {name: torch.zeros((), dtype=torch.int64) for name in ours if name.endswith(COUNT)}


# timm and ours


def from_timm(weights: Weights, path: Path, facts: WeightsMetadata, sha256: str | None = None) -> tuple[Info, Weights]:
    """A state dict of timm's xception41, 65 or 71, strictly; `path` is where it comes from.

    Raises:
        UserError: the first tensor that is missing, unused or misshapen is named.
    """
    blocks = {name.split(".")[1] for name in weights if name.startswith("blocks.")}
    found = [name for name, units in TF_UNITS.items() if len(units) == len(blocks)]
    if not found:
        raise UserError(f"{path}: no xception41, 65 or 71 of timm's: it has {len(blocks)} blocks")
    encoder = EncoderConfig(name=found[0], width=1.0)  # type: ignore[arg-type]
    with torch.device("meta"):
        expected = build_encoder(encoder).state_dict()
    classes: tuple[str, ...] = ()
    if f"{CLASSIFIER}weight" in weights:
        number = len(weights[f"{CLASSIFIER}weight"]) if weights[f"{CLASSIFIER}weight"].ndim else 0
        if number < 2:
            raise UserError(f"{path}: {CLASSIFIER}weight is for {number} classes; 2 are the least")
        classes = imagenet_classes() if number == IMAGENET_CLASSES else tuple(f"class {i}" for i in range(number))
        expected |= _classifier(number)
    counts = {name: torch.zeros((), dtype=torch.int64) for name in expected if name.endswith(COUNT)}
    if wrong := misfit(expected.keys(), weights.keys() | counts.keys()):
        hint = "; the p variants (xception65p) are another graph" if wrong.startswith("lacks") else ""
        raise UserError(f"{path}: no {found[0]} of timm's: it {wrong}{hint}")
    for name, tensor in weights.items():
        if tensor.shape != expected[name].shape:
            raise UserError(f"{path}: {name} is {by(tensor.shape)}, {by(expected[name].shape)} is needed")
        is_count = name.endswith(COUNT)
        if tensor.dtype not in ((torch.int64,) if is_count else FLOATS) or not _is_plain(tensor):
            raise UserError(f"{path}: {name} is of no type that weights have ({tensor.dtype})")
        if not is_count:
            _check_finite(path, name, tensor)
    info = EncoderInfo(
        encoder=encoder,
        classes=classes,
        splits_seen=facts.splits_seen,
        source=_source(facts, sha256, [path]),
    )
    # Copies: two names may stand for one tensor, which safetensors does not write.
    return info, counts | {name: tensor.to(expected[name].dtype, copy=True) for name, tensor in weights.items()}


def _is_plain(tensor: Tensor) -> bool:
    return tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized


def _check_finite(path: Path, name: str, tensor: Tensor) -> None:
    if not tensor.sum(dtype=torch.float64).isfinite():  # which one value that is not makes so
        raise UserError(f"{path}: {name} holds values that are not finite")


def own_file(source: Path) -> Path | None:
    """The file of ours that `source` is, or in a run's folder holds; such a file describes itself.

    Raises:
        UserError: a damaged safetensors file.
    """
    if source.is_dir():
        return run_weights(source)
    if source.suffix != ".safetensors" or not source.is_file():
        return None
    try:
        with safe_open(source, "pt") as file:
            return source if "segapp" in (file.metadata() or {}) else None
    except (SafetensorError, OSError, struct.error) as error:
        raise UserError(f"{source}: damaged, or no safetensors file ({error})") from None


def _safetensors(path: Path) -> Weights:
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: damaged, or no safetensors file ({error})") from None


def _ours(path: Path) -> tuple[Info, Weights]:
    """Raises:
    UserError: its tensors are not those of the network that it describes.
    """
    info = read_info(path)
    with torch.device("meta"):
        if isinstance(info, EncoderInfo):
            expected = build_encoder(info.encoder).state_dict()
            expected |= _classifier(len(info.classes)) if info.classes else {}
        else:
            expected = build_model(info.model, len(info.classes) or 2).state_dict()
    if not info.classes:
        expected = {name: tensor for name, tensor in expected.items() if not name.startswith(LOGITS)}
    return info, read_weights(path, expected, remedy="it is damaged")


def _classifier(number: int) -> Weights:
    """Shapes of timm's, for so many classes."""
    weight, bias = torch.empty(number, FEATURES, device="meta"), torch.empty(number, device="meta")
    return {f"{CLASSIFIER}weight": weight, f"{CLASSIFIER}bias": bias}


def _unpickle(path: Path) -> Weights:
    """A state dict from a file of torch.save, none of whose code runs."""
    try:
        with zipfile.ZipFile(path) as archive:
            folded = any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist())
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(f"{path}: no file of torch.save, or one of before 2020 ({error})") from None
    if folded:
        raise UserError(f"{path}: is compressed, which torch.save does not do; it may unfold to any size")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # whatever unpickling makes of a damaged or a hostile file
        log.debug("%s", path, exc_info=True)
        raise UserError(f"{path}: damaged, or holds more than plain tensors, which is not loaded") from None
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    ):
        held = ", ".join(map(str, content))[:80] if isinstance(content, dict) else type(content).__name__
        raise UserError(f"{path}: holds no state dict of names and tensors, but {held or 'nothing'}")
    return content


def _only_prefix(folder: Path, source: Path) -> Path:
    found = [path for path in sorted([*folder.glob("*.index"), *folder.glob("*/*.index")]) if path.name[0] != "."]
    if len(found) != 1:
        names = ", ".join(str(path.relative_to(folder)) for path in found[:5]) or "none"
        raise UserError(f"{source}: one TensorFlow checkpoint (NAME.index) is expected in it; there are: {names}")
    return found[0].with_suffix("")


def _prefix_of(source: Path) -> Path | None:
    """PREFIX, PREFIX.index and PREFIX.data-00000-of-00001 all name one checkpoint."""
    if source.with_name(f"{source.name}.index").is_file():
        return source
    if source.suffix == ".index" or source.suffix.startswith(".data-"):
        return source.with_suffix("")
    return None


def _is_checkpoint_file(name: str) -> bool:
    return name.endswith(".index") or ".data-" in name.rpartition("/")[2]


def imagenet_classes() -> tuple[str, ...]:
    """The 1000 names in ImageNet's order, as torchvision has them."""
    from torchvision.models import ResNet18_Weights  # a second of import that few need

    return tuple(ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


def _source(facts: WeightsMetadata, sha256: str | None, files: list[Path]) -> Source:
    return Source(address=facts.address, sha256=sha256 or _sha256(files), licence=facts.licence)


def _sha256(paths: list[Path]) -> str:
    """Of the files' contents one after another."""
    digest = hashlib.sha256()
    for path in paths:
        try:
            with path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    return digest.hexdigest()
