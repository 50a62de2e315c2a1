"""The base of every config class: values live in conf/, types and ranges beside the code they steer."""

from pydantic import BaseModel, ConfigDict


class Config(BaseModel):
    """Immutable; an unknown key is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)
