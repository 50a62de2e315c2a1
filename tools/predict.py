"""Segments images: files, folders or globs first, then key=value.

python tools/predict.py img.jpg                                     the published VOC weights, downloaded once
python tools/predict.py photos/ more/*.png checkpoint=runs/train/RUN output=DIR
python tools/predict.py img.jpg checkpoint=latest                   what was trained here last
python tools/predict.py img.jpg save=[mask,overlay,probabilities,json]
python tools/predict.py photo.jpg inference=sliding                 windows over an image of any size
python tools/predict.py img.jpg inference=multi_scale output_stride=8    slower and better
python tools/predict.py images/ labels=masks/                       reports mIoU, too
"""

import sys

import segapp.quiet_start  # noqa: F401
from segapp.cli import run_tool
from segapp.tasks.predict import predict

if __name__ == "__main__":
    sys.exit(run_tool("predict", __doc__, predict))
