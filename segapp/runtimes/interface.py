"""What turns a batch of images into logits, whichever library computes; the predictor knows no more of it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from segapp.base.normalization import Normalization

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class RuntimeSpec:
    """What a network is and takes.

    Attributes:
        classes: names by index.
        background: the class that pictures leave uncoloured; None: all are coloured.
        normalization: of the images that it is given.
        output_stride: 8, 16 or 32.
        logits_stride: the image's pixels to a step of the logits, which have ceil(side / logits_stride) places.
        input_size: height and width in pixels of the only images it takes; None: any.
    """

    classes: tuple[str, ...]
    background: int | None
    normalization: Normalization
    output_stride: int
    logits_stride: int
    input_size: tuple[int, int] | None = None


class Runtime(Protocol):
    """Called with normalised images on its device, N x 3 x H x W, it gives logits there, N x K x h x w; in float32.

    N is any number; images may be channels_last in memory. Both are PyTorch's tensors, or NumPy's arrays for one that
    needs no PyTorch, whose device is None. See docs/adding-a-runtime.md.
    """

    @property
    def spec(self) -> RuntimeSpec: ...

    @property
    def device(self) -> "torch.device | None": ...

    @property
    def description(self) -> str:
        """What a figure depends on, in the protocol's words: two that compute otherwise have different ones."""
        ...

    def __call__(self, images: Any) -> Any: ...
