"""Writes a checkpoint for another runtime: ONNX, OpenVINO, torch.export. See --help."""

import sys

import segapp.base.quiet_start  # noqa: F401
from segapp.cli import main  # Hydra completes where it reads "@hydra.main"

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
