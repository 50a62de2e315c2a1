"""Makes the archive of masks that the PASCAL VOC evaluation server scores: the test set's labels are not public.

python tools/voc_server.py data.root=VOCdevkit/VOC2012 output=DIR      the published VOC weights; again: goes on
python tools/voc_server.py checkpoint=runs/train/RUN output=DIR competition=comp5
python tools/voc_server.py predictions=DIR                             checks and packs masks that are there
"""

import sys

import segapp.quiet_start  # noqa: F401
from segapp.cli import run_tool
from segapp.tasks.server import pack_for_server

if __name__ == "__main__":
    sys.exit(run_tool("voc_server", __doc__, pack_for_server))
