"""The base of every config class: values live in conf/, types and ranges beside the code they steer."""

from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from segapp.base.errors import UserError
from segapp.base.files import write_text


class Config(BaseModel):
    """Immutable; an unknown key is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    def kind_of(cls, values: dict[str, Any]) -> type[Self]:
        """The class whose keys these are: this one, or where it stands for several the one that they name."""
        return cls


Words = Annotated[tuple[str, ...], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
"""A list of words; a single one need not stand in brackets."""


def as_typed(path: str | Path) -> Path:
    """With the home folder for ~, which no shell expands in output=~/x; a ~ of nobody stays."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


UserPath = Annotated[Path, AfterValidator(as_typed)]


def parse_yaml(text: str, loader: type[yaml.SafeLoader] = yaml.SafeLoader) -> Any:
    """What a YAML text from elsewhere holds: plain data.

    Raises:
        ValueError: it is none; of what is damaged PyYAML makes errors of every kind.
        UserError: the loader's own.
    """
    try:
        return yaml.load(text, loader)
    except UserError:
        raise
    except Exception as error:
        raise ValueError("not YAML") from error


def save_config(path: Path, config: Config) -> None:
    """Writes the resolved config as YAML."""
    write_text(path, yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as one, by dotted keys."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
