"""The geometry of inference and its test-time augmentation: the choices of conf/inference."""

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, field_validator

from segapp.base.config import Config
from segapp.base.errors import UserError
from segapp.inference.test_time_augmentation import TestTimeAugmentation

Side = Annotated[int, Field(gt=0, le=4097)] | Literal["trained"]
"""Pixels, k * output_stride + 1; "trained": the side of the canvas on which a checkpoint was validated."""


class InferenceOptions(Config):
    """What every kind has; see conf/inference."""

    key: ClassVar[str]
    """Names the side in pixels of the square that the network sees at scale 1."""

    scales: tuple[Annotated[float, Field(gt=0, le=4)], ...] = Field(min_length=1)
    flip: bool

    @field_validator("scales")
    @classmethod
    def _once(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(value)) < len(value):
            raise ValueError("a scale is named twice")
        return value

    @property
    def side(self) -> int | Literal["trained"] | None:
        return getattr(self, self.key)  # type: ignore[no-any-return]

    @property
    def augmentation(self) -> TestTimeAugmentation:
        return TestTimeAugmentation(self.scales, self.flip)

    def resolved(self, trained: int | None) -> Self:
        """With the canvas on which a checkpoint was validated in the place of "trained".

        Raises:
            UserError: it was validated on whole images, which are no size for a window.
        """
        if self.side != "trained":
            return self
        if trained is None and self.key != "canvas":
            raise UserError(
                f"inference.{self.key}=trained: this checkpoint was validated on images as they are; "
                f"give a side in pixels, as in inference.{self.key}=513"
            )
        return self.model_copy(update={self.key: trained})


class Whole(InferenceOptions):
    """The whole image: padded to the canvas, a longer side scaled to it; without a canvas as it is."""

    key = "canvas"
    kind: Literal["whole"] = "whole"
    canvas: Side | None


class Sliding(InferenceOptions):
    """Windows over the image, each padded as a canvas is; where they overlap, their probabilities are averaged."""

    key = "window"
    kind: Literal["sliding"] = "sliding"
    window: Side
    overlap: float = Field(ge=0, le=0.9)

    @property
    def step(self) -> int:
        """Pixels from a window to the next, at most."""
        assert isinstance(self.window, int)
        return max(1, round(self.window * (1 - self.overlap)))


class Resized(InferenceOptions):
    """The whole image resized to a square, whatever its proportions are; for classifiers, the middle of it.

    `share`: of either side, of which the middle is shown.
    """

    key = "size"
    kind: Literal["resize"] = "resize"
    size: Side
    share: float = Field(default=1.0, gt=0, le=1)


InferenceConfig = Annotated[Whole | Sliding | Resized, Field(discriminator="kind")]


def check_whole(inference: InferenceConfig) -> InferenceConfig:
    """Raises:
    ValueError: it shows a part of the image, as to classifiers.
    """
    if isinstance(inference, Resized) and inference.share < 1:
        raise ValueError("a share of the image is what classifiers are shown; take inference.share=1 to segment all")
    return inference
