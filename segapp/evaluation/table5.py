"""The paper's Table 5 on one checkpoint: output strides and test-time augmentations, their mIoU and their cost."""

from dataclasses import dataclass
from pathlib import Path

import torch

from segapp.base.distributed import ALONE, Processes
from segapp.base.errors import UserError
from segapp.data.options import check_network
from segapp.evaluation.accumulate import accumulate
from segapp.evaluation.checkpoint import open_checkpoint
from segapp.evaluation.checks import check_any_scored, matched_to_weights, warn_of_seen
from segapp.evaluation.config import EvalToolConfig
from segapp.evaluation.confusion import Scores
from segapp.evaluation.labellers import jointly
from segapp.evaluation.score import with_file
from segapp.inference.predictor import scaled
from segapp.inference.test_time_augmentation import TestTimeAugmentation
from segapp.models.flops import forward_flops
from segapp.runtimes.pytorch import PyTorchRuntime
from segapp.weights.exported.description import digest
from segapp.weights.find import find_checkpoint

SINGLE = TestTimeAugmentation((1.0,), flip=False)
SCALES = TestTimeAugmentation((0.5, 0.75, 1.0, 1.25, 1.5, 1.75), flip=False)
MIRRORED = SCALES._replace(flip=True)
AUGMENTATIONS = {16: (SINGLE, MIRRORED), 8: (SINGLE, SCALES, MIRRORED)}
"""By output stride."""
NAMES = {SINGLE: "single scale", SCALES: "six scales", MIRRORED: "six scales, mirrored"}
PUBLISHED = {
    (16, SINGLE): (0.7979, 0.8220),
    (16, MIRRORED): (0.8121, 0.8334),
    (8, SINGLE): (0.8002, 0.8245),
    (8, MIRRORED): (0.8139, 0.8358),
}
"""mIoU on VOC 2012 val of Xception-65 with decoder and separable convolutions, without COCO and with it."""
PUBLISHED_ON = "voc2012 val"
"""The name of that data set."""


@dataclass(frozen=True)
class Cell:
    """Measures are in [0, 1]; None: not published.

    setting: the test-time augmentation, as the paper has it.
    multiply_adds: of an image's forward passes on the canvas, in billions.
    """

    output_stride: int
    setting: str
    protocol: str
    miou: float
    multiply_adds: float
    paper: float | None
    paper_coco: float | None


@dataclass(frozen=True)
class Grid:
    """`problems`: a line for each image that could not be scored."""

    dataset: str
    images: int
    problems: list[str]
    cells: list[Cell]


def score_grid(config: EvalToolConfig, folder: Path, processes: Processes = ALONE) -> Grid:
    """Scores a checkpoint on the data's val list in all cells of Table 5; what is counted is kept in `folder`.

    Of each output stride every forward pass is computed once.

    Raises:
        UserError: the data or the checkpoint cannot be used, the classes do not match, images do not lie on a canvas
            of one size, or none could be scored.
    """
    check_network(config.data, config.offline)
    with processes.main_first():
        dataset = config.dataset()
        path = find_checkpoint(config.checkpoint, offline=config.offline)
    sha256 = digest(path)
    config = with_file(config, path)
    published = PUBLISHED if dataset.name == PUBLISHED_ON else {}
    cells = []
    for output_stride, augmentations in AUGMENTATIONS.items():
        predictor, info = config.model_copy(update={"output_stride": output_stride, "runtime": "torch"}).open(path)
        dataset.decoding = predictor.decoding
        dataset = matched_to_weights(dataset, path, info.classes)
        assert isinstance(predictor.runtime, PyTorchRuntime)  # whose multiply-adds are counted
        if predictor.inference.key != "canvas" or predictor.canvas is None:
            raise UserError("table5=true shows whole images on a canvas: leave inference as it is, or take canvas")
        scored = {"weights": sha256, "protocol": predictor.protocol}
        states = accumulate(
            dataset,
            jointly(predictor, augmentations),
            labellers=len(augmentations),
            batch_size=config.eval.batch_size,
            trimap_widths=None,
            workers=config.workers,
            device=predictor.device,
            processes=processes,
            checkpoint=open_checkpoint(folder, config, dataset, scored, name=f"output_stride_{output_stride}"),
            description=f"output stride {output_stride}",
        )
        for augmentation, state in zip(augmentations, states, strict=True):
            cells.append(
                Cell(
                    output_stride,
                    NAMES[augmentation],
                    predictor.protocol_with(augmentation),
                    Scores(dataset.classes, state.matrix).miou,
                    multiply_adds(predictor.runtime.model, predictor.canvas, augmentation) / 1e9,
                    *published.get((output_stride, augmentation), (None, None)),
                )
            )
    images, problems = len(states[0].indices), list(states[0].problems.values())
    if processes.main:
        check_any_scored(images, problems, int(states[0].matrix.sum()))
        warn_of_seen(dataset, info.trained_on)
    return Grid(dataset.name, images, problems, cells)


def multiply_adds(model: torch.nn.Module, canvas: int, augmentation: TestTimeAugmentation) -> int:
    """Of all variants of an image on a square canvas."""
    sizes = [scaled((canvas, canvas), scale) for scale in augmentation.scales]
    return (1 + augmentation.flip) * sum(forward_flops(model, (1, 3, *size)) // 2 for size in sizes)
