"""The train step: one update of the weights from a batch, in micro-batches and shared by processes."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from segapp.base.devices import autocast, compute_dtype
from segapp.base.distributed import Processes
from segapp.inference.preprocess import normalize
from segapp.models.encoders.interface import Normalization
from segapp.training.config import TrainConfig
from segapp.training.distillation import Teachers
from segapp.training.losses import AnyLoss
from segapp.training.optimizers import build_optimizer
from segapp.training.schedules import lr_factor

MicroBatch = tuple[Tensor, Tensor]
"""uint8 images n x C x C x 3, and labels: uint8 of pixels, n x C x C, or int64 of images, n x 1."""


class TrainStep:
    """Keeps the network in training, its optimizer and the moving average of its weights.

    However a batch is divided, the loss is the mean over the whole of it: what a term is divided by is counted in all
    micro-batches, of all processes, before the first one is computed.

    Args:
        normalization: of the images that the network is given.
        teachers: to be learned from beside the labels.

    Attributes:
        averaged: the average of the weights and BN statistics, of decay `config.ema`; None where that is None.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainConfig,
        loss: AnyLoss,
        normalization: Normalization,
        *,
        device: torch.device,
        processes: Processes,
        teachers: Teachers | None = None,
    ) -> None:
        self.model = model
        self.optimizer = build_optimizer(model, config.optimizer)
        self.averaged: AveragedModel | None = None
        if config.ema is not None:
            average = get_ema_multi_avg_fn(config.ema)  # type: ignore[no-untyped-call]
            self.averaged = AveragedModel(model, multi_avg_fn=average, use_buffers=True)
        self._config = config
        self._loss = loss
        self._normalization = normalization
        self._device = device
        self._processes = processes
        self._teachers = teachers
        self._encoder_waits = False
        self._scaler = torch.amp.GradScaler(
            device.type, enabled=compute_dtype(device, config.precision) == torch.float16
        )
        self._compiled: nn.Module = torch.compile(model) if config.compile else model  # type: ignore[assignment]
        self._network = self._shared()
        self.reset()

    def _shared(self) -> nn.Module:
        """The network, whose gradients all processes add up: of the parameters that need one by now."""
        if self._processes.world_size == 1:
            return self._compiled
        ids = [self._processes.local_rank] if self._device.type == "cuda" else None
        return DistributedDataParallel(self._compiled, ids)

    def reset(self) -> None:
        """Forgets what was counted since the last reset."""
        self._losses = torch.zeros((), device=self._device)
        self._void = torch.zeros((), dtype=torch.int64, device=self._device)
        self._norms = torch.zeros((), device=self._device)
        self._taught = torch.zeros((), device=self._device)
        self._updates = 0

    def __call__(self, iteration: int, micro_batches: Sequence[MicroBatch]) -> None:
        """Update number `iteration`, from 1, by this process's micro-batches of the batch."""
        config, processes = self._config, self._processes
        self._hold_encoder(iteration <= config.freeze_encoder_iterations)
        torch.manual_seed(random_seed(config.seed, iteration, processes.rank))
        done = iteration - 1
        factor = lr_factor(done, config.iterations, config.schedule, config.optimizer.lr)
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * factor
        sent = [tuple(each.to(self._device, non_blocking=True) for each in pair) for pair in micro_batches]
        counts = processes.sum(torch.stack([self._loss.counts(labels, done) for _, labels in sent]).sum(0))
        points = self._points([labels for _, labels in sent])
        self.optimizer.zero_grad()
        for number, (images, labels) in enumerate(sent, 1):
            with self._exchange(number == len(sent)):
                with autocast(self._device, config.precision):
                    logits = self._network(normalize(images, self._normalization))
                loss = self._loss(logits, labels, counts, done)
                if self._teachers is not None:
                    with autocast(self._device, config.precision):
                        taught = self._teachers(images, logits, labels, points, self._stride)
                    self._taught += taught.detach()
                    loss = loss + taught
                # DistributedDataParallel averages the processes' gradients; theirs are to be added up.
                self._scaler.scale(loss * processes.world_size).backward()  # type: ignore[no-untyped-call]
            self._losses += loss.detach()
        if config.optimizer.clip_norm is not None:
            self._scaler.unscale_(self.optimizer)
            self._norms += nn.utils.clip_grad_norm_(self.model.parameters(), config.optimizer.clip_norm)
        self._scaler.step(self.optimizer)
        self._scaler.update()
        if self.averaged is not None:
            self.averaged.update_parameters(self.model)
        self._void += counts.sum() == 0
        self._updates += 1

    def _hold_encoder(self, waits: bool) -> None:
        """Whether the head alone learns now; the BN of an encoder that waits keeps its statistics, too."""
        encoder = self.model.get_submodule("encoder")
        if waits:
            encoder.eval()  # whatever validation left
        if waits == self._encoder_waits:
            return
        self._encoder_waits = waits
        encoder.requires_grad_(not waits).train(not waits)
        self._network = self._shared()

    @property
    def _stride(self) -> int:
        return self.model.logits_stride  # type: ignore[return-value]

    def _points(self, labels: Sequence[Tensor]) -> Tensor:
        """How many points of the batch teachers tell of."""
        if self._teachers is None:
            return torch.zeros((), device=self._device)
        return self._processes.sum(torch.stack([self._teachers.counts(each, self._stride) for each in labels]).sum())

    def _exchange(self, last: bool) -> AbstractContextManager[Any]:
        """Gradients go between the processes with the last micro-batch alone."""
        if isinstance(self._network, DistributedDataParallel) and not last:
            return self._network.no_sync()
        return nullcontext()

    def metrics(self) -> dict[str, float]:
        """Means since the last reset, the learning rate as it is, and how many batches had nothing to learn from."""
        values = {
            "loss": self._processes.sum(self._losses.clone()).item() / self._updates,
            "lr": self.optimizer.param_groups[0]["lr"],
            "void_batches": int(self._void.item()),
        }
        if self._teachers is not None:
            values["distillation"] = self._processes.sum(self._taught.clone()).item() / self._updates
        if self._config.optimizer.clip_norm is not None:
            values["grad_norm"] = self._norms.item() / self._updates
        return values

    def share_statistics(self) -> None:
        """The main process's BN statistics for all: each has seen its own share of the last batch since."""
        for network in (self.model, self.averaged):
            for buffer in network.buffers() if network is not None else ():
                self._processes.broadcast(buffer)

    def weights_are_finite(self) -> bool:
        """And BN's statistics, and the average."""
        networks = [self.model] if self.averaged is None else [self.model, self.averaged.module]
        tensors = [each for network in networks for each in network.state_dict().values() if each.is_floating_point()]
        return bool(torch.stack(torch._foreach_norm(tensors)).isfinite().all())

    def state_dict(self) -> dict[str, Any]:
        """Beside the weights and their average, all that the next update depends on."""
        updates = None if self.averaged is None else int(self.averaged.n_averaged)
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "averaged_updates": updates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        if self.averaged is not None:
            self.averaged.n_averaged.fill_(state["averaged_updates"])


def random_seed(seed: int, iteration: int, rank: int) -> int:
    """Dropout's, and so a run that is resumed, on as many processes, needs no random state."""
    return int(np.random.SeedSequence([seed, iteration, rank]).generate_state(1, np.uint64)[0] >> 1)
