"""What the predictor does with class scores: with PyTorch's tensors, or without PyTorch with NumPy's arrays.

Which of the two is told by what is given; so `Any` stands for either.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Size = tuple[int, int]
"""Height and width in pixels."""


def zeros(shape: tuple[int, ...], device: "torch.device | None", dtype: Any = "float32") -> Any:
    """On the device; None: NumPy's."""
    if device is None:
        return np.zeros(shape, dtype)
    import torch

    return torch.zeros(shape, dtype=getattr(torch, dtype), device=device)


def on_device(values: npt.NDArray[Any], device: "torch.device | None") -> Any:
    if device is None:
        return values
    import torch

    return torch.from_numpy(values).to(device)


def no_gradients(device: "torch.device | None") -> AbstractContextManager[Any]:
    """For all that is computed with tensors."""
    if device is None:
        return nullcontext()
    import torch

    return torch.inference_mode()


def to_numpy(values: Any) -> npt.NDArray[Any]:
    """As NumPy's, on the CPU."""
    return values if isinstance(values, np.ndarray) else values.cpu().numpy()


def to_halves(values: Any) -> npt.NDArray[np.float16]:
    """As NumPy's float16, on the CPU."""
    return values.astype(np.float16) if isinstance(values, np.ndarray) else values.half().cpu().numpy()


def mirrored(values: Any) -> Any:
    """N x K x H x W, left to right."""
    return np.ascontiguousarray(values[..., ::-1]) if isinstance(values, np.ndarray) else values.flip(3)


def contiguous(part: Any, whole: Any) -> Any:
    """Part of N x K x h x w, its values in the order in memory of the whole: PyTorch computes by it."""
    if isinstance(part, np.ndarray):
        return part
    import torch

    is_last = whole.is_contiguous(memory_format=torch.channels_last)
    return part.contiguous(memory_format=torch.channels_last if is_last else torch.contiguous_format)


def softmax(scores: Any) -> Any:
    """Of N x K x H x W over K."""
    if not isinstance(scores, np.ndarray):
        return scores.softmax(1)
    values = scores - scores.max(1, keepdims=True)
    np.exp(values, out=values)
    values /= values.sum(1, keepdims=True)
    return values


def best(scores: Any) -> tuple[Any, Any]:
    """Of K x H x W the highest scores, and the lowest classes that have them, uint8 or, of tensors, int64."""
    if not isinstance(scores, np.ndarray):
        return scores.max(0)  # type: ignore[no-any-return]
    highest = scores.max(0)
    left = np.zeros(highest.shape, np.uint8)  # 255 - class: np.argmax over the first axis takes five times as long
    for index, of_class in enumerate(scores):
        np.maximum(left, (of_class == highest).view(np.uint8) * np.uint8(255 - index), out=left)
    labels = ~left
    if np.isnan(highest).any():  # which equals nothing
        labels[np.isnan(highest)] = scores[:, np.isnan(highest)].argmax(0)
    return highest, labels


def labels_of(scores: Any) -> npt.NDArray[np.uint8]:
    """Of K x H x W the classes with the highest scores, as NumPy's."""
    if isinstance(scores, np.ndarray):
        return best(scores)[1]  # type: ignore[no-any-return]
    return scores.argmax(0).byte().cpu().numpy()  # type: ignore[no-any-return]


def moved(mean: Any, values: Any, share: float) -> Any:
    """A share of the way from the float32 mean, in whose place the result may be, to the values; None: all of it."""
    values = values.astype(np.float32) if isinstance(values, np.ndarray) else values.float()
    if mean is None:
        return values
    if not isinstance(mean, np.ndarray):
        return mean.lerp_(values, share)
    mean += (values - mean) * np.float32(share)
    return mean


def share_of_best(scores: Any, highest: Any) -> Any:
    """Of K x H x W and what `best` gives of it, the softmax at its highest place, of which no other is needed."""
    if isinstance(scores, np.ndarray):
        return 1 / np.exp(scores - highest).sum(0)
    return (scores - highest).exp_().sum(0).reciprocal_()


def resize(values: Any, size: Size) -> Any:
    """N x K x h x w: bilinear with align_corners=True."""
    if isinstance(values, np.ndarray):
        return warped(values, size, slice(0, size[0]))
    from segapp.models.layers import resize

    return resize(values, size)


def warped(
    values: npt.NDArray[np.float32], size: Size, rows: slice, *, first: int = 0, height: int | None = None
) -> npt.NDArray[np.float32]:
    """As `resize_rows` of any N."""
    places = height or values.shape[2], values.shape[3]
    down, across = ((number - 1) / max(1, side - 1) for number, side in zip(places, size, strict=True))
    to_source = np.array([[across, 0, 0], [0, down, rows.start * down - first]])
    result = np.empty((*values.shape[:2], rows.stop - rows.start, size[1]), np.float32)
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    for plane, into in zip(values.reshape(-1, *values.shape[2:]), result.reshape(-1, *result.shape[2:]), strict=True):
        cv2.warpAffine(plane, to_source, into.shape[::-1], into, how, cv2.BORDER_REPLICATE)
    return result
