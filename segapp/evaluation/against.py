"""Whether what was scored is better than other saved masks of the same images, or whether it is chance."""

from pathlib import Path

from segapp.base.errors import UserError
from segapp.evaluation.bootstrap import Difference, miou_difference
from segapp.evaluation.config import EvalToolConfig
from segapp.evaluation.evaluate import Evaluation
from segapp.evaluation.score import score_masks


def gain_over(masks: Path, evaluation: Evaluation, config: EvalToolConfig) -> Difference:
    """How much better what was scored by `config` is than the masks in a folder, image by image.

    Raises:
        UserError: the folder cannot be used, or not the same images could be scored.
    """
    plain = config.eval.model_copy(update={"examples": 0, "trimap_widths": ()})
    other = score_masks(masks, config.dataset(), plain, config.workers)
    if evaluation.details is None or other.details is None or evaluation.details.ids != other.details.ids:
        problem = [*other.problems, *evaluation.problems][0]
        raise UserError(f"against={masks}: not the same images could be scored; {problem}")
    return miou_difference(other.details.areas, evaluation.details.areas)
