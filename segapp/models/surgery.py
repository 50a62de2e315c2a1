"""What is done to a network from outside, whatever it is: BN's momentum, frozen and folded BN, checkpointing."""

from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter
from torch.utils.checkpoint import checkpoint

from segapp.models.layers import DepthwiseConv2d

SMALL = 65
"""The side in pixels of an image on which a network is tried out; 2 * 32 + 1."""


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


def fold_bn(network: nn.Module) -> None:
    """Puts BN's running statistics, scale and shift into the convolution before it: fewer passes over memory.

    Pairs are found by running the network on one small image: what a convolution gives with its own weight, and BN
    alone takes. All else stays as it is. The network is for inference alone from then on.

    Args:
        network: in evaluation mode; takes images of SMALL x SMALL.
    """
    modules = dict(network.named_modules())
    tensors = [*network.named_parameters(), *network.named_buffers()]
    watch = _ConvsBeforeBN({id(tensor): name.rpartition(".")[0] for name, tensor in tensors})
    with torch.no_grad(), watch:
        network(tensors[0][1].new_zeros(1, 3, SMALL, SMALL))
    for conv_name, norm_name in watch.pairs():
        conv, norm = modules[conv_name], modules[norm_name]
        if isinstance(conv, nn.Conv2d) and isinstance(norm, _BatchNorm):
            _fold(conv, norm)
            parent, _, last = norm_name.rpartition(".")
            setattr(modules[parent], last, nn.Sequential(*norm.children()))  # timm's hold an activation


def compute_in_parts(network: nn.Module) -> None:
    """Has depthwise convolutions of high rates computed by so many channels at a time that they stay in a CPU's cache.

    The same but for rounding; to those who count operators, several for one.
    """
    for module in network.modules():
        if isinstance(module, DepthwiseConv2d):
            module.in_parts = True


@torch.no_grad()
def _fold(conv: nn.Conv2d, norm: _BatchNorm) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale *= norm.weight.double()
    shift = -norm.running_mean.double() if conv.bias is None else conv.bias.double() - norm.running_mean.double()
    bias = shift * scale if norm.bias is None else shift * scale + norm.bias.double()
    dtype = conv.weight.dtype
    conv.weight = nn.Parameter(conv.weight * scale.to(dtype)[:, None, None, None], requires_grad=False)
    conv.bias = nn.Parameter(bias.to(dtype), requires_grad=False)


class _ConvsBeforeBN(TorchFunctionMode):
    """Notes what is done with that which convolutions give.

    Args:
        owners: the name of the module of each parameter and buffer, by the tensor's id.
    """

    def __init__(self, owners: dict[int, str]) -> None:
        super().__init__()
        self._owners = owners
        self._outputs: dict[int, tuple[Tensor, str]] = {}  # the tensors too, that no id is given twice
        self._takers: dict[str, list[str | None]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        gives_any = any(isinstance(each, Tensor) for each in tree_iter(result))  # and not a size
        if not gives_any or (func is Tensor.to and result is args[0]):
            return result
        name = func.__name__
        for each in tree_iter((args, kwargs)):
            _, conv = self._outputs.get(id(each), (None, None))
            if conv is not None:
                norms = {self._owners.get(id(other)) for other in tree_iter((args[1:], kwargs))} - {None}
                is_norm = name == "batch_norm" and each is args[0] and len(norms) == 1
                self._takers[conv].append(norms.pop() if is_norm else None)
        if name in ("conv2d", "deform_conv2d"):
            conv = self._owners.get(id(args[1]))
            if conv is not None:  # run twice, it is taken twice
                self._outputs[id(result)] = result, conv
                self._takers.setdefault(conv, [])
        return result

    def pairs(self) -> list[tuple[str, str]]:
        """Names of a convolution and of the BN that takes all it gives, and nothing else."""
        found = [(conv, takers[0]) for conv, takers in self._takers.items() if len(takers) == 1 and takers[0]]
        norms = [norm for _, norm in found]
        return [(conv, norm) for conv, norm in found if norms.count(norm) == 1]


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
