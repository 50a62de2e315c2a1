"""Answers over HTTP, and shows a page. See --help."""

import sys

import segapp.base.quiet_start  # noqa: F401
from segapp.cli import main  # Hydra completes where it reads "@hydra.main"

if __name__ == "__main__":
    sys.exit(main(["serve", *sys.argv[1:]]))
