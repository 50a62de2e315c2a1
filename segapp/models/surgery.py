"""What is done to a network from outside, whatever it is: BN's momentum, frozen BN, activation checkpointing."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def set_bn_momentum(network: nn.Module, momentum: float) -> None:
    """How fast every BN's running statistics follow: PyTorch's momentum, 1 - TensorFlow's decay."""
    for norm in _norms(network):
        norm.momentum = momentum


def freeze_bn(network: nn.Module) -> None:
    """Keeps every BN's running statistics for good, whatever `train()` says; its scale and shift go on learning.

    As fine_tune_batch_norm=False in research/deeplab (core/feature_extractor.py: is_training alone changes).
    """
    for norm in _norms(network):
        norm.eval()
        norm.train = MethodType(_stays, norm)  # type: ignore[method-assign]


def _stays(norm: nn.Module, mode: bool = True) -> nn.Module:
    return norm


def checkpoint_activations(blocks: Iterable[nn.Module]) -> None:
    """Has each block compute its activations anew in the backward pass: less memory, a third slower, the same bits.

    Names of parameters stay, and so do BN's statistics, which count a batch once.
    """
    for block in blocks:
        block.forward = partial(_checkpointed, block)


def _checkpointed(block: nn.Module, *inputs: Any) -> Any:
    run = partial(type(block).forward, block)
    if not block.training:
        return run(*inputs)
    if torch.compiler.is_compiling():  # counts a batch once by itself, and knows no such contexts
        return checkpoint(run, *inputs, use_reentrant=False)
    return checkpoint(run, *inputs, use_reentrant=False, context_fn=partial(_recompute_contexts, block))


def _recompute_contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), _uncounted(block)


@contextmanager
def _uncounted(block: nn.Module) -> Iterator[None]:
    """Keeps the recomputation of a block from counting its batch into the BN statistics twice."""
    norms = list(_norms(block))
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm, (_, tracked) in zip(norms, before, strict=True):
        norm.momentum, norm.num_batches_tracked = 0.0, None if tracked is None else tracked.clone()
    try:
        yield
    finally:
        for norm, (momentum, tracked) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, tracked


def _norms(network: nn.Module) -> Iterator[_BatchNorm]:
    return (module for module in network.modules() if isinstance(module, _BatchNorm))
