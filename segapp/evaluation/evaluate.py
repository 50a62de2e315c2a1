"""Scores a data set's images, whatever gives their labels."""

from dataclasses import dataclass, field

import torch

from segapp.base.distributed import ALONE, Processes
from segapp.data.dataset import SegmentationDataset
from segapp.data.loading.loader import Workers
from segapp.evaluation.accumulate import accumulate
from segapp.evaluation.checkpoint import EvaluationCheckpoint
from segapp.evaluation.checks import check_classes
from segapp.evaluation.config import EvalConfig
from segapp.evaluation.confusion import Scores, mean_iou
from segapp.evaluation.details import Details
from segapp.evaluation.examples import Example, make_examples, spread, worst_by_class
from segapp.evaluation.labellers import Labeller


@dataclass(frozen=True)
class Evaluation:
    """What was scored, and how well.

    Attributes:
        problems: a line for each image that could not be scored.
        examples: the best, the worst and some between.
        worst: for some of the classes, worst first, the image in which most pixels of the class are wrong.
        details: None if none were asked for.
    """

    dataset: str
    scores: Scores
    images: int
    problems: list[str]
    protocol: str
    examples: list[Example]
    worst: dict[str, Example] = field(default_factory=dict)
    details: Details | None = None

    @property
    def complete(self) -> bool:
        return not self.problems


def evaluate(
    dataset: SegmentationDataset,
    label: Labeller,
    *,
    protocol: str,
    config: EvalConfig,
    workers: Workers,
    device: torch.device | str = "cpu",
    processes: Processes = ALONE,
    checkpoint: EvaluationCheckpoint | None = None,
) -> Evaluation:
    """One dataset-wide confusion matrix over whole images (arXiv:1802.02611, section 4; 255 ignored).

    Args:
        label: gives labels on `device`.
        protocol: how `label` makes its labels, in words.
        processes: share the images, each of which is scored once; all get the whole result, the main one its examples.
        checkpoint: where what is counted is kept, and read from if a part of it is there.

    Raises:
        UserError: the data set has no labels, or lacks a class named in `config.classes`.
    """
    check_classes(config, dataset)
    state = accumulate(
        dataset,
        lambda samples: [label(samples)],
        labellers=1,
        batch_size=config.batch_size,
        trimap_widths=config.trimap_widths if config.detailed else None,
        workers=workers,
        device=torch.device(device),
        processes=processes,
        checkpoint=checkpoint,
        description=f"scoring {dataset.name}",
    )[0]
    indices, scores, details = state.indices.tolist(), Scores(dataset.classes, state.matrix), None
    if state.counts is not None:
        ids = tuple(dataset.ids[index] for index in indices)
        details = Details(ids, state.areas, config.trimap_widths, state.counts, state.reliability)
    examples: list[Example] = []
    worst: dict[str, Example] = {}
    if processes.main:
        chosen = spread(mean_iou(state.areas), config.examples)
        of_classes = worst_by_class(state.areas, scores, config.examples if config.detailed else 0)
        made = {
            at: example
            for at in dict.fromkeys([*chosen, *of_classes.values()])
            for example in make_examples(dataset, label, [indices[at]])
        }
        examples = [made[at] for at in chosen if at in made]
        worst = {name: made[at] for name, at in of_classes.items() if at in made}
    problems = list(state.problems.values())
    return Evaluation(dataset.name, scores, len(indices), problems, protocol, examples, worst, details)
