"""Makes the archive that the PASCAL VOC evaluation server scores. See --help."""

import sys

import segapp.base.quiet_start  # noqa: F401
from segapp.cli import main  # Hydra completes where it reads "@hydra.main"

if __name__ == "__main__":
    sys.exit(main(["voc_server", *sys.argv[1:]]))
