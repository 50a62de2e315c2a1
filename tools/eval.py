"""Scores a checkpoint, or a folder of saved masks, against labels, and writes a report. See --help."""

import sys

import segapp.base.quiet_start  # noqa: F401
from segapp.cli import main  # Hydra completes where it reads "@hydra.main"

if __name__ == "__main__":
    sys.exit(main(["eval", *sys.argv[1:]]))
