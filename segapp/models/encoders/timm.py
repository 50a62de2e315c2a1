"""Any network of timm that has features of stride 4 and of the output stride, as an encoder.

The network is timm's `features_only`, and so are its names of weights, behind "network.". Its strides are given up by
the rule of `segapp.models.encoders.atrous` and not by timm, which cannot for many, and for some gives other values.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from segapp.base.errors import UserError
from segapp.models.encoders.atrous import fill_places, set_output_stride
from segapp.models.encoders.interface import IMAGENET, Encoder, EncoderOptions, Feature, Normalization

PROBE = 64
"""The side of an image by which strides are told: two places at stride 32."""
ODD = ((33, 70), (1, 1))
"""Sizes of images; a network that does not take them as they are is given multiples of its greatest stride."""


class TimmConfig(EncoderOptions):
    """See conf/model/encoder/timm.yaml. `model`: the network's name in timm, with or without a tag of weights."""

    name: Literal["timm"]
    model: str = "resnet50"

    def build(self, output_stride: int) -> "TimmEncoder":
        """Raises:
        UserError: timm has no such network, or it has no feature of stride 4 or of the output stride.
        """
        network = _create(self.model)
        try:
            return TimmEncoder(network, output_stride)
        except _UnfitError as error:
            raise UserError(f"model.encoder.model={self.model} {error}") from error


class _UnfitError(Exception):
    """Why a network cannot be an encoder."""


def _create(name: str) -> Any:
    import timm  # takes longer than all else that a tool imports

    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        near = get_close_matches(architecture, timm.list_models(), 1)
        advice = f"did you mean {near[0]}?" if near else "timm.list_models() names them"
        raise UserError(f"model.encoder.model={name}: timm has no such network; {advice}")
    try:
        if getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False):
            with suppress(TypeError):  # those that have no such option
                return timm.create_model(name, features_only=True, dynamic_img_size=True)
        return timm.create_model(name, features_only=True)
    except Exception as error:  # of whatever kind its author chose
        reason = str(error).partition("\n")[0]
        raise UserError(f"model.encoder.model={name}: timm refuses it: {reason}") from error


class TimmEncoder(Encoder):
    """Gives the features that timm gives. Images of a size that the network does not take are padded to a multiple of
    its greatest stride, to the right and down.

    Args:
        network: of timm, with `features_only`; it is changed.
        output_stride: 8, 16 or 32.
    """

    def __init__(self, network: Any, output_stride: int) -> None:
        super().__init__()
        self.network = network
        self.is_channels_last = str(getattr(network, "output_fmt", "")).endswith("NHWC")
        self.multiple = 1
        cfg = network.pretrained_cfg
        self.normalization = Normalization(mean=cfg.get("mean") or IMAGENET.mean, std=cfg.get("std") or IMAGENET.std)
        own: list[int] = network.feature_info.reduction()
        if 4 not in own[:-1] or own[-1] < output_stride or own != sorted(own):
            listed = ", ".join(map(str, own))
            raise _UnfitError(
                f"has features of strides {listed}; needed are 4 and model.output_stride={output_stride}"
            )
        for module in network.modules():
            if getattr(module, "inplace", False):
                module.inplace = False  # it would write over a feature
        ops = fill_places(network)
        with _watched(network) as sides:
            if self._strides() != own:
                raise _UnfitError("takes images of some sizes alone")
        set_output_stride({op: PROBE // side for op in ops if (side := sides.get(op))}, output_stride)
        self._block = _repeated(network, (module for module, side in sides.items() if side), len(own))
        strides = [min(stride, output_stride) for stride in own]
        if self._strides() != strides:
            raise _UnfitError(f"cannot give up strides for model.output_stride={output_stride}, {own[-1]} is its own")
        self.features = tuple(map(Feature, network.feature_info.channels(), strides))
        if not all(self._takes(*size) for size in ODD):
            self.multiple = own[-1]
            if not self._takes(*ODD[0]):
                raise _UnfitError("takes images of some sizes alone")

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        height, width = images.shape[-2:]
        if self.multiple > 1:
            images = F.pad(images, (0, -width % self.multiple, 0, -height % self.multiple))
        outputs = self.network(images)
        if self.is_channels_last:
            outputs = [output.permute(0, 3, 1, 2) for output in outputs]
        if self.multiple > 1:
            places = [(-(-height // stride), -(-width // stride)) for _, stride in self.features]
            outputs = [output[..., :down, :across] for output, (down, across) in zip(outputs, places, strict=True)]
        return tuple(outputs)

    @property
    def blocks(self) -> nn.ModuleList:  # type: ignore[override]
        """Made anew: as modules of this one too, their weights would have two names."""
        return nn.ModuleList(module for module in self.network.modules() if self._is_block(module))

    def _is_block(self, module: nn.Module) -> bool:
        if self._block is None:
            return any(True for _ in module.parameters(recurse=False))
        return type(module) is self._block

    @torch.no_grad()
    def _run(self, height: int, width: int) -> tuple[Tensor, ...] | None:
        """What the network gives of an image of zeros; None where it does not take one of this size."""
        parameter, training = next(self.network.parameters()), self.training
        images = torch.zeros(1, 3, height, width, dtype=parameter.dtype, device=parameter.device)
        try:
            return self.eval().forward(images)
        except Exception:  # of whatever kind the network's author chose
            return None
        finally:
            self.train(training)

    def _strides(self) -> list[int] | None:
        outputs = self._run(PROBE, PROBE)
        return None if outputs is None else [PROBE // output.shape[-1] for output in outputs]

    def _takes(self, height: int, width: int) -> bool:
        outputs = self._run(height, width)
        return outputs is not None and all(
            output.shape[-2:] == (-(-height // stride), -(-width // stride))
            for output, (_, stride) in zip(outputs, self.features, strict=True)
        )


@contextmanager
def _watched(network: nn.Module) -> Iterator[dict[nn.Module, int | None]]:
    """Notes which modules are called, with the last side of their input; None for those that cannot be called again
    for their activations, as they are given lists, to which others add, or names."""
    sides: dict[nn.Module, int | None] = {}

    def note(module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        again = bool(inputs) and not options and not any(isinstance(each, list) for each in inputs)
        sides[module] = inputs[0].shape[-1] if again else None

    handles = [module.register_forward_pre_hook(note, prepend=True, with_kwargs=True) for module in network.modules()]
    yield sides
    for handle in handles:
        handle.remove()


def _repeated(network: nn.Module, callable_again: Iterable[nn.Module], stages: int) -> type | None:
    """The class of the largest modules that hold most of the parameters and of which there are more than stages; None
    without such, as in VGG, which has layers alone."""
    by_class = defaultdict[type, list[nn.Module]](list)
    for module in callable_again:
        is_layer = isinstance(module, _BatchNorm) or not any(True for _ in module.children())
        if not is_layer and module is not network and type(module) is not nn.Sequential:
            by_class[type(module)].append(module)
    half = len(list(network.parameters())) / 2
    most = [same for same in by_class.values() if len({p for each in same for p in each.parameters()}) > half]
    repeated = [same for same in most if len(same) > stages] or [max(most, key=len, default=[])]
    return next((type(module) for module in min(repeated, key=len)), None)
