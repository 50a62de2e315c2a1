"""Our files of weights: safetensors, and as plain data in its metadata all that rebuilds the network."""

from collections.abc import Callable, Iterable, Mapping, Set
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from segapp.base.errors import UserError, and_more
from segapp.base.files import atomic_write
from segapp.models.classifier import Classifier, ClassifierConfig
from segapp.models.deeplabv3plus import DeepLabV3Plus, DeepLabV3PlusConfig
from segapp.models.deformable import OFFSET
from segapp.models.encoders.interface import Encoder
from segapp.weights.description import Description, described, metadata_of

ENCODER, DECODER, LOGITS = "encoder.", "decoder.", "logits."
"""What the names of a network's encoder, of its decoder, and of its last layer, begin with."""
HEAD = "head."
CLASSIFIER, AUXILIARY = f"{HEAD}fc.", f"{HEAD}auxiliary."
"""What those of a classifier's last layer, and of its second head, begin with in a file, where its encoder's have no
prefix: timm's names."""

Network = Annotated[DeepLabV3PlusConfig | ClassifierConfig, Field(discriminator="kind")]


class CheckpointInfo(Description):
    """What stands beside a network's weights, under the key "segapp", as JSON; an exported network has the same."""

    network: Network  # type: ignore[assignment]  # the whole of what is outlined there


def completed(info: Description) -> CheckpointInfo:
    """With all that rebuilds the network."""
    return CheckpointInfo.model_validate(info.model_dump())


def save_checkpoint(path: Path, model: nn.Module, info: CheckpointInfo) -> None:
    """Writes the file whole or not at all."""
    write_weights(path, tensors_to_save(model), info.as_metadata())


def write_weights(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """A safetensors file, written whole or not at all.

    Raises:
        UserError: the disk is full.
    """
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with atomic_write(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode
        try:
            save_file(plain, temporary, metadata)
        except SafetensorError as error:  # a full or a failing disk
            raise UserError(f"{path}: cannot be written ({error})") from None
        temporary.chmod(mode)  # safetensors makes a file that only its owner can read


def read_info(path: Path) -> CheckpointInfo:
    """The metadata alone.

    Raises:
        UserError: no checkpoint of this program.
    """
    if path.suffix in (".onnx", ".xml", ".pt2"):
        raise UserError(f"{path}: exported, and so no file to train from or to convert; name what it was made of")
    return described(metadata_of(path), path, CheckpointInfo)


def read_network_info(path: Path) -> CheckpointInfo:
    """`read_info` of a file that must hold a whole segmentation network.

    Raises:
        UserError: no checkpoint of this program, or an encoder alone.
    """
    info = read_info(path)
    if not info.is_segmentation:
        what = "a classifier, which data=image_folder scores" if info.iteration is not None else "an encoder alone"
        raise UserError(f"{path}: holds {what}; training starts from it with encoder_weights={path}")
    return info


def read_weights(
    path: Path,
    expected: Mapping[str, Tensor],
    rename: Callable[[str], str | None] = lambda name: name,
    *,
    remedy: str = "set model= as it was trained",
) -> dict[str, Tensor]:
    """The tensors of `expected`, by name, strictly: nothing missing, nothing unused, nothing of another shape.

    Args:
        rename: the file's names to those expected, or to None for what is left out.

    Raises:
        UserError: the first tensor that does not fit is named; `remedy` ends the message.
    """
    weights: dict[str, Tensor] = {}
    try:
        with safe_open(path, "pt") as file:
            names = {renamed: name for name in file.keys() if (renamed := rename(name)) is not None}  # noqa: SIM118
            if wrong := misfit(expected.keys(), names.keys()):
                raise UserError(f"{path}: of another architecture: it {wrong}; {remedy}")
            for name, tensor in expected.items():
                shape = file.get_slice(names[name]).get_shape()
                if shape != list(tensor.shape):
                    what = "number of classes" if name.startswith(LOGITS) else "architecture"
                    raise UserError(
                        f"{path}: of another {what}: {name} is {by(shape)}, {by(tensor.shape)} is needed; {remedy}"
                    )
                weights[name] = file.get_tensor(names[name])
                if weights[name].dtype == torch.float16:  # as stored, to take half of the room
                    weights[name] = weights[name].to(tensor.dtype)
                if weights[name].dtype != tensor.dtype:
                    raise UserError(f"{path}: {name} is {weights[name].dtype}, {tensor.dtype} is needed; {remedy}")
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: no checkpoint, or a damaged one ({error})") from None
    return weights


def misfit(expected: Set[str], found: Set[str]) -> str | None:
    """What is missing or unused, as in "lacks NAME (and 3 more)"; None where nothing is."""
    for problem, different in (("lacks", expected - found), ("also holds", found - expected)):
        if different:
            return f"{problem} {min(different)}{and_more(len(different))}"
    return None


def shapes_of(info: CheckpointInfo) -> dict[str, Tensor]:
    """The tensors, on the meta device, that a file of this description holds, by their names there."""
    with torch.device("meta"):
        if not info.is_segmentation:
            tensors = info.network.build(len(info.classes)).state_dict()
            return {_classifier_name(name): each for name, each in tensors.items()}
        tensors = info.network.build(len(info.classes) or 2).state_dict()
    return {name: each for name, each in tensors.items() if info.classes or not name.startswith(LOGITS)}


def _classifier_name(name: str) -> str:
    """A classifier's own name to that in a file."""
    return name.removeprefix(ENCODER) if name.startswith(ENCODER) else f"{HEAD}{name}"


def _classifiers_own(name: str) -> str:
    """And back."""
    return name.removeprefix(HEAD) if name.startswith((CLASSIFIER, AUXILIARY)) else f"{ENCODER}{name}"


def tensors_to_save(model: nn.Module) -> dict[str, Tensor]:
    """A network's tensors by their names in a file."""
    tensors = model.state_dict()
    if not isinstance(model, Classifier):
        return tensors
    return {_classifier_name(name): each for name, each in tensors.items()}


def restore_weights(path: Path, model: nn.Module) -> None:
    """Loads all of a network's tensors from a file of its own.

    Raises:
        UserError: as `read_weights`.
    """
    own = _classifiers_own if isinstance(model, Classifier) else lambda name: name
    model.load_state_dict(read_weights(path, model.state_dict(), own), assign=_is_meta(model))


def _is_meta(model: nn.Module) -> bool:
    return next(model.parameters()).is_meta


def load_classifier(path: Path) -> tuple[Classifier, CheckpointInfo]:
    """Rebuilds a checkpoint's classifier.

    Raises:
        UserError: no checkpoint, a damaged one, or none of a classifier with its last layer.
    """
    info = read_info(path)
    if not isinstance(info.network, ClassifierConfig):
        raise UserError(f"{path}: holds a network for segmentation, not a classifier, which data=image_folder scores")
    if len(info.classes) < 2:
        raise UserError(f"{path}: holds an encoder alone, which has no classes; train with encoder_weights={path}")
    with torch.device("meta"):
        model = info.network.build(len(info.classes))
    restore_weights(path, model)
    return model.eval(), info


def load_model(path: Path, output_stride: int | None = None) -> tuple[DeepLabV3Plus, CheckpointInfo]:
    """Rebuilds a checkpoint's segmentation network, at another output stride if given.

    Raises:
        UserError: no checkpoint, a damaged one, one without a logits layer, or one whose tensors are not those of its
            architecture.
    """
    info = with_output_stride(read_network_info(path), output_stride)
    assert isinstance(info.network, DeepLabV3PlusConfig)
    if not info.classes:
        raise UserError(f"{path}: has no logits layer, and so can only be trained from: train with checkpoint={path}")
    with torch.device("meta"):
        model = info.network.build(len(info.classes))  # nothing is allocated before the shapes are checked
    model.load_state_dict(read_weights(path, model.state_dict()), assign=True)
    return model.eval(), info


def with_output_stride(info: CheckpointInfo, output_stride: int | None) -> CheckpointInfo:
    """The same network at another output stride, if one is given."""
    if output_stride is None:
        return info
    return info.model_copy(update={"network": info.network.model_copy(update={"output_stride": output_stride})})


def start_from(
    path: Path, model: DeepLabV3Plus | Classifier, classes: tuple[str, ...]
) -> tuple[CheckpointInfo, str | None]:
    """Copies a checkpoint's weights into `model`, to train on. A logits layer of another size stays as it is; a
    decoder where the checkpoint's network has none starts as the identity.

    Returns:
        What the file says of itself, and a remark on what it does not tell.

    Raises:
        UserError: no checkpoint, or one of another architecture.
    """
    is_classifier = isinstance(model, Classifier)
    last = ("fc.", "auxiliary.fc.", "auxiliary.0.fc.", "auxiliary.1.fc.") if is_classifier else (LOGITS,)
    info = read_info(path) if is_classifier else read_network_info(path)
    if is_classifier and info.is_segmentation:
        raise UserError(f"{path}: holds a network for segmentation; encoder_weights={path} starts from its encoder")
    expected = _without_new_offsets(path, model.state_dict())
    new_decoder = _has_decoder(model.state_dict()) and info.is_segmentation and not _has_decoder(shapes_of(info))
    if new_decoder:
        assert isinstance(model, DeepLabV3Plus)
        assert model.decoder is not None
        model.decoder.start_as_identity()
        expected = {name: each for name, each in expected.items() if not name.startswith(DECODER)}
    keeps = len(info.classes) == len(classes)
    reordered = info.classes != classes and {*info.classes} == {*classes}
    if reordered and any(each.shape[0] != len(classes) for name, each in expected.items() if name.startswith(last)):
        keeps = False  # no row for each class

    def own(name: str) -> str | None:
        name = _classifiers_own(name) if is_classifier else name
        return None if name.startswith(last) and not keeps else name

    weights = read_weights(
        path,
        expected if keeps else {name: each for name, each in expected.items() if not name.startswith(last)},
        own,
        remedy=f"it is {info.network.encoder.describe()}; set model= as it was trained",
    )
    model.load_state_dict(model.state_dict() | weights)
    remark = None
    if new_decoder:
        remark = "the decoder, missing there, starts as the identity"
    if not keeps:
        had = f"for {len(info.classes)} classes there" if info.classes else "missing there"
        anew = f"the logits layer, {had}, is initialised anew for {len(classes)} classes; all else is loaded"
        remark = f"{remark}; {anew}" if remark else anew
    elif reordered:
        order = [info.classes.index(name) for name in classes]
        model.load_state_dict(
            {name: each[order] if name.startswith(last) else each for name, each in model.state_dict().items()}
        )
        remark = f"the classes stand in another order in {path}; they are matched by name"
    elif info.classes != classes:
        remark = f"the class names differ from those of {path}; they are matched by index"
    return info, remark


def _has_decoder(names: Iterable[str]) -> bool:
    return any(name.startswith(DECODER) for name in names)


def start_encoder_from(path: Path, encoder: Encoder) -> CheckpointInfo:
    """Copies the encoder's weights out of an encoder's, a classifier's or a whole network's file.

    Raises:
        UserError: no such file, or one of another encoder.
    """
    info = read_info(path)
    weights = read_weights(
        path,
        _without_new_offsets(path, encoder.state_dict()),
        encoder_name if info.is_segmentation else without_classifier,
        remedy=f"it is {info.network.encoder.describe()}; set encoder_weights to others, or to null for none",
    )
    encoder.load_state_dict(encoder.state_dict() | weights)
    return info


def _without_new_offsets(path: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of `expected` that a file must have to start from it: offsets of deformable convolutions that it has not
    start at zero, as the plain ones."""
    try:
        with safe_open(path, "pt") as file:
            names = {name.removeprefix(ENCODER) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: no checkpoint, or a damaged one ({error})") from None
    return {name: each for name, each in expected.items() if OFFSET not in name or name.removeprefix(ENCODER) in names}


def encoder_name(name: str) -> str | None:
    """A network's name to its encoder's own."""
    return name.removeprefix(ENCODER) if name.startswith(ENCODER) else None


def without_classifier(name: str) -> str | None:
    return None if name.startswith((CLASSIFIER, AUXILIARY)) else name


def by(shape: torch.Size | list[int] | tuple[int, ...]) -> str:
    """A shape for people: 3x3x728x1."""
    return "x".join(map(str, shape)) or "a scalar"
