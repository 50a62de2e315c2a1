"""Answers over HTTP what predict writes, and shows a page in the browser; until Ctrl-C or SIGTERM.

python tools/serve.py                                  the published VOC weights, at http://127.0.0.1:8000
python tools/serve.py checkpoint=embedded              the small network that comes with the program
python tools/serve.py checkpoint=runs/train/RUN port=8080
python tools/serve.py checkpoint=net.onnx workers=2    an exported file, by two processes
python tools/serve.py checkpoint=runs/train/CLASSIFIER    the most probable classes of an image
SEGAPP_TOKEN=... python tools/serve.py host=0.0.0.0    from other machines, for those who know the token
"""

from segapp.base.compose import read_config
from segapp.base.extras import require
from segapp.weights.find import chosen, find_checkpoint

LESS_MEMORY = "take a smaller canvas with inference"


def main(overrides: list[str]) -> int:
    """Serves until a signal says to stop. Returns the exit status."""
    require("serve", "serve")
    from segapp.serving.config import ServeConfig
    from segapp.serving.networks import ways_of
    from segapp.serving.server import serve

    config = read_config("serve", overrides, ServeConfig)
    checkpoint = chosen(config.checkpoint, offline=config.offline)
    path = find_checkpoint(checkpoint, offline=config.offline)
    return serve(config.model_copy(update={"checkpoint": checkpoint}), ways_of(config.limits), path)
