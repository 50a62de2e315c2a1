"""The config keys that every data set has; docs/adding-a-data-set.md."""

from typing import Literal

from segapp.base.config import Config, UserPath
from segapp.base.errors import UserError


class DataOptions(Config):
    """Keys that every data set has.

    `root`: the folder that it lies in. For training, `cache`: "memory" holds decoded images; `sampler`:
    "class_balanced" shows images of rare classes more often.
    """

    name: str
    root: UserPath
    cache: Literal["none", "memory"]
    sampler: Literal["uniform", "class_balanced"]


def check_network(data: DataOptions, offline: bool) -> None:
    """Raises:
    UserError: the data may be downloaded, but the network may not be used.
    """
    if offline and getattr(data, "download", False):
        raise UserError("data.download=true needs the network; take offline=true away, or data.download=true")
