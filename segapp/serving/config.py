"""What the service is told: where it answers, and what one request may ask of it."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from segapp.base.compose import choices
from segapp.base.config import Config, Words
from segapp.base.images import MAX_PIXELS
from segapp.inference.open import PredictorOptions


class Limits(Config):
    """Of one request; see conf/serve.yaml.

    Attributes:
        bytes: of the image's file.
        pixels: of the image.
        shown: pixels that the network is shown of it: in all windows, scales and mirror images together.
        inference: choices of conf/inference that it may name.
        scales: that it may name.
        flip: whether it may ask for mirror images.
    """

    bytes: int = Field(gt=0)
    pixels: int = Field(gt=0, le=2 * MAX_PIXELS)
    shown: int = Field(gt=0)
    inference: Words
    scales: tuple[Annotated[float, Field(gt=0, le=4)], ...]
    flip: bool

    @field_validator("inference")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = choices("inference")
        unknown = [name for name in value if name not in known]
        if unknown:
            raise ValueError(f"{unknown[0]} is none of {', '.join(known)}")
        return value


class ServeConfig(PredictorOptions):
    """See conf/serve.yaml.

    Attributes:
        batch_size: "auto" is 8 on a GPU; else 1, which is faster there, and to the bit what `predict` computes.
        wait: milliseconds in which others may join a batch.
        queue: requests that a process has in work or waiting.
        memory: bytes that their pictures and results may take.
        deadline: seconds from the last byte of a request to its answer.
        upload: seconds from the first byte of a request to its last.
    """

    checkpoint: str
    offline: bool
    host: str
    port: int = Field(ge=0, le=65535)
    workers: int = Field(gt=0, le=256)
    token: Annotated[str, Field(min_length=1, pattern=r"^[!-~]+$")] | None
    origins: Words
    batch_size: Annotated[int, Field(gt=0)] | Literal["auto"]
    wait: float = Field(ge=0, le=1000)
    queue: int = Field(gt=0)
    memory: int = Field(gt=0)
    deadline: float = Field(gt=0)
    upload: float = Field(gt=0)
    limits: Limits
