"""What training minimises: cross entropy, Dice, Lovász-softmax, or a weighted sum of them.

Each term is a mean: a sum over pixels or images, divided by a count that follows from the labels alone. Both add up
over the parts of a batch: with the counts of the whole batch, the losses of its micro-batches on all ranks add up to
the loss of the whole, and so do their gradients. A mean of means would weigh a pixel by what its part holds besides.
"""

import math
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, ValidationInfo, field_validator
from torch import Tensor

from segapp.base.classes import IGNORE_INDEX
from segapp.base.config import Config
from segapp.models.layers import resize


class LossConfig(Config):
    """See conf/loss/cross_entropy.yaml. `cross_entropy`, `dice` and `lovasz` are the terms' weights; 0: off."""

    cross_entropy: float = Field(ge=0)
    label_smoothing: float = Field(ge=0, lt=1)
    top_k: float = Field(gt=0, le=1)
    top_k_iterations: int = Field(ge=0)
    class_weights: Literal["none", "balanced"]
    divide_by: Literal["weights", "pixels"]
    dice: float = Field(ge=0)
    lovasz: float = Field(ge=0)

    @field_validator("label_smoothing", "top_k", "class_weights")
    @classmethod
    def _of_the_cross_entropy(cls, value: float | str, info: ValidationInfo) -> float | str:
        plain = {"label_smoothing": 0, "top_k": 1, "class_weights": "none"}[info.field_name or ""]
        if value != plain and info.data.get("cross_entropy") == 0:
            raise ValueError(f"only the cross entropy has it, and loss.cross_entropy=0; take {plain}")
        return value

    @field_validator("class_weights")
    @classmethod
    def _of_all_pixels(cls, value: str, info: ValidationInfo) -> str:
        if value != "none" and info.data.get("top_k", 1) < 1:
            raise ValueError("which pixels are hardest, the labels do not tell, nor their weight; take loss.top_k=1")
        return value

    @field_validator("top_k_iterations")
    @classmethod
    def _of_the_hardest(cls, value: int, info: ValidationInfo) -> int:
        if value and info.data.get("top_k") == 1:
            raise ValueError("the share falls to loss.top_k, which is 1: all pixels; set that below 1")
        return value

    @field_validator("divide_by")
    @classmethod
    def _of_weights(cls, value: str, info: ValidationInfo) -> str:
        if value != "weights" and info.data.get("class_weights") == "none":
            raise ValueError("without loss.class_weights the two are the same; take weights")
        return value

    @field_validator("lovasz")
    @classmethod
    def _any(cls, value: float, info: ValidationInfo) -> float:
        if value == info.data.get("cross_entropy") == info.data.get("dice") == 0:
            raise ValueError("no term is left; give loss.cross_entropy, loss.dice or loss.lovasz a weight above 0")
        return value


class Loss:
    """The weighted sum of the terms that are on.

    Args:
        config: the terms.
        class_weights: K, of the cross entropy, on the labels' device; None: all alike.
    """

    def __init__(self, config: LossConfig, class_weights: Tensor | None = None) -> None:
        assert (class_weights is not None) == (config.class_weights != "none")
        self.config = config
        self.class_weights = class_weights

    def counts(self, labels: Tensor, iteration: int = 0) -> Tensor:
        """What each term is a mean over: T float32, of the terms that are on. Those of a batch's parts add up.

        Cross entropy: the pixels that count, or the weights of their classes. Dice and Lovász: the images with a
        pixel that is not 255.

        Args:
            labels: N x H x W uint8.
            iteration: from 0; see `top_k`.
        """
        config, counts = self.config, []
        valid = (labels != IGNORE_INDEX).flatten(1)
        if config.cross_entropy and self.class_weights is not None and config.divide_by == "weights":
            weights = F.pad(self.class_weights, (0, IGNORE_INDEX + 1 - len(self.class_weights)))
            counts.append(weights[labels.int()].sum())
        elif config.cross_entropy:
            counts.append(_hardest(valid, self.top_k(iteration)).sum())
        counts.extend(valid.any(1).sum() for weight in (config.dice, config.lovasz) if weight)
        return torch.stack([count.float() for count in counts])

    def top_k(self, iteration: int) -> float:
        """The share of pixels that count: it falls from 1 to that of the config in `top_k_iterations`, evenly
        (hard_example_mining_step in research/deeplab/utils/train_utils.py)."""
        done = min(1.0, iteration / self.config.top_k_iterations) if self.config.top_k_iterations else 1.0
        return done * self.config.top_k + (1 - done)

    def __call__(self, logits: Tensor, labels: Tensor, counts: Tensor, iteration: int = 0) -> Tensor:
        """These images' part of the loss of the batch that `counts` counts; all of it, if they are the batch.

        A term that has nothing to count is 0, and so is its gradient.

        Args:
            logits: N x K x h x w of any float type, brought to the labels' size and computed with in float32
                (training/utils/train_utils.py of research/deeplab).
            labels: N x H x W uint8.
            counts: T, of this iteration.
            iteration: from 0; see `top_k`.
        """
        config = self.config
        # Contiguous while it is small: of channels_last logits, log_softmax would copy them at the labels' size.
        # No operator from here on is one that autocast runs in less than float32.
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32)).contiguous()
        log_p = resize(logits, (labels.shape[1], labels.shape[2])).log_softmax(1)
        sums: list[tuple[float, Tensor]] = []
        if config.cross_entropy:
            sums.append((config.cross_entropy, self._cross_entropy(log_p, labels, self.top_k(iteration))))
        if config.dice or config.lovasz:
            present = _present_classes(log_p, labels)
            if config.dice:
                sums.append((config.dice, _dice(present)))
            if config.lovasz:
                sums.append((config.lovasz, _lovasz(present)))
        counts = counts.masked_fill(counts == 0, math.inf)
        return torch.stack([weight * each / count for (weight, each), count in zip(sums, counts, strict=True)]).sum()

    def _cross_entropy(self, log_p: Tensor, labels: Tensor, top_k: float) -> Tensor:
        """Summed over the pixels that count.

        Label smoothing is that of arXiv:1512.00567, section 7: the truth is 1 - s, and s / K of every class is added.
        The hardest pixels are those of the highest loss, as in research/deeplab (top_k_percent_pixels). There they
        are picked from all that a GPU holds, void counted in; here from an image's labelled pixels, since only then
        does the pick not depend on how a batch is split.
        """
        weights = None if self.class_weights is None else self.class_weights.to(log_p.dtype)
        losses = F.nll_loss(log_p, labels.long(), weights, ignore_index=IGNORE_INDEX, reduction="none")
        ignored = labels == IGNORE_INDEX  # whose losses are 0, so that they are never among the hardest
        if smoothing := self.config.label_smoothing:
            weighted = log_p if weights is None else log_p * weights[:, None, None]
            losses = (1 - smoothing) * losses - smoothing * weighted.mean(1).masked_fill(ignored, 0)
        if top_k == 1:
            return losses.sum()
        losses, valid = losses.flatten(1), ~ignored.flatten(1)
        room = min(int(top_k * losses.shape[1]) + 1, losses.shape[1])  # for any image's, at a fixed shape
        beyond = torch.arange(room, device=losses.device) >= _hardest(valid, top_k)[:, None]
        return losses.topk(room, 1).values.masked_fill(beyond, 0).sum()


class ClassLoss:
    """The mean cross entropy of images' classes, with the auxiliary heads' beside it (arXiv:1512.00567, section 4).

    It divides among micro-batches as `Loss` does.

    Args:
        config: of the cross entropy alone; the other terms are of pixels.
        class_weights: K, on the labels' device; None: all alike.
        auxiliary: the weight of each auxiliary head's loss.
    """

    def __init__(self, config: LossConfig, class_weights: Tensor | None = None, auxiliary: float = 0.4) -> None:
        self.config = config
        self.class_weights = class_weights
        self.auxiliary = auxiliary

    def counts(self, labels: Tensor, iteration: int = 0) -> Tensor:
        """The images, or the weights of their classes: 1 float32. `labels`: N x 1 class indices."""
        if self.class_weights is None or self.config.divide_by == "pixels":
            return torch.full((1,), len(labels), dtype=torch.float32, device=labels.device)
        return self.class_weights[labels].sum()[None]

    def __call__(
        self, logits: Tensor | tuple[Tensor, ...], labels: Tensor, counts: Tensor, iteration: int = 0
    ) -> Tensor:
        """These images' part of the loss of the batch that `counts` counts; all of it, if they are the batch.

        Args:
            logits: N x K of any float type, or these and the auxiliary heads'.
            labels: N x 1 class indices.
        """
        if isinstance(logits, Tensor):
            return self._cross_entropy(logits, labels) / counts[0]
        own, *auxiliary = (self._cross_entropy(each, labels) for each in logits)
        return (own + self.auxiliary * torch.stack(auxiliary).sum()) / counts[0]

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Summed over the images, in float32; smoothed as in arXiv:1512.00567, section 7."""
        return F.cross_entropy(
            logits.float(),
            labels[:, 0],
            self.class_weights,
            reduction="sum",
            label_smoothing=self.config.label_smoothing,
        )


AnyLoss = Loss | ClassLoss


def _hardest(valid: Tensor, share: float) -> Tensor:
    """How many of an image's valid pixels count, rounded up: N floats. `valid`: N x P."""
    return (share * valid.sum(1)).ceil()


class _PresentClasses(NamedTuple):
    """A row for each class that an image's label shows: M rows of P = H * W pixels."""

    p: Tensor
    """M x P: the class's probability."""
    truth: Tensor
    """M x P bool: is the label this class?"""
    ignored: Tensor
    """M x P bool: is it 255?"""
    share: Tensor
    """M: 1 / the image's rows, so that a sum over them is a mean over the image's classes."""


def _present_classes(log_p: Tensor, labels: Tensor) -> _PresentClasses:
    classes = log_p.shape[1]
    labels = labels.flatten(1)
    present = labels.new_zeros(len(labels), IGNORE_INDEX + 1, dtype=torch.bool).scatter_(1, labels.long(), True)
    present = present[:, :classes]
    # The one place that waits for a GPU: an image shows few classes, and rows for all K would be many times the work.
    image, index = present.nonzero(as_tuple=True)
    p = log_p.flatten(2).flatten(0, 1).index_select(0, image * classes + index).exp()
    labels = labels[image]
    return _PresentClasses(
        p, labels == index[:, None].to(labels.dtype), labels == IGNORE_INDEX, 1 / present.sum(1)[image]
    )


def _dice(present: _PresentClasses) -> Tensor:
    """Summed over the images: 1 - the mean of their classes' 2 sum(p t) / (sum(p^2) + sum(t^2)).

    arXiv:1606.04797, section 3, of each class against the rest. No smoothing constant: a class that is present has a
    pixel, so that the denominator is at least 1.
    """
    p = present.p.masked_fill(present.ignored, 0)
    overlap = p.masked_fill(~present.truth, 0).sum(1)
    sizes = p.square().sum(1) + present.truth.count_nonzero(1)
    return ((1 - 2 * overlap / sizes) * present.share).sum()


def _lovasz(present: _PresentClasses) -> Tensor:
    """Summed over the images: the mean over their classes of the Lovász extension of the Jaccard loss.

    arXiv:1705.08790, algorithm 1: each error |t - p|, times what the Jaccard loss 1 - I / U grows by as its pixel
    joins the wrong ones, those of larger error. A pixel of the class takes 1 from I, another adds 1 to U: the growth
    is 1 / U or I / (U (U - 1)), without the cancellation of a difference. The order of the errors has no gradient.
    """
    errors = torch.where(present.truth, 1 - present.p, present.p)
    with torch.no_grad():
        # What is ignored comes last: after all pixels of the class I is 0, and nothing grows.
        order = errors.masked_fill(present.ignored, -1).argsort(1, descending=True)
        truth = present.truth.gather(1, order)
        wrong = truth.cumsum(1, dtype=errors.dtype)  # whole numbers: exact in float32 up to 2^24 pixels
        intersection = wrong[:, -1:] - wrong
        before = intersection + torch.arange(wrong.shape[1], dtype=wrong.dtype, device=wrong.device)  # U - 1
        sorted_growth = torch.where(truth, 1, intersection / before) / (before + 1)
        growth = torch.empty_like(errors).scatter_(1, order, sorted_growth)
    return ((errors * growth).sum(1) * present.share).sum()
