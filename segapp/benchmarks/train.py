"""How fast is a step of training, beside other libraries' networks?"""

import torch
from torch import nn

from segapp.base.devices import pick_device
from segapp.benchmarks.comparison import ContendersBenchmarkConfig, network_and_pass, time_contenders
from segapp.benchmarks.contenders import Contender
from segapp.benchmarks.layers import EnterPhase, Step
from segapp.training.optimizers import OptimizerConfig, build_optimizer


class TrainBenchmarkConfig(ContendersBenchmarkConfig):
    """See conf/benchmark_train.yaml."""

    optimizer: OptimizerConfig


def time_training(config: TrainBenchmarkConfig) -> None:
    """Prints the times of a step of training, as `time_contenders` does."""
    time_contenders(config, prepare_training, title="training", passes=3)


def prepare_training(config: TrainBenchmarkConfig, contender: Contender) -> tuple[nn.Module, Step]:
    """The network, and one step of training: the same for every contender."""
    network, forward = network_and_pass(config, contender, train=True)
    shape, device = (config.batch_size, *config.size), pick_device(config.device)
    labels = torch.randint(config.classes, shape, dtype=torch.uint8, device=device)
    loss_of = torch.compile(contender.loss) if config.compile else contender.loss
    optimizer = build_optimizer(network, config.optimizer)

    def step(enter_phase: EnterPhase) -> None:
        enter_phase("network", "forward")
        output = forward()
        output.register_hook(lambda gradient: enter_phase("network", "backward"))  # type: ignore[no-untyped-call]
        enter_phase("loss", "forward")
        loss = loss_of(output, labels)
        optimizer.zero_grad()
        enter_phase("loss", "backward")
        loss.backward()  # type: ignore[no-untyped-call]
        enter_phase("optimizer", "update")
        optimizer.step()

    return network, step
