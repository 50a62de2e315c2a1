"""Puts training runs, finished or not, side by side on one page: folders, globs or latest first, then key=value.

python tools/compare.py runs/train/ONE runs/train/OTHER              differences are to the first
python tools/compare.py runs/train/* output=comparison.html
python tools/compare.py runs/train/ONE latest                       and the run that wrote last under runs/
"""

import sys

import segapp.quiet_start  # noqa: F401
from segapp.cli import run_tool
from segapp.tasks.compare import compare

if __name__ == "__main__":
    sys.exit(run_tool("compare", __doc__, compare))
