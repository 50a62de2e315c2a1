"""Scores a checkpoint, or a folder of saved masks, against labels, and writes a report.

python tools/eval.py data=voc2012                                   the published VOC weights, by the paper's protocol
python tools/eval.py checkpoint=runs/train/RUN output_stride=8
python tools/eval.py inference=multi_scale output_stride=8           six scales and their mirror images
python tools/eval.py table5=true                                     the paper's Table 5, ours beside its figures
python tools/eval.py checkpoint=latest data=folder data.root=DIR     what was trained here last
python tools/eval.py predictions=DIR data=voc2012
python tools/eval.py predictions=DIR against=OTHER data=voc2012      is DIR better than OTHER, or is it chance?
"""

import sys

import segapp.quiet_start  # noqa: F401
from segapp.cli import run_tool
from segapp.tasks.evaluate import evaluate_and_report

if __name__ == "__main__":
    sys.exit(run_tool("eval", __doc__, evaluate_and_report))
