"""Segments images: files, folders or globs first, then key=value. See --help."""

import sys

import segapp.base.quiet_start  # noqa: F401
from segapp.cli import main  # Hydra completes where it reads "@hydra.main"

if __name__ == "__main__":
    sys.exit(main(["predict", *sys.argv[1:]]))
