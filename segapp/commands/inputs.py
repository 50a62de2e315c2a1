"""What a user names on the command line: images and runs, by files, folders, globs."""

import glob
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from segapp.base.config import as_typed
from segapp.base.errors import UserError, number_of
from segapp.base.images import IMAGE_SUFFIXES
from segapp.base.paths import runs_folder
from segapp.data.pairs import COMPANIONS, is_picture, names_below
from segapp.runs.layout import METRICS, is_training_run
from segapp.weights.find import LATEST

log = logging.getLogger(__name__)


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Paths and Hydra overrides. What exists is a path, whatever is in its name; else key=value is an override."""
    paths: list[str] = []
    overrides: list[str] = []
    for argument in arguments:
        is_override = "=" in argument and not Path(argument).exists() and not matches(argument)
        (overrides if is_override else paths).append(argument)
    return paths, overrides


def matches(pattern: str) -> list[str]:
    """What a glob finds, absolute ones and ** included, in order."""
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 (Path.glob takes no absolute pattern)


def find_images(arguments: Sequence[str]) -> list[Path]:
    """Every image named, in order and once each. A folder gives its images, those in its folders too.

    Raises:
        UserError: nothing is named, or something that is not there or holds no image.
    """
    if not arguments:
        raise UserError("no image is named; python tools/predict.py img.jpg [more files, folders or globs]")
    images: dict[Path, None] = {}
    unread: Counter[str] = Counter()
    for argument in arguments:
        path = _typed(argument)
        if path.is_dir():
            names = names_below(path)
            files = sorted(path / name for name in names if is_picture(name))
            unread.update(Path(name).suffix.lower() for name in names if not is_picture(name))
        elif path.exists():
            files = [path]
        else:
            files = [each for each in map(Path, matches(str(path))) if each.is_file()]
            if not files:
                raise UserError(f"{argument}: no such file or folder")
        if not files:
            raise UserError(f"{argument}: no images in this folder ({', '.join(sorted(IMAGE_SUFFIXES))})")
        images.update(dict.fromkeys(files))
    others = {kind: number for kind, number in sorted(unread.items()) if kind not in COMPANIONS}
    if others:
        told = ", ".join(f"{number} {kind}" for kind, number in others.items())
        log.warning(
            "%s not read: the ending is that of no picture (%s)", number_of(sum(others.values()), "file"), told
        )
    return list(images)


def _typed(argument: str) -> Path:
    """The path as it stands if it exists, else with its ~ expanded."""
    if not argument:
        raise UserError("an argument is empty; name an image")
    path = Path(argument)
    return path if path.exists() else as_typed(path)


def find_runs(arguments: Sequence[str], *, most: int) -> list[Path]:
    """The folders of all runs named, in order and once each.

    Raises:
        UserError: fewer than two or more than `most`, or something that is no run.
    """
    runs: dict[Path, Path] = {}
    for argument in arguments:
        for folder in _run_folders(argument):
            runs.setdefault(folder.resolve(), folder)
    if len(runs) < 2:
        have = f"{next(iter(runs.values()))} is one run" if runs else "no run is named"
        raise UserError(f"{have}; name two or more: python tools/compare.py runs/train/ONE runs/train/OTHER")
    if len(runs) > most:
        raise UserError(f"{len(runs)} runs are named; {most} fit on one page")
    return list(runs.values())


def _run_folders(argument: str) -> list[Path]:
    if argument == LATEST:
        newest = max(runs_folder().rglob(METRICS), key=lambda path: path.stat().st_mtime, default=None)
        if newest is None:
            raise UserError(f"no run yet under {runs_folder()}; name a run's folder")
        return [newest.parent]
    path = as_typed(argument)
    if not path.exists():
        folders = [each for each in map(Path, matches(str(path))) if is_training_run(each)]
        if not folders:
            raise UserError(f"{argument}: no such run")
        return folders
    if is_training_run(path):
        return [path]
    inside = path.is_dir() and any(path.glob(f"*/{METRICS}"))
    raise UserError(f"{argument}: no run's folder, which holds {METRICS}" + (f"; try {path}/*" if inside else ""))
