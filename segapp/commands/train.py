"""Trains a network, scores its best checkpoint, and writes a report.

python tools/train.py experiment=demo                               a few minutes on a CPU, no data needed
python tools/train.py model=deeplabv3plus_xception                  the paper's, on PASCAL VOC 2012
python tools/train.py model=deeplabv3plus_xception encoder_weights=null       from scratch
python tools/train.py experiment=folder_finetune data.root=DIR      one's own images and classes (docs/finetune.md)
python tools/train.py resume=runs/train/RUN                         continues a stopped run
"""

from pathlib import Path

from segapp.base.devices import pick_device
from segapp.base.distributed import processes, rank
from segapp.base.files import sha256
from segapp.base.paths import as_invoked
from segapp.cli import PARTIAL, output_folder
from segapp.commands.hints import evaluation_command
from segapp.commands.resumable import read_resumable
from segapp.evaluation.colour_table import colour_table_miou
from segapp.evaluation.evaluate import Evaluation
from segapp.reports.results import print_results, write_results
from segapp.reports.run import write_run_page
from segapp.runs.layout import BEST, EXAMPLES, REPORT, RUN_PAGE, clear_unstarted, run_weights
from segapp.training.config import LESS_MEMORY as LESS_MEMORY
from segapp.training.config import RESUME_MAY_CHANGE, TrainConfig
from segapp.training.trainer import train


def main(overrides: list[str]) -> int:
    """Trains, scores the best checkpoint, and leaves a report. Returns the exit status."""
    config = read_resumable("train", overrides, TrainConfig, RESUME_MAY_CHANGE)
    if config.output is not None and config.resume is None and not rank():
        clear_unstarted(config.output)
    with (
        processes(gpu=pick_device(config.device).type == "cuda") as job,
        output_folder(config.output, "train", config.name, job) as output,
    ):
        evaluation = train(config, output, job)
        complete = evaluation is None or evaluation.complete
        if job.main:
            report(config, output, evaluation)
    return 0 if complete else PARTIAL


def report(config: TrainConfig, output: Path, evaluation: Evaluation | None) -> None:
    """Writes the report, and prints the figures and what to do next."""
    colour_table = None
    if evaluation is not None:
        colour_table = colour_table_miou(config.data, config.eval, config.workers) if config.colour_baseline else None
        best = output / BEST
        source = {"checkpoint": str(best), "SHA-256": sha256(best), "data": evaluation.dataset}
        write_results(output, evaluation, config.eval, title=config.name, source=source, colour_table=colour_table)
    write_run_page(output)
    if evaluation is not None:
        print_results(evaluation, config.eval, colour_table)
        print()
        print(f"report      {output / REPORT}")
        if evaluation.examples:
            print(f"pictures    {output / EXAMPLES}")
    print(f"run         {output / RUN_PAGE}")
    print(f"checkpoint  {run_weights(output)}")
    lines = [
        f"curves      uv run tensorboard --logdir {output}",
        "",
        f"next: segment a picture     uv run python tools/predict.py IMAGE checkpoint={output}",
    ]
    if evaluation is not None:
        lines.append(f"      evaluate it again     {evaluation_command(config, output)}")
    if config.data.name == "shapes":
        lines.append(
            "      train on PASCAL VOC   uv run python tools/train.py model=deeplabv3plus_xception (data/README.md)"
        )
    print(as_invoked("\n".join(lines)))
