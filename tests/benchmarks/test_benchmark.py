"""What tools/benchmark.py prints, held against counts by hand, by timm's modules and by torch's FlopCounterMode."""

import itertools
import math
import os
import re
import stat
import subprocess
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import segapp.benchmarks.measures
import segapp.benchmarks.networks
from segapp.base.errors import UserError
from segapp.benchmarks.contenders import CONTENDERS
from segapp.benchmarks.layers import Operators, Row, look_into
from segapp.benchmarks.measures import (
    CALIBRATION,
    MATRIX,
    OURS,
    check,
    class_scores,
    make_up,
    networks,
    one_round,
    parts,
    time_measures,
)
from segapp.benchmarks.networks import BenchmarkConfig, peak_of_a_process, prepare
from segapp.cli import read_config, run_tool
from segapp.data.dataset import SegmentationDataset
from segapp.data.packed_strings import PackedStrings
from segapp.evaluation.confusion import Scores
from segapp.models.deeplabv3plus import build_model
from segapp.models.flops import copy_rate, forward_flops, matmul_rate
from segapp.models.layers import resize
from tests.networks import config, small

CPU = torch.device("cpu")
Capture = pytest.CaptureFixture[str]
TINY = ["device=cpu", "size=[33,33]", "rounds=2", "model=deeplabv3plus_xception41", "model.encoder.width=0.125"]


def tables(text: str) -> list[list[dict[str, str]]]:
    """Each table in Markdown, as rows by column."""
    found: list[list[dict[str, str]]] = []
    groups = itertools.groupby(text.splitlines(), key=lambda line: line.startswith("|"))
    for lines in (list(group) for is_table, group in groups if is_table):
        cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
        assert set("".join(cells[1])) == {"-", ":"}
        found.append([dict(zip(cells[0], row, strict=True)) for row in cells[2:]])
    return found


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting one to measure its memory takes seconds."""
    monkeypatch.setattr(segapp.benchmarks.networks, "peak_of_a_process", lambda *args, **kwargs: 1e9)


def number(cell: str) -> float:
    value = float(cell.removesuffix("%"))
    assert math.isfinite(value)
    return value


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "precision", "batch", "passes"), [("infer", "float32", 1, 1), ("train", "bfloat16", 2, 3)]
)
@pytest.mark.usefixtures("no_process")
def test_the_tables_agree_with_themselves(what: str, precision: str, batch: int, passes: int, capsys: Capture) -> None:
    options = [*TINY, f"batch_size={batch}", f"precision={precision}", "contenders=[segapp,segapp-encoder]"]
    assert run_tool("benchmark", [what, *options]) == 0
    shown = capsys.readouterr().out
    networks, layers = tables(shown)
    limit = number(re.findall(r"measured: (\S+) TFLOP/s", shown)[0])

    model = build_model(small(aspp__channels=256, decoder=config().decoder.model_dump()), 21)  # type: ignore[union-attr]
    gflop = passes * forward_flops(model, (batch, 3, 33, 33)) / 1e9
    assert number(networks[0]["GFLOP"]) == pytest.approx(gflop, abs=0.005)
    share = 100 * gflop / number(networks[0]["median ms"]) / limit
    assert number(networks[0]["of matmul"]) == pytest.approx(share, rel=0.02, abs=0.1)
    assert [row["network"] for row in networks] == ["segapp", "segapp-encoder"]
    for row in networks:
        median = number(row["median ms"])
        assert 0 < number(row["min"]) <= median <= number(row["max"])
        assert number(row["images/s"]) == pytest.approx(1000 * batch / median, rel=0.01, abs=0.01)
        assert number(row["x segapp"]) == pytest.approx(median / number(networks[0]["median ms"]), abs=0.01)
        assert number(row["peak GB"]) == 1

    *parts, everything = layers
    for column, rounding in (("calls", 0), ("GB", 0.001), ("ms", 0.01), ("share", 0.1)):
        total = sum(number(row[column]) for row in parts)
        assert total == pytest.approx(number(everything[column]), abs=rounding * len(parts))
    passes_seen = {row["pass"] for row in parts}
    assert passes_seen == ({"forward", "backward", "update"} if what == "train" else {"forward"})
    assert ({"loss", "optimizer"} <= {row["layers"] for row in parts}) == (what == "train")
    assert ("casts" in {row["layers"] for row in parts}) == (precision == "bfloat16")


@pytest.mark.slow
def test_the_peak_of_a_process() -> None:
    """One that imports torch holds more than 50 MB, and such a network takes little."""
    peak = peak_of_a_process(read_config("benchmark", TINY, BenchmarkConfig), "segapp", train=True)
    assert 0.05e9 < peak < 4e9


@pytest.mark.slow
@pytest.mark.usefixtures("no_process")
def test_an_encoder_alone_costs_what_timms_does(capsys: Capture) -> None:
    """And smp, which is not installed or refuses 33 x 33, is left out."""
    options = [
        *TINY,
        "model.encoder.width=1",
        "rounds=1",
        "layers=false",
        "contenders=[segapp-encoder,timm-encoder,smp]",
    ]
    assert run_tool("benchmark", ["infer", *options]) == 0
    shown = capsys.readouterr().out
    ((ours, timms),) = tables(shown)
    assert timms["network"] == "timm-encoder"
    assert ours["GFLOP"] == timms["GFLOP"]
    assert "smp is left out: " in shown


def looked_into(train: bool) -> tuple[dict[tuple[str, str], Row], nn.Module]:
    """Xception-65, narrow, on 2 x 3 x 33 x 33."""
    options = ["device=cpu", "precision=float32", "size=[33,33]", "batch_size=2", "model.encoder.width=0.125"]
    settings = read_config("benchmark", options, BenchmarkConfig)
    network, step = prepare(settings, CONTENDERS["segapp"], train=train)
    rows, whole = look_into(step, CPU, rounds=1)
    assert len(whole) == 1
    return {(row.kind, row.direction): row for row in rows}, network


@pytest.mark.slow
def test_layers_are_those_of_timms_encoder_and_the_papers_head() -> None:
    rows, _ = looked_into(train=False)
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
    forward, model = looked_into(train=False)
    with FlopCounterMode(display=False) as counter:
        model(torch.rand(2, 3, 33, 33))
    assert sum(row.flops for row in forward.values()) == counter.get_total_flops()
    assert forward_flops(model, (2, 3, 33, 33)) == counter.get_total_flops()

    training, _ = looked_into(train=True)
    for kind in ("depthwise conv", "pointwise conv"):
        assert training[kind, "forward"].flops == forward[kind, "forward"].flops
        assert training[kind, "backward"].flops == 2 * forward[kind, "forward"].flops
    first = 2 * (2 * 17 * 17 * 8) * (3 * 3 * 3)
    dense = forward["dense conv", "forward"].flops
    assert training["dense conv", "backward"].flops == 2 * dense - first, "images need no gradient"
    # Where FlopCounterMode is right about the backward pass: no conv is depthwise.
    x = torch.rand(1, 6, 9, 9, requires_grad=True)
    conv = nn.Conv2d(6, 8, 3, 2, 1)
    with FlopCounterMode(display=False) as counter, Operators(CPU) as operators:
        conv(x).sum().backward()
    assert sum(each.flops for each in operators.seen) == counter.get_total_flops()


def test_bytes_by_hand() -> None:
    """4 bytes an element; x is 2 x 4 x 5 x 5, so 800 bytes, and y 2 x 6 x 5 x 5, so 1200."""
    x = torch.rand(2, 4, 5, 5, requires_grad=True)
    weight = torch.rand(6, 4, 1, 1, requires_grad=True)  # 96 bytes

    def seen(run: object) -> list[tuple[str, int]]:
        with Operators(CPU) as operators:
            run()  # type: ignore[operator]
        return [(each.kind, each.bytes) for each in operators.seen]

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
    rows, network = looked_into(train=True)
    assert rows["resize", "forward"].calls == rows["resize", "backward"].calls == 2, "in the decoder, in the loss"
    assert {("loss", "forward"), ("loss", "backward"), ("optimizer", "update")} <= rows.keys()
    parameters = 4 * sum(parameter.numel() for parameter in network.parameters())
    assert rows["optimizer", "update"].bytes >= 5 * parameters, "weights and momentum read and written, gradients read"


def test_counting_flops_changes_nothing() -> None:
    model = build_model(small(), 5).train()
    model(torch.rand(2, 3, 33, 33)).sum().backward()
    model.encoder.stem[0].eval()
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
        model = build_model(config(), 21)
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


def test_our_loss_is_that_of_full_size_logits() -> None:
    """Beside each other, ours and the peers compute the same."""
    logits, labels = torch.randn(2, 5, 9, 9), torch.randint(5, (2, 33, 33), dtype=torch.uint8)
    labels[:, :4] = 255
    full_size: Tensor = CONTENDERS["smp"].loss(resize(logits, (33, 33)), labels)
    assert CONTENDERS["segapp"].loss(logits, labels).item() == pytest.approx(full_size.item(), rel=1e-6)


MEASURES = ["data=shapes", "data.train=1", "data.val=3", "data.height=48", "data.width=80", "model.aspp.channels=8"]


def test_the_table_of_measures_agrees_with_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(torch, "compile", lambda network: network)
    options = [*TINY, *MEASURES, f"data.root={tmp_path}", "size=[65,65]", "rounds=1", "masks=2", "compile=true"]
    assert run_tool("benchmark", ["measures", *options]) == 0
    shown = capsys.readouterr().out
    assert "shapes val, 2 masks, 12 widths of the trimap; xception41, output stride 16, 65 x 65; 1 rounds" in shown
    passes, measures = tables(shown)
    times = {row["forward pass"]: number(row["median ms"]) for row in passes}
    assert list(times) == ["float32", "bfloat16", "bfloat16, compiled"]
    fastest = min(list(times)[1:], key=lambda name: times[name])
    ours = {row["an image"]: number(row["median ms"]) for row in measures if row["by"] == "segapp"}
    for row in measures:
        milliseconds = number(row["median ms"])
        assert row["min"] == row["max"] == row["median ms"], "of one round"
        assert number(row["of float32"]) == pytest.approx(100 * milliseconds / times["float32"], abs=0.5)
        assert number(row[f"of {fastest}"]) == pytest.approx(100 * milliseconds / times[fastest], abs=0.5)
        if row["an image"] != "confidence alone":  # near 0 here
            ratio = number(row["x segapp"])  # of times in hundredths of a millisecond, itself in hundredths
            assert ratio * ours[row["an image"]] == pytest.approx(
                milliseconds, abs=0.01 * (1 + ratio) + 0.01 * milliseconds
            )
    both, labels = ours.pop("labels of logits, confidence"), ours.pop("labels of logits")
    assert ours["confidence alone"] == pytest.approx(both - labels, abs=0.02)
    assert ours.pop("all measures") == pytest.approx(sum(ours.values()), abs=0.05)
    assert len(ours) == 5
    assert sum(row["by"].startswith("torchmetrics") for row in measures) == 3


def drawn(folder: Path, height: int, width: int) -> SegmentationDataset:
    """Two images of halves of class 1 and 3, parted by void."""
    mask = np.full((height, width), 1, np.uint8)
    mask[:, width // 2 :] = 3
    mask[:, width // 2 - 1 : width // 2 + 1] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    Image.new("RGB", (width, height)).save(folder / "image.png")
    classes = tuple("abcde")
    return SegmentationDataset(
        "halves", classes, PackedStrings(["1", "2"]), [folder / "image.png"] * 2, [folder / "mask.png"] * 2
    )


@pytest.mark.parametrize(("height", "width"), [(60, 65), (90, 120)])
def test_made_up_predictions_are_counted_as_torchmetrics_counts(tmp_path: Path, height: int, width: int) -> None:
    """Of images that fit the canvas, and of larger ones."""
    passes, predictor = networks(small(), 5, 65, compile=False, device=CPU)
    before = passes["float32"]()
    dataset = drawn(tmp_path, height, width)
    scored = make_up(dataset, 2, predictor)
    assert len(scored) == 2
    assert torch.equal(passes["float32"](), before), "the network that is timed is left alone"
    for image in scored:
        scores = class_scores(image, predictor)
        best = scores.softmax(1).max(1)
        assert torch.equal(best.indices[0], image.labels.long())
        assert torch.allclose(best.values[0], image.confidence, atol=1e-6)
    seconds, results = one_round(scored, parts(5, (1, 2), predictor), CPU, iter(range(1000)).__next__)
    assert set(seconds.values()) == {1.5}, "a tick for each update, and one for half a compute"
    of_matrix = {by: result for (what, by), result in results.items() if what == MATRIX}
    assert set(of_matrix) == {OURS, "torchmetrics", "torchmetrics, validate_args=False"}
    for matrix in of_matrix.values():
        assert np.array_equal(matrix, of_matrix[OURS])
    assert of_matrix[OURS].sum() == 2 * height * (width - 2)
    assert 0.6 < Scores(dataset.classes, of_matrix[OURS]).pixel_accuracy < 1
    ours, theirs = (result for (what, _), result in results.items() if what == CALIBRATION)
    assert ours == pytest.approx(theirs, abs=1e-5)
    assert ours > 0.001


def test_without_torchmetrics_its_rows_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(segapp.benchmarks.measures, "installed", lambda: False)
    options = [*TINY, *MEASURES, f"data.root={tmp_path}", "size=[65,65]", "rounds=1", "masks=1"]
    assert run_tool("benchmark", ["measures", *options]) == 0
    shown = capsys.readouterr().out
    assert "torchmetrics is left out: it is not installed; pip install torchmetrics" in shown
    assert {row["by"] for row in tables(shown)[1]} == {"segapp", "softmax over all classes"}


def test_measures_need_masks_and_a_square(tmp_path: Path) -> None:
    dataset = drawn(tmp_path, 8, 9)
    bare = SegmentationDataset("bare", dataset.classes, dataset.ids, dataset.images, None)
    for images, size, message in (
        (bare, (65, 65), "bare: its images have no masks"),
        (dataset, (65, 81), r"size=\[65,81\]: the canvas of measures is a square"),
    ):
        with pytest.raises(UserError, match=message):
            time_measures(
                images, small(), size=size, masks=1, rounds=1, widths=(), compile=False, device=CPU, clock=float
            )


def test_other_counts_than_torchmetrics_are_an_error() -> None:
    ours, theirs = np.eye(2, dtype=np.int64), np.ones((2, 2), np.int64)
    with pytest.raises(AssertionError, match="torchmetrics has another confusion matrix"):
        check({(MATRIX, OURS): ours, (MATRIX, "torchmetrics"): theirs})


@pytest.mark.slow
def test_compile_is_for_networks_and_losses(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    compiled: list[object] = []

    def compile(what: object) -> object:
        compiled.append(what)
        return what

    monkeypatch.setattr(torch, "compile", compile)
    options = [*TINY, "batch_size=2", "rounds=1", "compile=true", "contenders=[segapp,segapp-encoder]", "layers=false"]
    assert run_tool("benchmark", ["train", *options]) == 0
    assert compiled[1::2] == [CONTENDERS["segapp"].loss, CONTENDERS["segapp-encoder"].loss]
    assert [isinstance(each, nn.Module) for each in compiled] == [True, False, True, False]
    assert "compiled" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["something"], "say first what to time: python tools/benchmark.py infer|train|data|measures"),
        (["infer", "contenders=[segap]"], "segap is none of segapp, smp, "),
        (["infer", "size=[0,33]"], "size.0=0: "),
        (["infer", *TINY, "clock=cpu"], "clock=cpu is for device=cpu and one thread: set OMP_NUM_THREADS=1"),
        (["infer", *TINY, "batch_size=1000000000000"], "out of memory; lower batch_size or size"),
        (["infer", *TINY, "contenders=smp"], "no network is left to time"),
        (["measures", *MEASURES, *TINY, "clock=cpu"], "clock=cpu is for device=cpu and one thread"),
    ],
)
def test_mistakes_are_a_line(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert run_tool("benchmark", arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_the_gpu_script_goes_on_after_a_piece_that_fails(tmp_path: Path) -> None:
    fake = tmp_path / "python"
    fake.write_text(
        "#!/bin/sh\n"
        'case "$*" in *float32*) echo "noise" >&2; echo "error: out of GPU memory; lower it" >&2; exit 2;; esac\n'
        'echo "| network | median ms |"; echo "| ------- | --------: |"; echo "| segapp  |    $# |"\n'
        'echo; echo "where the time of segapp goes:"; echo "| BN | forward |"\n'
    )
    fake.chmod(fake.stat().st_mode | stat.S_IXUSR)
    script = Path(__file__).parent.parent.parent / "tools" / "benchmark_gpu.sh"
    environment = os.environ | {"PYTHON": str(fake), "LOGS": str(tmp_path / "logs"), "MODEL": "a=1 b=2"}
    done = subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "train 512 OS16 float32: error: out of GPU memory; lower it" in done.stdout
    header, rule, *rows = done.stdout.partition("whole logs are in")[2].splitlines()[1:]
    assert header.count("|") == rule.count("|")
    assert len(rows) == 14, "of 16 pieces two fail"
    assert rows[0] == "| train 513 OS16 eager | segapp | 10 |", "ten arguments, two of them of MODEL"
