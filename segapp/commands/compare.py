"""Puts training runs, finished or not, side by side on one page: folders, globs or latest first, then key=value.

python tools/compare.py runs/train/ONE runs/train/OTHER              differences are to the first
python tools/compare.py runs/train/* output=comparison.html
python tools/compare.py runs/train/ONE latest                       and the run that wrote last under runs/
"""

import logging
import shlex

from segapp.base.compose import read_config
from segapp.base.config import Config, UserPath
from segapp.base.errors import UserError
from segapp.base.files import output_parent
from segapp.cli import output_folder
from segapp.commands.inputs import find_runs, split_arguments
from segapp.reports.compare import MOST, write_comparison
from segapp.runs.environment import environment
from segapp.runs.history import read_run
from segapp.runs.layout import COMPARISON

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
    folders = find_runs(named, most=MOST)
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
