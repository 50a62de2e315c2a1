"""Parameter groups by name; schedules against torch's own."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    MultiStepLR,
    PolynomialLR,
)

from segapp.base.compose import compose_config, validate
from segapp.base.config import Config
from segapp.base.errors import UserError
from segapp.models.deformable import DeformableConv2d
from segapp.training.optimizers import AdamWConfig, OptimizerConfig, SGDConfig, build_optimizer, parameter_groups
from segapp.training.schedules import ScheduleConfig, lr_factor
from tests.networks import small
from tests.tensorflow.weights import FIXTURES


class _Config(Config):
    optimizer: OptimizerConfig = SGDConfig(
        name="sgd", lr=0.007, momentum=0.9, nesterov=False, weight_decay=4e-5, bias_lr_factor=2, clip_norm=None
    )
    schedule: ScheduleConfig | None = None


PAPER = _Config().optimizer


def adamw(**changes: Any) -> OptimizerConfig:
    values = compose_config("optimizer/adamw", [])["optimizer"]
    return validate({"optimizer": values | changes}, _Config).optimizer


def schedule(name: str, **changes: Any) -> ScheduleConfig:
    values = compose_config(f"schedule/{name}", [])["schedule"]
    checked = validate({"schedule": values | changes}, _Config).schedule
    assert checked is not None
    return checked


def settings(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, tuple[float, float, float]]:
    """Rate, base rate and decay of each parameter that is in a group, by name."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[str, tuple[float, float, float]] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert names[id(parameter)] not in found
            found[names[id(parameter)]] = (group["lr"], group["base_lr"], group["weight_decay"])
    return found


@pytest.mark.parametrize("config", [PAPER, adamw(lr=0.01, weight_decay=0.1, bias_lr_factor=3.0)], ids=["sgd", "adamw"])
def test_conv_weights_decay_and_biases_run_faster(config: OptimizerConfig) -> None:
    """Depthwise weights and BN do not decay (REFERENCE, section 3)."""
    model = small().build(3)
    found = settings(model, build_optimizer(model, config))
    assert found.keys() == dict(model.named_parameters()).keys()
    for name, values in found.items():
        dense = name.endswith(("conv.weight", "conv_pw.weight", "logits.weight"))
        lr = config.lr * config.bias_lr_factor if name == "logits.bias" else config.lr
        assert values == pytest.approx((lr, lr, config.weight_decay if dense else 0)), name


def test_layers_of_other_networks_decay_by_what_they_are() -> None:
    """A fully connected layer's weight as a pointwise conv's; a depthwise conv's does not, whoever's class it is."""
    linear, depthwise, grouped = nn.Linear(4, 3), nn.Conv2d(4, 8, 3, groups=4), nn.Conv2d(4, 4, 3, groups=2)
    groups = parameter_groups(nn.Sequential(linear, depthwise, grouped), PAPER)
    decayed, plain, biases = ({id(parameter) for parameter in group["params"]} for group in groups)
    assert decayed == {id(linear.weight), id(grouped.weight)}
    assert plain == {id(depthwise.weight)}
    assert biases == {id(linear.bias), id(depthwise.bias), id(grouped.bias)}
    assert [group["weight_decay"] for group in groups] == [PAPER.weight_decay, 0, 0]


def test_frozen_parameters_are_left_out() -> None:
    model = small().build(3)
    model.encoder.requires_grad_(False)
    found = settings(model, build_optimizer(model, PAPER))
    assert found.keys() == {name for name in dict(model.named_parameters()) if not name.startswith("encoder.")}
    assert found


def test_an_encoders_rates_have_a_factor_on_top_of_their_own() -> None:
    """And nothing else about it changes: groups come apart by it, decay and biases stay."""
    model = small().build(3)
    plain = settings(model, build_optimizer(model, PAPER))
    apart = settings(model, build_optimizer(model, PAPER.model_copy(update={"encoder_lr_factor": 0.25})))
    assert apart.keys() == plain.keys()
    for name, (lr, base_lr, decay) in plain.items():
        factor = 0.25 if name.startswith("encoder.") else 1
        assert apart[name] == pytest.approx((lr * factor, base_lr * factor, decay)), name


@pytest.mark.parametrize("config", [PAPER, adamw()], ids=["sgd", "adamw"])
def test_the_base_rate_survives_a_schedule_and_a_file(config: OptimizerConfig) -> None:
    model = small().build(3)
    optimizer, other = build_optimizer(model, config), build_optimizer(model, config)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * 0.5
    other.load_state_dict(optimizer.state_dict())
    first = other.param_groups[0]
    assert (first["lr"], first["base_lr"]) == (config.lr * 0.5, config.lr)


def test_sgd_steps_as_by_hand() -> None:
    """Two steps of a gradient of 1 on one dense weight of 1: decay, then momentum, then the rate."""
    conv = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.ones_(conv.weight)
    assert isinstance(PAPER, SGDConfig)
    optimizer = build_optimizer(conv, PAPER.model_copy(update={"lr": 0.1, "momentum": 0.5, "weight_decay": 0.2}))
    for _ in range(2):
        conv.weight.grad = torch.ones_like(conv.weight)
        optimizer.step()
    # 1 + 0.2 = 1.2 -> 1 - 0.12 = 0.88; 0.5 * 1.2 + 1 + 0.176 = 1.776 -> 0.88 - 0.1776
    assert conv.weight.item() == pytest.approx(0.7024)


def test_adamw_steps_as_by_hand() -> None:
    """Two steps, gradients 1 and 3: the decay is not in the moments (arXiv:1711.05101, algorithm 2)."""
    conv = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.ones_(conv.weight)
    optimizer = build_optimizer(conv, adamw(lr=0.1, betas=[0.5, 0.75], weight_decay=0.2, eps=0.5))
    for gradient in (1.0, 3.0):
        conv.weight.grad = torch.full_like(conv.weight, gradient)
        optimizer.step()
    # m = 0.5, v = 0.25; unbiased 1 and 1: 1 * 0.98 - 0.1 * 1 / 1.5
    # m = 1.75, v = 2.4375; unbiased 7/3 and 39/7: -> * 0.98 - 0.1 * (7/3) / (sqrt(39/7) + 0.5)
    expected = (0.98 - 0.1 / 1.5) * 0.98 - 0.1 * (7 / 3) / ((39 / 7) ** 0.5 + 0.5)
    assert conv.weight.item() == pytest.approx(expected)


def test_adamws_file_is_read() -> None:
    config = adamw(clip_norm=1.0)
    assert isinstance(config, AdamWConfig)
    assert (config.lr, config.betas, config.clip_norm) == (6e-5, (0.9, 0.999), 1.0)


N = 20


def torchs(make: Callable[[torch.optim.Optimizer], LRScheduler]) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, factors = make(optimizer), []
    for _ in range(N):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return factors


def warmed(optimizer: torch.optim.Optimizer) -> LRScheduler:
    linear = LinearLR(optimizer, start_factor=0.2, end_factor=1.0, total_iters=4)
    return ChainedScheduler([linear, PolynomialLR(optimizer, total_iters=N, power=0.9)])


@pytest.mark.parametrize(
    ("config", "make"),
    [
        (schedule("poly"), lambda optimizer: PolynomialLR(optimizer, total_iters=N, power=0.9)),
        (schedule("cosine"), lambda optimizer: CosineAnnealingLR(optimizer, T_max=N)),
        (schedule("cosine", end_factor=0.1), lambda optimizer: CosineAnnealingLR(optimizer, T_max=N, eta_min=0.1)),
        (schedule("step"), lambda optimizer: MultiStepLR(optimizer, milestones=[12, 16], gamma=0.1)),
        (
            schedule("poly", power=0, warmup_iterations=4),
            lambda optimizer: LinearLR(optimizer, start_factor=0.2, end_factor=1.0, total_iters=4),
        ),
        (schedule("poly", warmup_iterations=4), warmed),
    ],
    ids=["poly", "cosine", "cosine to 0.1", "step", "warm-up", "warm-up and poly"],
)
def test_schedules_are_torchs_own(
    config: ScheduleConfig, make: Callable[[torch.optim.Optimizer], LRScheduler]
) -> None:
    assert [lr_factor(i, N, config, 0.007) for i in range(N)] == pytest.approx(torchs(make), rel=1e-9)


PLAIN = {"warmup_iterations": 0, "slow_start_iterations": 0, "slow_start_lr": 1e-4}


@pytest.mark.parametrize("name", ["poly", "cosine"])
def test_a_slow_start_is_googles(name: str) -> None:
    """TensorFlow's own ops: a constant small rate, and then the schedule over the iterations that are left."""
    with np.load(FIXTURES / "pipeline.npz") as file:
        wanted, slow = file[f"lr_{name}"].tolist(), int(file["slow_start_iterations"])
    config = schedule(name, slow_start_iterations=slow)
    rates = [0.007 * lr_factor(i, len(wanted), config, 0.007) for i in range(len(wanted))]
    assert rates == pytest.approx(wanted, rel=1e-5)


def test_milestones_fall_on_whole_iterations() -> None:
    """A share of the run is that share exactly, though 0.29 * 100 is 28.999999999999996."""
    for iterations, share, at in ((30000, 0.6, 18000), (100, 0.29, 29), (7, 0.5, 4)):
        config = schedule("step", milestones=[share])
        assert lr_factor(at - 1, iterations, config, 0.007) == 1
        assert lr_factor(at, iterations, config, 0.007) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"schedule": {"name": "exponential"}}, "'exponential'.*'poly', 'cosine', 'step'"),
        ({"schedule": {"name": "poly", "power": -1, **PLAIN}}, r"schedule\.power=-1: "),
        (
            {"schedule": {"name": "poly", "power": 1, **PLAIN, "warmup_iterations": -1}},
            r"schedule\.warmup_iterations=-1: ",
        ),
        (
            {"schedule": {"name": "poly", "power": 1, **PLAIN, "warmup_iterations": 1, "slow_start_iterations": 1}},
            r"schedule\.slow_start_iterations=1: .*warm-up or with a slow start",
        ),
        (
            {"schedule": {"name": "cosine", "end_factor": -1, **PLAIN}},
            r"schedule\.end_factor=-1: ",
        ),
        ({"schedule": {"name": "cosine", **PLAIN}}, r"schedule\.end_factor has no value"),
        ({"optimizer": {"name": "lion"}}, "'lion'.*'sgd', 'adamw'"),
    ],
)
def test_mistakes(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        validate(values, _Config)


@pytest.mark.parametrize(
    ("milestones", "message"),
    [
        ([0.8, 0.6], r"schedule\.milestones=\[0\.8, 0\.6\]: each must be later"),
        ([0.5, 0.5], "each must be later"),
        ([1.0], r"milestones\.0=1\.0: .*less than 1"),
        ([12, 16], r"milestones\.0=12: .*less than 1"),
        ([], r"schedule\.milestones=\[\]: .*at least 1 item"),
    ],
)
def test_milestones_are_ascending_shares(milestones: list[float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        schedule("step", milestones=milestones)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip_norm": 0.0}, r"optimizer\.clip_norm=0\.0: .*greater than 0"),
        ({"betas": [0.9, 1.0]}, r"optimizer\.betas\.1=1\.0: .*less than 1"),
        ({"betas": [0.9]}, r"optimizer\.betas"),
        ({"momentum": 0.9}, r"optimizer\.momentum is no key"),
    ],
)
def test_mistakes_of_adamw(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        adamw(**changes)


def test_nesterov_needs_momentum() -> None:
    values = PAPER.model_dump() | {"nesterov": True}
    assert validate({"optimizer": values}, _Config).optimizer.lr == 0.007
    with pytest.raises(UserError, match=r"optimizer\.nesterov=True: it needs a momentum above 0"):
        validate({"optimizer": values | {"momentum": 0}}, _Config)


@pytest.mark.parametrize("config", [PAPER, adamw()])
def test_offsets_of_deformable_convs_run_slower(config: OptimizerConfig) -> None:
    model = nn.Sequential(DeformableConv2d(nn.Conv2d(3, 4, 3, padding=1), "v2"))
    groups = {
        id(parameter): (group["lr"] / config.lr, group["weight_decay"])
        for group in build_optimizer(model, config).param_groups
        for parameter in group["params"]
    }
    rates = {name: groups[id(parameter)] for name, parameter in model.named_parameters()}
    decay = config.weight_decay
    assert rates["0.weight"] == (1, decay)
    assert rates["0.offset.weight"] == (pytest.approx(0.1), decay)
    assert rates["0.offset.bias"] == (pytest.approx(0.1), 0)


def test_rmsprop_is_tensorflows() -> None:
    """50 steps of float64 beside a loop over single numbers: decay, rates and groups included."""
    values = compose_config("optimizer/rmsprop", [])["optimizer"] | {"weight_decay": 0.01, "bias_lr_factor": 2.0}
    config = validate({"optimizer": values}, _Config).optimizer
    torch.manual_seed(0)
    layer = nn.Linear(3, 2).double()
    optimizer = build_optimizer(layer, config)
    slow = [
        {"w": value, "square": 1.0, "step": 0.0, "factor": factor, "decay": decay}
        for parameter, factor, decay in ((layer.weight, 1.0, 0.01), (layer.bias, 2.0, 0.0))
        for value in parameter.detach().flatten().tolist()
    ]
    for iteration in range(50):
        rate = 0.94 ** (iteration // 10)
        for group in optimizer.param_groups:
            group["lr"] = group["base_lr"] * rate
        gradients = torch.randn(8, dtype=torch.float64)
        layer.weight.grad, layer.bias.grad = gradients[:6].view(2, 3).clone(), gradients[6:].clone()
        optimizer.step()
        for each, gradient in zip(slow, gradients.tolist(), strict=True):
            gradient += each["decay"] * each["w"]
            each["square"] = 0.9 * each["square"] + 0.1 * gradient**2
            each["step"] = 0.9 * each["step"] + 0.045 * rate * each["factor"] * gradient / (each["square"] + 1) ** 0.5
            each["w"] -= each["step"]
    found = torch.cat([layer.weight.detach().flatten(), layer.bias.detach()]).tolist()
    assert found == pytest.approx([each["w"] for each in slow], rel=1e-12)


def test_rmsprop_by_hand_and_from_a_file() -> None:
    """Three gradients of 0.01 (eps 1, rate 0.045, momentum 0.9): torch's own form ends at -0.002515."""
    values = compose_config("optimizer/rmsprop", [])["optimizer"] | {"weight_decay": 0}
    config = validate({"optimizer": values}, _Config).optimizer
    conv = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.zeros_(conv.weight)
    optimizer = build_optimizer(conv, config)
    for _ in range(3):
        conv.weight.grad = torch.full_like(conv.weight, 0.01)
        optimizer.step()
        state, optimizer = optimizer.state_dict(), build_optimizer(conv, config)
        optimizer.load_state_dict(state)
    assert conv.weight.item() == pytest.approx(-0.001862, abs=5e-7)


def test_a_staircase_is_a_slow_count() -> None:
    """50 iterations, x0.94 every 7 that have passed since the slow start."""
    config = schedule("staircase", every=7, slow_start_iterations=5)
    factor, since = 1.0, 0
    for iteration in range(50):
        if iteration < 5:
            assert lr_factor(iteration, 50, config, 0.007) == pytest.approx(1e-4 / 0.007)
            continue
        if since == 7:
            factor, since = factor * 0.94, 0
        assert lr_factor(iteration, 50, config, 0.007) == pytest.approx(factor, rel=1e-12)
        since += 1
