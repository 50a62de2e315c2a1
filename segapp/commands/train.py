"""Trains a network, scores its best checkpoint, and writes a report.

python tools/train.py experiment=demo                               a few minutes on a CPU, no data needed
python tools/train.py model=deeplabv3plus_xception                  the paper's, on PASCAL VOC 2012
python tools/train.py model=deeplabv3plus_xception encoder_weights=null       from scratch
python tools/train.py experiment=folder_finetune data.root=DIR      one's own images and classes (docs/finetune.md)
python tools/train.py task=classification data.root=DIR             a classifier of images in a folder for each class
python tools/train.py resume=runs/train/RUN                         continues a stopped run
python tools/train.py -m experiment=demo optimizer.lr=0.02,0.07     a run of each value, and which is best
"""

from pathlib import Path

from segapp.base.devices import pick_device
from segapp.base.distributed import processes, rank
from segapp.base.files import sha256
from segapp.base.paths import as_invoked
from segapp.cli import PARTIAL, output_folder
from segapp.commands.hints import encoder_words, evaluation_command
from segapp.commands.resumable import read_resumable
from segapp.evaluation.classification import Classification
from segapp.evaluation.colour_table import colour_table_miou
from segapp.evaluation.evaluate import Evaluation
from segapp.reports.classification import print_classification, write_classification
from segapp.reports.results import print_results, write_results
from segapp.reports.run import write_run_page
from segapp.runs.layout import BEST, EXAMPLES, REPORT, RUN_PAGE, clear_unstarted, run_weights
from segapp.sweeps.sweep import make_sweep
from segapp.training.config import LESS_MEMORY as LESS_MEMORY
from segapp.training.config import RESUME_MAY_CHANGE, SegmentConfig, TrainConfig
from segapp.training.trainer import Watch, train

CONFIGS = ("train", "task/segmentation", "task/classification")


def main(overrides: list[str], watch: Watch | None = None) -> int:
    """Trains, scores the best checkpoint, and leaves a report. Returns the exit status.

    Args:
        watch: may break the run off, as a search does with what has no prospects.
    """
    config = read_run_config(overrides)
    if config.output is not None and config.resume is None and not rank():
        clear_unstarted(config.output)
    with (
        processes(gpu=pick_device(config.device).type == "cuda") as job,
        output_folder(config.output, "train", config.name, job) as output,
    ):
        evaluation = train(config, output, job, watch)
        complete = evaluation is None or evaluation.complete
        if job.main:
            report(config, output, evaluation)
    return 0 if complete else PARTIAL


def read_run_config(overrides: list[str]) -> TrainConfig:
    return read_resumable("train", overrides, TrainConfig, RESUME_MAY_CHANGE)


def sweep(overrides: list[str]) -> int:
    """--multirun: a run of each combination of values, and the page that compares them. Returns the exit status."""
    return make_sweep(overrides, read_run_config)


def report(config: TrainConfig, output: Path, evaluation: Evaluation | Classification | None) -> None:
    """Writes the report, and prints the figures and what to do next."""
    if evaluation is not None:
        best = output / BEST
        source = {"checkpoint": str(best), "SHA-256": sha256(best), "data": evaluation.dataset}
        if isinstance(evaluation, Classification):
            write_classification(output, evaluation, title=config.name, source=source)
            print_classification(evaluation)
        else:
            assert isinstance(config, SegmentConfig)
            colour_table = (
                colour_table_miou(config.data, config.eval, config.workers) if config.colour_baseline else None
            )
            write_results(output, evaluation, config.eval, title=config.name, source=source, colour_table=colour_table)
            print_results(evaluation, config.eval, colour_table)
        print()
        print(f"report      {output / REPORT}")
        if (output / EXAMPLES).exists():
            print(f"pictures    {output / EXAMPLES}")
    write_run_page(output)
    print(f"run         {output / RUN_PAGE}")
    print(f"checkpoint  {run_weights(output)}")
    does = "segment" if isinstance(config, SegmentConfig) else "classify"
    lines = [
        f"curves      uv run tensorboard --logdir {output}",
        "",
        f"next: {does} a picture     uv run python tools/predict.py IMAGE checkpoint={output}",
    ]
    if evaluation is not None:
        lines.append(f"      evaluate it again     {evaluation_command(config, output)}")
    if not isinstance(config, SegmentConfig):
        lines.append(
            f"      segment with it       uv run python tools/train.py {encoder_words(config, output)} data=..."
        )
    if config.data.name == "shapes":
        lines.append(
            "      train on PASCAL VOC   uv run python tools/train.py model=deeplabv3plus_xception (data/README.md)"
        )
    print(as_invoked("\n".join(lines)))
