"""Trains a network, scores its best checkpoint, and writes a report.

python tools/train.py experiment=demo                               a few minutes on a CPU, no data needed
python tools/train.py model=deeplabv3plus_xception                  the paper's, on PASCAL VOC 2012
python tools/train.py model=deeplabv3plus_xception model.encoder.weights=null       from scratch
python tools/train.py experiment=folder_finetune data.root=DIR      one's own images and classes (docs/finetune.md)
python tools/train.py resume=runs/train/RUN                         continues a stopped run
"""

import sys

import segapp.quiet_start  # noqa: F401
from segapp.cli import run_tool
from segapp.tasks.train import train_and_report

if __name__ == "__main__":
    sys.exit(run_tool("train", __doc__, train_and_report))
