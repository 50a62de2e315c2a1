"""Times the network, training, loading or measures beside peers, interleaved, and quotes ratios of medians.

python tools/benchmark.py infer
python tools/benchmark.py train batch_size=16 compile=true
python tools/benchmark.py data data.root=/path/to/VOCdevkit/VOC2012 data.train=train
python tools/benchmark.py measures data.root=/path/to/VOCdevkit/VOC2012 compile=true
uv run --with segmentation-models-pytorch python tools/benchmark.py infer size=[512,512]
"""

from segapp.benchmarks.networks import main as main

LESS_MEMORY = "lower batch_size or size"
