"""Gets data, and looks at it before anyone trains on it.

python tools/prepare_data.py voc2012                              VOC 2012 (4 GB of disk while it is unpacked)
python tools/prepare_data.py sbd                                  SBD, and trainaug from it, inside VOC 2012
python tools/prepare_data.py coco_voc                             COCO 2017 as VOC's classes (40 GB of disk)
python tools/prepare_data.py imagenet archives=DIR root=DIR       ImageNet in class folders, of its archives (150 GB)
python tools/prepare_data.py check data=folder data.root=DIR      what would make training fail: a page, a verdict
python tools/prepare_data.py check data=voc2012 data.train=train

The first three take root=DIR and offline=true; check takes what follows.
"""

from collections.abc import Callable

from segapp.base.errors import UserError
from segapp.commands.check_data import check
from segapp.commands.get_data import get_coco_voc, get_imagenet, get_sbd, get_voc2012

COMMANDS: dict[str, Callable[[list[str]], int]] = {
    "voc2012": get_voc2012,
    "sbd": get_sbd,
    "coco_voc": get_coco_voc,
    "imagenet": get_imagenet,
    "check": check,
}
"""By the first argument; each takes the others."""


CONFIGS = ("check_data", "prepare_data", "prepare_imagenet")
"""Of `check`, of what gets data, and of `imagenet`, which has them."""


def main(arguments: list[str]) -> int:
    """Runs the command that the first argument names. Returns the exit status."""
    command = COMMANDS.get(arguments[0]) if arguments else None
    if command is None:
        named = f"{arguments[0]} is no command" if arguments else "say what to do"
        raise UserError(f"{named}: python tools/prepare_data.py {'|'.join(COMMANDS)} [key=value ...]")
    return command(arguments[1:])
