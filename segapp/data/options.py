"""The config keys that every data set has; docs/adding-a-data-set.md."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field

from segapp.base.config import Config, UserPath
from segapp.base.errors import UserError
from segapp.base.remote import cached, is_address, remote_folder


def _address(value: str) -> str:
    if not is_address(value):
        raise ValueError("a folder or an address is expected")
    return value


Address = Annotated[str, AfterValidator(_address)]
"""Of a folder, such as s3://BUCKET/DATA."""


class DataOptions(Config):
    """Keys that every data set has.

    `root`: the folder that it lies in, or its address. For training, `cache`: "memory" holds decoded images;
    `sampler`: "class_balanced" shows images of rare classes more often.
    """

    model_config = ConfigDict(serialize_by_alias=True)

    name: str
    place: Address | UserPath = Field(alias="root", union_mode="left_to_right")
    cache: Literal["none", "memory"]
    sampler: Literal["uniform", "class_balanced"]

    @property
    def root(self) -> Path:
        """The folder; of an address the copy in the cache, which is made at first use."""
        return self.place if isinstance(self.place, Path) else remote_folder(self.place)


def check_network(data: DataOptions, offline: bool) -> None:
    """Raises:
    UserError: the data may be downloaded, but the network may not be used.
    """
    if offline and isinstance(data.place, str) and not cached(data.place).exists():
        raise UserError(f"data.root={data.place} is not in the cache yet, which needs the network: offline=false")
    if offline and getattr(data, "download", False):
        raise UserError("data.download=true needs the network; take offline=true away, or data.download=true")
