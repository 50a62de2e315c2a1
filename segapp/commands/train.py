"""Trains a network, scores its best checkpoint, and writes a report.

python tools/train.py experiment=demo                               a few minutes on a CPU, no data needed
python tools/train.py model=deeplabv3plus_xception                  the paper's, on PASCAL VOC 2012
python tools/train.py model=deeplabv3plus_xception model.encoder.weights=null       from scratch
python tools/train.py experiment=folder_finetune data.root=DIR      one's own images and classes (docs/finetune.md)
python tools/train.py resume=runs/train/RUN                         continues a stopped run
"""

import shutil
from pathlib import Path

from segapp.base.devices import pick_device
from segapp.base.distributed import processes, rank
from segapp.base.errors import UserError
from segapp.base.files import sha256
from segapp.cli import PARTIAL, output_folder
from segapp.commands.hints import evaluation_command
from segapp.commands.resumable import read_resumable
from segapp.evaluation.colour_table import colour_table_miou
from segapp.evaluation.evaluate import Evaluation
from segapp.reports.results import print_results, write_results
from segapp.reports.run import write_run_page
from segapp.runs.layout import BEST, CONFIG, ENVIRONMENT, LOG, METRICS, TENSORBOARD, run_weights
from segapp.training.config import LESS_MEMORY as LESS_MEMORY
from segapp.training.config import TrainConfig
from segapp.training.trainer import train

RESUME_MAY_CHANGE = frozenset(
    {
        "data.root",
        "data.cache",
        "accumulate",
        "compile",
        "activation_checkpointing",
        "eval.batch_size",
        "eval.examples",
        "colour_baseline",
        "device",
        "workers",
        "log_every",
        "validate_every",
        "save_every",
        "keep",
        "pictures",
        "offline",
    }
)
"""Keys that do not change what a run computes, but for rounding, and for BN where a part has other images."""


def main(overrides: list[str]) -> int:
    """Trains, scores the best checkpoint, and leaves a report. Returns the exit status."""
    config = read_resumable("train", overrides, TrainConfig, RESUME_MAY_CHANGE)
    if config.output is not None and config.resume is None and not rank():
        _clear(config.output)
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
        print(f"report      {output / 'report.html'}")
        if evaluation.examples:
            print(f"pictures    {output / 'pictures.png'}")
    print(f"run         {output / 'run.html'}")
    print(f"checkpoint  {run_weights(output)}")
    print(f"curves      uv run tensorboard --logdir {output}")
    print()
    print(f"next: segment a picture     uv run python tools/predict.py IMAGE checkpoint={output}")
    if evaluation is not None:
        print(f"      evaluate it again     {evaluation_command(config, output)}")
    if config.data.name == "shapes":
        print("      train on PASCAL VOC   uv run python tools/train.py model=deeplabv3plus_xception (data/README.md)")


LEFTOVERS = {CONFIG, ENVIRONMENT, LOG, METRICS, TENSORBOARD}
"""What a run that ended before its first checkpoint leaves: nothing that anyone could want."""


def _clear(folder: Path) -> None:
    """Empties the folder of a run that never came to a checkpoint.

    Raises:
        UserError: it holds anything else; a file of the user's own that has one of those names is safe, too.
    """
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if present == LEFTOVERS:
        shutil.rmtree(folder)
    elif present:
        raise UserError(f"output={folder} holds files already; name another folder, or resume={folder}")
