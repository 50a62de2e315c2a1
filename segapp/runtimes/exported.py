"""Networks that were exported to another library's format, as runtimes: on the CPU, in float32 outside."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from segapp.base.errors import UserError
from segapp.runtimes.interface import RuntimeSpec

Array = npt.NDArray[np.float32]
Compute = Callable[[Array], Array]
"""Images, N x 3 x H x W, contiguous, to logits, N x K x h x w."""


class ExportedRuntime:
    """A `Runtime` of what another library computes: in NumPy's arrays, and of PyTorch's tensors in tensors again.

    Args:
        compute: by that library.
        spec: with an `input_size`, images go through one by one.
        library: its name, and what it computes in, for the description.

    Raises:
        UserError: when called, if the logits are not such as the spec says.
    """

    device = None

    def __init__(self, compute: Compute, spec: RuntimeSpec, library: str) -> None:
        self.spec = spec
        self._compute = compute
        self._library = library

    @property
    def description(self) -> str:
        return f"output stride {self.spec.output_stride}, {self._library}"

    def __call__(self, images: Any) -> Any:
        array = np.ascontiguousarray(images)
        batches = np.split(array, len(array)) if self.spec.input_size else [array]
        try:
            logits = np.concatenate([self._compute(each) for each in batches]).astype(np.float32, copy=False)
        except MemoryError:
            raise
        except Exception as error:  # each library has its own, for files that were changed since they were exported
            side = f"{images.shape[3]} x {images.shape[2]}"
            raise UserError(
                f"the exported network does not compute images of {side} ({first_line(error)}); export it anew"
            ) from None
        height, width = (-(-side // self.spec.logits_stride) for side in images.shape[2:])
        expected = (len(images), len(self.spec.classes), height, width)
        if logits.shape != expected:
            found = " x ".join(map(str, logits.shape))
            raise UserError(
                f"the exported network gives logits of {found}, where its description has {expected[1]} classes at "
                f"{height} x {width}; export it anew"
            )
        if isinstance(images, np.ndarray):
            return logits
        import torch  # which gave the images

        return torch.from_numpy(logits)


def first_line(error: Exception) -> str:
    """What a library says of a file that it cannot use, in short."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
