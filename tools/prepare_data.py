"""Gets data, and looks at it before anyone trains on it.

python tools/prepare_data.py voc2012                              VOC 2012 (4 GB of disk while it is unpacked)
python tools/prepare_data.py sbd                                  SBD, and trainaug from it, inside VOC 2012
python tools/prepare_data.py coco_voc                             COCO 2017 as VOC's classes (40 GB of disk)
python tools/prepare_data.py check data=folder data.root=DIR      what would make training fail: a page, a verdict
python tools/prepare_data.py check data=voc2012 data.train=train

The first three take root=DIR and offline=true; check takes what follows.
"""

import sys

import segapp.quiet_start  # noqa: F401
from segapp.cli import run_tool
from segapp.tasks.prepare_data import prepare_data

if __name__ == "__main__":
    sys.exit(run_tool("check_data", __doc__, prepare_data))
