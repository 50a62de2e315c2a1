"""Writes a checkpoint for another runtime, and runs it beside the original: ONNX, OpenVINO, torch.export.

python tools/export.py checkpoint=runs/train/RUN photos/                     ONNX, compared on these images
python tools/export.py checkpoint=latest                                     compared on noise
python tools/export.py checkpoint=latest format=openvino output=net.xml      an IR: net.xml and net.bin
python tools/export.py checkpoint=latest format=torch precision=float16      a program of torch.export
python tools/export.py checkpoint=latest precision=int8 photos/              in int8, ranges measured on these images
python tools/export.py checkpoint=latest precision=int8 photos/ data=voc2012     and the mIoU of both on its val list
python tools/export.py checkpoint=latest size=513 output_stride=8            for images of 513 x 513, one at a time
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from segapp.base.compose import read_config
from segapp.base.config import Config, UserPath
from segapp.base.errors import UserError, megabytes
from segapp.base.files import output_parent
from segapp.base.images import Decoding, read_image
from segapp.cli import PARTIAL, output_folder
from segapp.commands.inputs import find_images, split_arguments
from segapp.data.config import DataConfig
from segapp.evaluation.checks import matched_to_weights
from segapp.evaluation.side_by_side import side_by_side
from segapp.inference.exporting import export
from segapp.inference.open import open_predictor
from segapp.inference.options import Whole
from segapp.inference.runtimes import RuntimeName
from segapp.weights.checkpoint import load_model
from segapp.weights.exported.description import SUFFIXES, ExportOptions, ExportPrecision, Format, files_of
from segapp.weights.find import find_checkpoint

log = logging.getLogger(__name__)

LESS_MEMORY = "lower max_images or size"


class ExportConfig(Config):
    """See conf/export.yaml."""

    data: DataConfig | None = None
    checkpoint: str
    format: Format
    precision: ExportPrecision
    output_stride: Literal[8, 16, 32] | None
    size: Annotated[int, Field(gt=0, le=4097)] | None
    max_images: int = Field(gt=0, le=10000)
    offline: bool
    output: UserPath | None


def main(arguments: list[str]) -> int:
    """Exports; the images named in `arguments` are for comparing. Returns the exit status."""
    named, overrides = split_arguments(arguments)
    config = read_config("export", overrides, ExportConfig)
    suffix = SUFFIXES[config.format]
    if config.output is not None and config.output.suffix != suffix:
        raise UserError(f"output={config.output}: a file of format={config.format} ends in {suffix}")
    if config.format == "torch" and config.precision == "int8":
        raise UserError("precision=int8 is for format=onnx and format=openvino")
    if config.precision == "int8" and not named:
        raise UserError("precision=int8 measures ranges on images such as the network is for; name some")
    paths = find_images(named) if named else []
    paths = paths[:: -(-len(paths) // config.max_images)] if paths else []
    checkpoint = find_checkpoint(config.checkpoint, offline=config.offline)
    model, info = load_model(checkpoint, config.output_stride)
    stride = model.encoder.features[-1].stride
    if config.size is not None and config.size % stride != 1:
        near = max(1, config.size // stride) * stride + 1
        raise UserError(f"size={config.size} is not k * output_stride + 1 at output stride {stride}; take {near}")
    log.info("%s: %s", checkpoint, info.describe())
    decoding = Decoding(info.jpeg_decoder, info.white_level)
    images = [read_image(path, decoding=decoding) for path in paths]
    options = ExportOptions(precision=config.precision, size=config.size)
    with target(config.output, checkpoint.stem + suffix) as path:
        found = export(path, model, info, options, images)
        for file in files_of(path):
            print(f"{megabytes(file.stat().st_size):>9}  {file}")
        compared = f"{len(images)} images" if images else "noise; name images to compare on them"
        print(f"\nbeside the original in float32, on {compared}:")
        print(f"largest difference of logits  {found.difference:.2g} of the largest logit")
        print(f"pixels that change            {found.changed:.4%}")
        if config.data is not None:
            return score(config.data, checkpoint, path, config)
    return 0


def score(data: DataConfig, checkpoint: Path, exported: Path, config: ExportConfig) -> int:
    """Prints the mIoU of the original and of the exported network. Returns the exit status."""
    inference = Whole(canvas=config.size or "trained", scales=(1,), flip=False)
    opened: list[tuple[Path, RuntimeName]] = [(checkpoint, "torch"), (exported, "auto")]
    (original, info), (other, _) = (
        open_predictor(
            path,
            inference,
            output_stride=config.output_stride,
            device="cpu",
            precision="auto",
            runtime=runtime,
            jpeg_decoder="trained",
            white_level="trained",
        )
        for path, runtime in opened
    )
    dataset = data.dataset("val")
    dataset.decoding = original.decoding
    found = side_by_side(matched_to_weights(dataset, checkpoint, info.classes), original, other)
    gain = found.difference.gain
    print(f"mIoU of the original          {found.first:.4f}")
    print(f"mIoU of the exported          {found.second:.4f}")
    print(f"the latter less the former    {gain.value:+.4f}, 95 % interval {gain.low:+.4f} to {gain.high:+.4f}")
    for problem in found.problems:
        print(f"failed: {problem}")
    return PARTIAL if found.problems else 0


@contextmanager
def target(output: Path | None, name: str) -> Iterator[Path]:
    """The file to write: the one named, or `name` in a folder of runs/export."""
    if output is None:
        with output_folder(None, "export", Path(name).stem) as folder:
            yield folder / name
    else:
        with output_parent(output.parent):
            yield output
