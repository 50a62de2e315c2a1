"""The base of every config class: values live in conf/, types and ranges beside the code they steer."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


class Config(BaseModel):
    """Immutable; an unknown key is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


UserPath = Annotated[Path, AfterValidator(Path.expanduser)]
"""A path as typed: no shell expands the ~ of output=~/x."""
