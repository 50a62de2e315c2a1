"""The operators of a step, held against counts by hand, by timm's modules and by torch's FlopCounterMode."""

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from segapp.base.compose import read_config
from segapp.benchmarks.contenders import CONTENDERS
from segapp.benchmarks.infer import InferBenchmarkConfig, prepare_inference
from segapp.benchmarks.layers import LayerTime, OperatorRecorder, profile_layers
from segapp.benchmarks.train import TrainBenchmarkConfig, prepare_training
from segapp.models.flops import forward_flops
from tests.benchmarks.tables import CPU


def profiled(train: bool) -> tuple[dict[tuple[str, str], LayerTime], nn.Module]:
    """Xception-65, narrow, on 2 x 3 x 33 x 33."""
    options = ["device=cpu", "precision=float32", "size=[33,33]", "batch_size=2", "model.encoder.width=0.125"]
    ours = CONTENDERS["segapp"]
    if train:
        network, step = prepare_training(read_config("benchmark_train", options, TrainBenchmarkConfig), ours)
    else:
        network, step = prepare_inference(read_config("benchmark_infer", options, InferBenchmarkConfig), ours)
    rows, step_seconds = profile_layers(step, CPU, rounds=1)
    assert len(step_seconds) == 1
    return {(row.kind, row.direction): row for row in rows}, network


@pytest.mark.slow
def test_layers_are_those_of_timms_encoder_and_the_papers_head() -> None:
    rows, _ = profiled(train=False)
    with torch.device("meta"):
        encoder = timm.create_model("xception65", num_classes=0)
    convs = [module for module in encoder.modules() if isinstance(module, nn.Conv2d)]
    depthwise = sum(conv.groups > 1 for conv in convs)
    pointwise = sum(conv.kernel_size == (1, 1) for conv in convs)
    norms = sum(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())
    calls = {kind: row.calls for (kind, _), row in rows.items()}
    assert calls["depthwise conv"] == depthwise + 3 + 2 == 68, "three atrous branches, two in the decoder"
    assert calls["pointwise conv"] == pointwise + 5 + 2 + 1 + 2, "and pooling, 1x1, projection, reduction, logits"
    assert calls["dense conv"] == len(convs) - depthwise - pointwise == 2
    assert calls["BN"] == norms + 2 * 5 + 4 == 146
    assert calls["ReLU"] == 82
    assert calls["sums"] == 20, "16 middle units, 4 with a conv skip"


@pytest.mark.slow
def test_flops_of_the_parts_add_up_to_torchs_count() -> None:
    forward, model = profiled(train=False)
    with FlopCounterMode(display=False) as counter:
        model(torch.rand(2, 3, 33, 33))
    assert sum(row.flops for row in forward.values()) == counter.get_total_flops()
    assert forward_flops(model, (2, 3, 33, 33)) == counter.get_total_flops()

    training, _ = profiled(train=True)
    for kind in ("depthwise conv", "pointwise conv"):
        assert training[kind, "forward"].flops == forward[kind, "forward"].flops
        assert training[kind, "backward"].flops == 2 * forward[kind, "forward"].flops
    first = 2 * (2 * 17 * 17 * 8) * (3 * 3 * 3)
    dense = forward["dense conv", "forward"].flops
    assert training["dense conv", "backward"].flops == 2 * dense - first, "images need no gradient"
    # Where FlopCounterMode is right about the backward pass: no conv is depthwise.
    x = torch.rand(1, 6, 9, 9, requires_grad=True)
    conv = nn.Conv2d(6, 8, 3, 2, 1)
    with FlopCounterMode(display=False) as counter, OperatorRecorder(CPU) as recorder:
        conv(x).sum().backward()
    assert sum(each.flops for each in recorder.calls) == counter.get_total_flops()


def test_bytes_by_hand() -> None:
    """4 bytes an element; x is 2 x 4 x 5 x 5, so 800 bytes, and y 2 x 6 x 5 x 5, so 1200."""
    x = torch.rand(2, 4, 5, 5, requires_grad=True)
    weight = torch.rand(6, 4, 1, 1, requires_grad=True)  # 96 bytes

    def seen(run: object) -> list[tuple[str, int]]:
        with OperatorRecorder(CPU) as recorder:
            run()  # type: ignore[operator]
        return [(each.kind, each.bytes) for each in recorder.calls]

    y, gradient = F.conv2d(x, weight), torch.rand(2, 6, 5, 5)
    assert seen(lambda: F.conv2d(x, weight)) == [("pointwise conv", 800 + 96 + 1200)]
    assert seen(lambda: F.relu(y.detach())) == [("ReLU", 1200 + 1200)]
    assert seen(lambda: F.relu_(y.detach())) == [("ReLU", 1200 + 1200)], "read, and written in place"
    assert seen(lambda: y.detach().bfloat16()) == [("casts", 1200 + 600)]
    assert seen(lambda: y.detach()[:, :3].permute(1, 0, 2, 3).view(3, 2, 25)) == [], "views move nothing"
    assert seen(lambda: y.detach() + torch.zeros(1).expand_as(y))[-1] == ("sums", 1200 + 4 + 1200)
    assert ("pointwise conv", 1200 + 800 + 96 + 800 + 96) in seen(lambda: F.conv2d(x, weight).backward(gradient))  # type: ignore[no-untyped-call]
    parameters, gradients = [torch.rand(10), torch.rand(20)], [torch.rand(10), torch.rand(20)]
    assert seen(lambda: torch._foreach_add_(parameters, gradients)) == [("rest", 120 + 120 + 120)]


def test_a_resize_counts_as_such_in_the_loss_too() -> None:
    rows, network = profiled(train=True)
    assert rows["resize", "forward"].calls == rows["resize", "backward"].calls == 2, "in the decoder, in the loss"
    assert {("loss", "forward"), ("loss", "backward"), ("optimizer", "update")} <= rows.keys()
    parameters = 4 * sum(parameter.numel() for parameter in network.parameters())
    assert rows["optimizer", "update"].bytes >= 5 * parameters, "weights and momentum read and written, gradients read"
