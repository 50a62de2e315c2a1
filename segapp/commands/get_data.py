"""What tools/prepare_data.py does to get data."""

import shlex
from collections.abc import Callable
from functools import partial
from pathlib import Path

from segapp.base.compose import compose_config, read_config
from segapp.base.config import Config, UserPath
from segapp.base.paths import as_invoked
from segapp.commands.check_data import CheckConfig
from segapp.data.getting.coco import get_coco
from segapp.data.getting.imagenet import prepare_imagenet
from segapp.data.getting.sbd import get_trainaug
from segapp.data.getting.voc import get_voc


class GetConfig(Config):
    """See conf/prepare_data.yaml."""

    root: UserPath | None
    offline: bool


class ImageNetConfig(Config):
    """See conf/prepare_imagenet.yaml."""

    root: UserPath
    archives: UserPath


def get_data(data: str, get: Callable[..., None], after: str, overrides: list[str]) -> int:
    """Runs `get` on the root of the data set `data`, and tells what to do `after` it. Returns the exit status."""
    config = read_config("prepare_data", overrides, GetConfig)
    root = config.root or Path(compose_config("check_data", [f"data={data}"])["data"]["root"])
    get(root, offline=config.offline)
    arguments = after.format(shlex.quote(str(root)))
    print(as_invoked(f"{root} has it; next: uv run python tools/prepare_data.py {arguments}"))
    return 0


def get_coco_voc(overrides: list[str]) -> int:
    """COCO, and its masks as VOC's classes. Returns the exit status."""

    def get(root: Path, offline: bool) -> None:
        get_coco(root, offline=offline)
        data = read_config("check_data", ["data=coco_voc", f"data.root={root}"], CheckConfig).data
        data.dataset("train"), data.dataset("val")  # draws the masks

    return get_data("coco_voc", get, "check data=coco_voc data.root={}", overrides)


def get_imagenet(overrides: list[str]) -> int:
    """ImageNet in class folders. Returns the exit status."""
    config = read_config("prepare_imagenet", overrides, ImageNetConfig)
    prepare_imagenet(config.root, config.archives)
    root = shlex.quote(str(config.root))
    train = f"uv run python tools/train.py experiment=imagenet_xception data.root={root}"
    print(as_invoked(f"{config.root} has it; next: {train}"))
    return 0


get_voc2012 = partial(get_data, "voc2012", get_voc, "sbd root={}")
get_sbd = partial(get_data, "voc2012", get_trainaug, "check data=voc2012 data.root={}")
