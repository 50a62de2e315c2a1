"""The loss, at the label's size."""

import torch.nn.functional as F
from torch import Tensor

from segapp.classes import IGNORE_INDEX
from segapp.models.layers import resize


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean over the pixels that are not 255; 0 where all are.

    Args:
        logits: N x K x h x w, brought to the labels' size here (training/utils/train_utils.py of research/deeplab).
        labels: N x H x W, integers.
    """
    logits = resize(logits.float(), (labels.shape[1], labels.shape[2]))
    labels = labels.long()
    total = F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / (labels != IGNORE_INDEX).sum().clamp(min=1)
