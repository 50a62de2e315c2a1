"""Operations that a network asks for, and what a device can do in a second."""

import itertools

import pytest
import torch

from segapp.base.compose import read_config
from segapp.models.flops import copy_rate, forward_flops, matmul_rate
from segapp.training.config import TrainConfig
from tests.networks import config, small

CPU = torch.device("cpu")


def test_counting_flops_changes_nothing() -> None:
    model = small().build(5).train()
    model(torch.rand(2, 3, 33, 33)).sum().backward()
    model.encoder.get_submodule("stem.0").eval()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    copies = {name: gradient.clone() for name, gradient in gradients.items() if gradient is not None}
    modes = [module.training for module in model.modules()]
    random = torch.get_rng_state()
    assert forward_flops(model, (1, 3, 65, 97)) > 0
    assert torch.equal(torch.get_rng_state(), random)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad
        assert parameter.grad is not None
        assert parameter.grad is gradients[name]
        assert torch.equal(parameter.grad, copies[name])


def test_flops_of_the_paper() -> None:
    """REFERENCE: 54.04 G multiply-adds at 513 x 513, computed from the block table."""
    with torch.device("meta"):
        model = config().build(21)
    assert forward_flops(model, (1, 3, 513, 513)) / 1e9 == pytest.approx(108.1, abs=0.05)


def test_rates_on_a_clock_by_hand() -> None:
    ticks = itertools.count(step=0.01)
    assert matmul_rate(CPU, torch.float32, lambda: next(ticks)) == pytest.approx(2 * 1024**3 / 0.01)
    assert copy_rate(CPU, lambda: next(ticks)) == pytest.approx(2 * 2**27 / 0.01)


def test_matmul_rate_is_about_that_of_a_product() -> None:
    random = torch.get_rng_state()
    rate = matmul_rate(CPU, torch.float32)
    assert torch.equal(torch.get_rng_state(), random), "a training run's random numbers are its own"
    a = torch.rand(512, 512)
    with torch.autograd.profiler.profile() as profile:
        for _ in range(20):
            torch.mm(a, a)
    microseconds = min(event.cpu_time_total for event in profile.function_events if event.name == "aten::mm")
    assert 0.1 < rate / (2 * 512**3 / (microseconds * 1e-6)) < 10


@pytest.mark.parametrize(
    ("choices", "classes", "size", "published"),
    [
        (["model=deeplabv3_mobilenet"], 21, (513, 513), 2.75),
        (["model=deeplabv3_mobilenet", "model/encoder=mobilenet_v2_dm05"], 21, (513, 513), 0.88),
        (["model=deeplabv3_mobilenet"], 19, (1025, 2049), 21.27),
        (["model=deeplabv3plus_xception71", "model/aspp=dense_prediction_cell"], 19, (1025, 2049), 502.07),
    ],
)
def test_flops_of_googles_model_zoo(choices: list[str], classes: int, size: tuple[int, int], published: float) -> None:
    """research/deeplab/g3doc/model_zoo.md, billions of multiply-adds, which count a little more than convolutions."""
    network = read_config("train", choices, TrainConfig).model
    with torch.device("meta"):
        model = network.build(classes).eval()
    assert forward_flops(model, (1, 3, *size)) / 2e9 == pytest.approx(published, rel=0.015)
