"""Puts training runs, finished or not, side by side on one page: folders, globs or latest first, then key=value.

python tools/compare.py runs/train/ONE runs/train/OTHER              differences are to the first
python tools/compare.py runs/train/* output=comparison.html
python tools/compare.py runs/train/ONE latest                       and the run that wrote last under runs/
"""

import logging
import shlex
from collections.abc import Sequence
from pathlib import Path

from segapp.base.config import Config, UserPath, as_typed
from segapp.base.errors import UserError
from segapp.base.files import output_parent
from segapp.base.paths import runs_folder
from segapp.cli import output_folder, read_config
from segapp.commands.inputs import matches, split_arguments
from segapp.reports.compare import MOST, write_comparison
from segapp.runs.environment import environment
from segapp.runs.history import read_run
from segapp.runs.layout import COMPARISON, METRICS
from segapp.weights.find import LATEST

log = logging.getLogger(__name__)


class CompareConfig(Config):
    """See conf/compare.yaml."""

    output: UserPath | None


def main(arguments: list[str]) -> int:
    """Compares the runs named in `arguments`, which key=value may follow. Returns the exit status."""
    named, overrides = split_arguments(arguments)
    config = read_config("compare", overrides, CompareConfig)
    output = config.output
    if output is not None and (output.suffix != ".html" or output.is_dir()):
        raise UserError(f"output={output}: a file that ends in .html is written")
    folders = find_runs(named)
    runs = [read_run(folder) for folder in folders]
    provenance = {"runs": shlex.join(str(folder.resolve()) for folder in folders)} | environment()
    if output is None:
        with output_folder(None, "compare", runs[0].name) as folder:
            output = folder / COMPARISON
            unlike = write_comparison(output, runs, provenance)
    else:
        with output_parent(output.parent):
            unlike = write_comparison(output, runs, provenance)
    if unlike:
        log.warning("these runs are not scored alike: they differ in %s", ", ".join(unlike))
    print(f"page  {output}")
    return 0


def find_runs(arguments: Sequence[str]) -> list[Path]:
    """The folders of all runs named, in order and once each.

    Raises:
        UserError: fewer than two or too many, or something that is no run.
    """
    found: dict[Path, Path] = {}
    for argument in arguments:
        for folder in _folders(argument):
            found.setdefault(folder.resolve(), folder)
    if len(found) < 2:
        have = f"{next(iter(found.values()))} is one run" if found else "no run is named"
        raise UserError(f"{have}; name two or more: python tools/compare.py runs/train/ONE runs/train/OTHER")
    if len(found) > MOST:
        raise UserError(f"{len(found)} runs are named; {MOST} fit on one page")
    return list(found.values())


def _folders(argument: str) -> list[Path]:
    if argument == LATEST:
        newest = max(runs_folder().rglob(METRICS), key=lambda path: path.stat().st_mtime, default=None)
        if newest is None:
            raise UserError(f"no run yet under {runs_folder()}; name a run's folder")
        return [newest.parent]
    path = as_typed(argument)
    if not path.exists():
        folders = [each for each in map(Path, matches(str(path))) if (each / METRICS).is_file()]
        if not folders:
            raise UserError(f"{argument}: no such run")
        return folders
    if (path / METRICS).is_file():
        return [path]
    inside = path.is_dir() and any(path.glob(f"*/{METRICS}"))
    raise UserError(f"{argument}: no run's folder, which holds {METRICS}" + (f"; try {path}/*" if inside else ""))
