"""Makes one file of ours from weights as they are published, or a file for timm. See --help."""

import sys

import segapp.base.quiet_start  # noqa: F401
from segapp.cli import main  # Hydra completes where it reads "@hydra.main"

if __name__ == "__main__":
    sys.exit(main(["import_weights", *sys.argv[1:]]))
