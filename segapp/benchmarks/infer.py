"""How fast does the network label images, beside other libraries' networks?"""

import torch
from torch import nn

from segapp.benchmarks.comparison import ContendersBenchmarkConfig, network_and_pass, time_contenders
from segapp.benchmarks.contenders import Contender
from segapp.benchmarks.layers import EnterPhase, Step


class InferBenchmarkConfig(ContendersBenchmarkConfig):
    """See conf/benchmark_infer.yaml."""


def time_inference(config: InferBenchmarkConfig) -> None:
    """Prints the times of a forward pass, as `time_contenders` does."""
    time_contenders(config, prepare_inference, title="inference", passes=1)


def prepare_inference(config: InferBenchmarkConfig, contender: Contender) -> tuple[nn.Module, Step]:
    """The network, and one forward pass."""
    network, forward = network_and_pass(config, contender, train=False)

    @torch.no_grad()
    def step(enter_phase: EnterPhase) -> None:
        forward()

    return network, step
