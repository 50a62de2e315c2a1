"""Every file name of a run's folder, once."""

import shutil
from pathlib import Path

from segapp.base.errors import UserError

CONFIG = "config.yaml"
"""The resolved config; whoever makes the folder writes it."""
ENVIRONMENT = "environment.json"
LOG = "log.txt"
METRICS = "metrics.jsonl"
"""A line for each logged iteration and each validation of a training run."""
TENSORBOARD = "tensorboard"
PICTURES = "pictures"
"""PICTURES/ITERATION.png: validation images as they are labelled on the way."""
RUN_PAGE = "run.html"
COMPARISON = "compare.html"

BEST = "best.safetensors"
"""The best network of a run's validations."""
CHECKPOINTS = "checkpoints"
"""CHECKPOINTS/ITERATION/ holds WEIGHTS, AVERAGED where the run averages them, and STATE."""
WEIGHTS = "weights.safetensors"
AVERAGED = "averaged.safetensors"
STATE = "state.pt"

RESULTS = "metrics.json"
REPORT = "report.html"
EXAMPLES = "pictures.png"
CLASSES = "classes.csv"
"""The most probable classes of images that were classified."""
PREDICTED = "summary"
"""PREDICTED.csv or .parquet: a row for each image that predict was given."""
PROGRESS = "progress"
"""The folder of what predict has done so far."""
PER_CLASS = "per_class.csv"
PER_IMAGE = "per_image.csv"
SUMMARY = "results.md"
AGAINST = "against.json"
TABLE5 = "table5.json"
TABLE5_SUMMARY = "table5.md"
COUNTS = "counts"
"""The folder of what an evaluation has counted so far."""
COUNTS_FILES = "[0-9]*-[0-9]*.npz"
"""START-RANK.npz: what a rank has counted since a start, which was after START images."""

AUDIT = "audit.json"
AUDIT_PAGE = "audit.html"


def is_training_run(folder: Path) -> bool:
    return (folder / METRICS).is_file()


def is_evaluation(folder: Path) -> bool:
    """Whether an evaluation has left what it counted."""
    return any((folder / COUNTS).rglob(COUNTS_FILES))


def is_prediction(folder: Path) -> bool:
    """Whether predict has left what it did."""
    return (folder / PROGRESS).is_dir()


def checkpoint_folders(run: Path) -> list[Path]:
    """Those in a run's folder, the newest last."""
    inside = (run / CHECKPOINTS).iterdir() if (run / CHECKPOINTS).is_dir() else ()
    return sorted(path for path in inside if path.name.isdecimal() and path.is_dir())


def run_weights(folder: Path) -> Path | None:
    """The best network in a run's folder, or else its newest; that in one of its checkpoint folders."""
    candidates = (folder / BEST, *(each / WEIGHTS for each in reversed(checkpoint_folders(folder))), folder / WEIGHTS)
    return next((path for path in candidates if path.is_file()), None)


LEFTOVERS = {CONFIG, ENVIRONMENT, LOG, METRICS, TENSORBOARD}
"""What a run that ended before its first checkpoint leaves: nothing that anyone could want."""


def clear_unstarted(folder: Path) -> None:
    """Removes the folder of a run that never came to a checkpoint.

    Raises:
        UserError: it holds anything else; a file of the user's own that has one of those names is safe, too.
    """
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if present == LEFTOVERS:
        shutil.rmtree(folder)
    elif present:
        raise UserError(f"output={folder} holds files already; name another folder, or resume={folder}")
