"""Scores a checkpoint, or a folder of saved masks, against labels, and writes a report.

python tools/eval.py data=voc2012                                   the published VOC weights, by the paper's protocol
python tools/eval.py checkpoint=runs/train/RUN output_stride=8
python tools/eval.py inference=multi_scale output_stride=8           six scales and their mirror images
python tools/eval.py table5=true                                     the paper's Table 5, ours beside its figures
python tools/eval.py checkpoint=latest data=folder data.root=DIR     what was trained here last
python tools/eval.py checkpoint=latest data=image_folder data.root=DIR   a classifier: top-1, top-5, confusions
python tools/eval.py predictions=DIR data=voc2012
python tools/eval.py predictions=DIR against=OTHER data=voc2012      is DIR better than OTHER, or is it chance?
"""

from dataclasses import asdict
from pathlib import Path

from segapp.base.devices import pick_device
from segapp.base.distributed import processes, rank
from segapp.base.files import write_json
from segapp.cli import PARTIAL, output_folder
from segapp.commands.resumable import check_unused, read_resumable, resume_hint
from segapp.evaluation.against import gain_over
from segapp.evaluation.bootstrap import LEVEL, RESAMPLES
from segapp.evaluation.classification import score_classifier
from segapp.evaluation.config import RESUME_MAY_CHANGE, EvalToolConfig
from segapp.evaluation.evaluate import Evaluation
from segapp.evaluation.score import score
from segapp.evaluation.table5 import score_grid
from segapp.reports.classification import print_classification, write_classification
from segapp.reports.results import print_results, write_results
from segapp.reports.table5 import print_grid, write_grid
from segapp.runs.layout import AGAINST, EXAMPLES, REPORT, TABLE5_SUMMARY

LESS_MEMORY = "lower eval.batch_size, or take a smaller canvas or window with inference"


def main(overrides: list[str]) -> int:
    """Scores a checkpoint or a folder of masks, and leaves a report. Returns the exit status."""
    config = read_resumable("eval", overrides, EvalToolConfig, RESUME_MAY_CHANGE)
    if config.resume is None and not rank():
        check_unused(config.output, resumable=True)
    with (
        processes(gpu=pick_device(config.device).type == "cuda") as job,
        output_folder(config.output, "eval", config.data.name + "_table5" * config.table5, job) as output,
        resume_hint(output, job),
    ):
        if config.of_classes:
            classification, source = score_classifier(config, job)
            if job.main:
                write_classification(output, classification, title=classification.dataset, source=source)
                print(f"report    {output / REPORT}\n")
                print_classification(classification)
            return 0 if classification.complete else PARTIAL
        if config.table5:
            grid = score_grid(config, output, job)
            if job.main:
                write_grid(output, grid)
                print(f"table     {output / TABLE5_SUMMARY}\n")
                print_grid(grid)
            return PARTIAL if grid.problems else 0
        evaluation, source = score(config, output, job)
        if job.main:
            report(config, output, evaluation, source)
    return 0 if evaluation.complete else PARTIAL


def report(config: EvalToolConfig, output: Path, evaluation: Evaluation, source: dict[str, str]) -> None:
    """Writes the report, and prints the figures."""
    difference = None if config.against is None else gain_over(config.against, evaluation, config)
    for name in (EXAMPLES, AGAINST):  # of a report that is made anew
        (output / name).unlink(missing_ok=True)
    write_results(output, evaluation, config.eval, title=evaluation.dataset, source=source)
    if difference is not None:
        write_json(output / AGAINST, {"masks": str(config.against), "level": LEVEL, **asdict(difference)})
    print(f"report    {output / REPORT}")
    if evaluation.examples:
        print(f"pictures  {output / EXAMPLES}")
    print()
    if difference is not None:
        gain = difference.gain
        print(
            f"mIoU less that of {config.against}: {gain.value:+.4f}, 95 % interval {gain.low:+.4f} to {gain.high:+.4f}"
        )
        print(f"better in {difference.better:.1%} of {RESAMPLES} resamples of the images\n")
    print_results(evaluation, config.eval)
