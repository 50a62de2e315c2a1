"""From any file or folder of weights that is known here to our own, and back to timm's."""

import struct
import tempfile
from pathlib import Path

from safetensors import SafetensorError, safe_open

from segapp.base.archives import extract
from segapp.base.errors import UserError
from segapp.runs.layout import run_weights
from segapp.weights.checkpoint import CheckpointInfo, encoder_name, read_info, read_weights, shapes_of, write_weights
from segapp.weights.sources import keras, tensorflow, tflite, timm, timm_encoder
from segapp.weights.sources.common import Weights, WeightsMetadata, sha256_of
from segapp.weights.sources.kinds import ARCHIVES, KERAS, is_torch_file
from segapp.weights.sources.timm_names import timm_name

MAX_BYTES = 4 << 30
"""Of what an archive may unfold to; the largest published checkpoint has 0.5 GB."""
TFLITE = ".tflite"


def convert(
    source: Path, metadata: WeightsMetadata, scratch: Path, sha256: str | None = None
) -> tuple[CheckpointInfo, Weights]:
    """Reads any file or folder of weights that is known here.

    Args:
        source: a published archive, a folder, a TensorFlow checkpoint's prefix, a file of timm's or Keras's, or one of
            ours; an archive or a folder of several checkpoints also as NAME@STEP.
        scratch: an existing folder on a disk with room for the unpacked archive.
        sha256: of the source, where it is known already.

    Raises:
        UserError: it is none of these, or does not fit its architecture to the last tensor.
    """
    own = own_file(source)
    if own is not None:
        return _ours(own)
    if metadata.timm is not None:
        return timm_encoder.read(source, metadata.timm, metadata, sha256)
    source, step = tensorflow.at_step(source)
    if source.is_dir():
        return tensorflow.read(tensorflow.only_prefix(source, source, step), metadata, sha256)
    if source.suffix in KERAS:
        if not source.is_file():
            raise UserError(f"{source}: no such file")
        return keras.read(source, metadata, sha256)
    if source.suffix == TFLITE:
        return tflite.read(source, metadata, sha256)
    if source.suffix in timm.SUFFIXES or is_torch_file(source):
        if not source.is_file():
            raise UserError(f"{source}: no such file")
        return timm.read(source, metadata, sha256)
    if source.name.endswith(ARCHIVES):
        if not source.is_file():
            raise UserError(f"{source}: no such file")
        with tempfile.TemporaryDirectory(dir=scratch, prefix=".import-") as folder:
            extract(source, Path(folder), tensorflow.is_checkpoint_file, limit=MAX_BYTES)
            prefix = tensorflow.only_prefix(Path(folder), source, step)
            return tensorflow.read(prefix, metadata, sha256 or sha256_of([source]))
    named = tensorflow.prefix_of(source)
    if named is not None:
        return tensorflow.read(named, metadata, sha256)
    if not source.is_file():
        raise UserError(f"{source}: no such file, folder or checkpoint prefix")
    kinds = ", ".join((*ARCHIVES, TFLITE, *timm.SUFFIXES, *KERAS))
    raise UserError(f"{source}: of no known kind; a {kinds}, a folder or a checkpoint prefix is expected")


def write_converted(path: Path, info: CheckpointInfo, weights: Weights) -> None:
    write_weights(path, weights, info.as_metadata())


def write_timm(path: Path, info: CheckpointInfo, weights: Weights) -> None:
    """The encoder under timm's names, with its classifier if there is one."""
    if info.is_segmentation:
        weights = {ours: tensor for name, tensor in weights.items() if (ours := encoder_name(name)) is not None}
    weights = {timm_name(info.network.encoder.name, name): tensor for name, tensor in weights.items()}
    write_weights(path, weights, {"format": "pt"})


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


def _ours(path: Path) -> tuple[CheckpointInfo, Weights]:
    """Raises:
    UserError: its tensors are not those of the network that it describes.
    """
    info = read_info(path)
    return info, read_weights(path, shapes_of(info), remedy="it is damaged")
