"""Makes one file of ours from weights as they are published, or a file for timm.

python tools/import_weights.py list                                            the weights that have a name
python tools/import_weights.py xception65_voc_coco_trainaug                    into the cache, for later use offline
python tools/import_weights.py deeplabv3_pascal_train_aug_2018_01_04.tar.gz output=voc.safetensors
python tools/import_weights.py DIR/model.ckpt output=mine.safetensors          a TensorFlow checkpoint's prefix
python tools/import_weights.py DIR output=mine.safetensors                     the last one of a training folder
python tools/import_weights.py DIR@30000 output=mine.safetensors               that of step 30000
python tools/import_weights.py xception_weights_tf_dim_ordering_tf_kernels.h5 output=xception.safetensors     Keras's
python tools/import_weights.py model.safetensors timm=resnet50.a1_in1k output=resnet50.safetensors
python tools/import_weights.py runs/train/RUN output=encoder.safetensors format=timm
python tools/import_weights.py runs/train/RUN output=small.safetensors half=true         in half of the room
"""

import logging
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field

from segapp.base.compose import read_config
from segapp.base.config import Config, UserPath, Words, as_typed
from segapp.base.errors import UserError
from segapp.base.files import output_parent
from segapp.data.formats.classes_file import read_classes
from segapp.weights.find import LATEST, find_weights, metadata_of
from segapp.weights.sources import tensorflow, timm
from segapp.weights.sources.common import WeightsMetadata
from segapp.weights.sources.convert import convert, own_file, write_converted, write_timm
from segapp.weights.sources.kinds import ARCHIVES
from segapp.weights.zoo import ZOO, ZooEntry, listing

log = logging.getLogger(__name__)


OF_NETWORKS = ("classes", "output_stride", "canvas")
METADATA = (*OF_NETWORKS, "trained_on", "licence", "timm")
"""Keys that say what foreign weights do not tell of themselves."""


class ImportConfig(Config):
    """See conf/import_weights.yaml."""

    output: UserPath | None
    format: Literal["segapp", "timm"]
    half: bool
    offline: bool
    classes: UserPath | None
    trained_on: Words | None
    licence: str | None
    timm: str | None
    output_stride: Literal[8, 16, 32] | None
    canvas: Annotated[int, Field(gt=0, le=4097)] | Literal["auto"] | None


def main(arguments: list[str]) -> int:
    """Writes the weights that the first argument names to one file. Returns the exit status."""
    name = arguments[0] if arguments else ""
    if not name or name.partition("=")[0] in ImportConfig.model_fields:
        raise UserError("name a source first: python tools/import_weights.py SOURCE output=FILE.safetensors, or: list")
    config = read_config("import_weights", arguments[1:], ImportConfig)
    if name == "list":
        print(listing())
        return 0
    given = [key for key in METADATA if getattr(config, key) not in (None, "auto")]
    named = name in ZOO or name == LATEST
    source = find_weights(name, offline=config.offline) if named else as_typed(name)
    there = (tensorflow.at_step(source)[0], source.with_name(f"{source.name}.index"))
    if not named and not any(each.exists() for each in there):
        raise UserError(f"{name}: no such file, folder or checkpoint prefix, nor a name that list shows")
    if config.output is None and name in ZOO and not given and config.format == "segapp":
        print(source)
        return 0
    if config.output is None:
        raise UserError("say where to: output=FILE.safetensors")
    if config.output.suffix != ".safetensors" or config.output.is_dir():
        raise UserError(f"output={config.output}: a file that ends in .safetensors is written")
    if given and own_file(source) is not None:
        raise UserError(f"{source} describes itself; {given[0]} is for weights from elsewhere")
    with output_parent(config.output.parent):
        info, weights = convert(source, metadata_of_source(source, config), config.output.parent)
        unfit = [key for key in given if key in OF_NETWORKS]
        if unfit and not info.is_segmentation:
            raise UserError(f"{source} holds an encoder alone, which has no {unfit[0]}")
        if config.format == "timm" and info.network.encoder not in (*timm.ENCODERS, *timm.RENAMED):
            is_timms = info.network.encoder.name == "timm"
            why = "of timm's, only Xceptions and Inception-v3 are written" if is_timms else "timm has no such network"
            raise UserError(f"{source} is {info.network.encoder.describe()}; {why}")
        if config.half:
            weights = {name: each.half() if each.dtype == torch.float32 else each for name, each in weights.items()}
        (write_timm if config.format == "timm" else write_converted)(config.output, info, weights)
    log.info("%s: %s", source, info.describe())
    print(f"{config.output} ({config.output.stat().st_size / 1e6:.0f} MB)")
    return 0


def metadata_of_source(source: Path, config: ImportConfig) -> WeightsMetadata:
    """What the config says, else the zoo by the archive's name, else what is usual."""
    archive, _ = tensorflow.at_step(source)
    known = next((name for name, entry in ZOO.items() if is_archive_of(entry, archive)), None)
    base = metadata_of(ZOO[known]) if known else WeightsMetadata(source.name, "unknown", (), None, 16, 513)
    if known:
        log.info("taken for %s, by its name", known)
    elif config.trained_on is None and own_file(source) is None:
        log.info('nothing is known of its training; say "trained_on=[imagenet, ...]" for eval to warn by')
    return WeightsMetadata(
        address=base.address,
        licence=base.licence if config.licence is None else config.licence,
        trained_on=base.trained_on if config.trained_on is None else config.trained_on,
        classes=None if config.classes is None else read_classes(config.classes).names,
        output_stride=config.output_stride or base.output_stride,
        canvas=base.canvas if config.canvas == "auto" else config.canvas,
        timm=config.timm,
    )


def is_archive_of(entry: ZooEntry, source: Path) -> bool:
    return source.name.endswith(ARCHIVES) and entry.url.endswith(f"/{source.name}")
