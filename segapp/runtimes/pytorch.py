"""PyTorch as the runtime: eager, in any precision that the device computes in."""

import torch
from torch import Tensor, nn

from segapp.base.devices import Precision, autocast, compute_dtype
from segapp.models.deeplabv3plus import DeepLabV3Plus
from segapp.models.encoders.interface import Normalization
from segapp.models.surgery import compute_in_parts, fold_bn
from segapp.runtimes.interface import RuntimeSpec


class PyTorchRuntime:
    """A `Runtime` of a network in this process, trained on or not: it is in evaluation mode for each call alone.

    Args:
        model: moved to the device in channels_last.
        classes, background, normalization: as in `RuntimeSpec`; `normalization` None: the encoder's own.
        precision: parameters stay float32.
        fold: BN goes into the convolutions, and atrous ones in parts: it changes the model for good, one that is no
            more trained.
    """

    def __init__(
        self,
        model: DeepLabV3Plus,
        classes: tuple[str, ...],
        *,
        background: int | None = None,
        normalization: Normalization | None = None,
        device: torch.device,
        precision: Precision = "auto",
        fold: bool = False,
    ) -> None:
        if fold:
            fold_bn(model.eval())
            compute_in_parts(model)
        self.model: nn.Module = model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.device = device
        self.precision = precision
        self.spec = RuntimeSpec(
            classes,
            background,
            normalization or model.encoder.normalization,
            model.encoder.features[-1].stride,
            model.logits_stride,
        )

    @property
    def description(self) -> str:
        dtype = str(compute_dtype(self.device, self.precision)).removeprefix("torch.")
        return f"output stride {self.spec.output_stride}, {dtype}"

    def __call__(self, images: Tensor) -> Tensor:
        was_training = self.model.training
        if was_training:
            self.model.eval()
        try:
            with torch.inference_mode(), autocast(self.device, self.precision):
                return self.model(images).float()  # type: ignore[no-any-return]
        finally:
            if was_training:
                self.model.train()
