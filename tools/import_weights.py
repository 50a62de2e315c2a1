"""Makes one file of ours from weights as they are published, or a file for timm.

python tools/import_weights.py list                                            the weights that have a name
python tools/import_weights.py xception65_voc_coco_trainaug                    into the cache, for later use offline
python tools/import_weights.py deeplabv3_pascal_train_aug_2018_01_04.tar.gz output=voc.safetensors
python tools/import_weights.py DIR/model.ckpt output=mine.safetensors          a TensorFlow checkpoint's prefix
python tools/import_weights.py runs/train/RUN output=encoder.safetensors format=timm
"""

import sys

import segapp.quiet_start  # noqa: F401
from segapp.cli import run_tool
from segapp.tasks.import_weights import import_weights

if __name__ == "__main__":
    sys.exit(run_tool("import_weights", __doc__, import_weights))
