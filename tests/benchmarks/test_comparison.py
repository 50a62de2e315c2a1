"""What infer and train print, held against counts by hand and by timm's modules."""

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import segapp.benchmarks.comparison
from segapp.base.compose import read_config
from segapp.base.errors import UserError
from segapp.benchmarks.comparison import peak_of_a_process
from segapp.benchmarks.contenders import CONTENDERS
from segapp.benchmarks.train import TrainBenchmarkConfig, prepare_training
from segapp.cli import run_tool
from segapp.models.flops import forward_flops
from segapp.models.layers import resize
from tests.benchmarks.tables import TINY, Capture, number, tables
from tests.networks import config, small


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting one to measure its memory takes seconds."""
    monkeypatch.setattr(segapp.benchmarks.comparison, "peak_of_a_process", lambda *args, **kwargs: 1e9)


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

    model = small(aspp__channels=256, decoder=config().decoder.model_dump()).build(21)  # type: ignore[union-attr]
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
    peak = peak_of_a_process(read_config("benchmark_train", TINY, TrainBenchmarkConfig), prepare_training, "segapp")
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


@pytest.mark.parametrize("encoder", [{"name": "xception41", "width": 0.5}, {"name": "mobilenet_v2", "width": 1}])
@pytest.mark.parametrize("contender", ["smp", "timm-encoder"])
def test_a_peer_is_left_out_where_it_has_no_such_encoder(contender: str, encoder: dict[str, Any]) -> None:
    """MobileNetV2's at timm has a 1x1 conv more."""
    with pytest.raises(UserError, match=f"it has no {encoder['name']} of width"):
        CONTENDERS[contender].network(small(encoder=encoder), 5, False)


@torch.inference_mode()
def test_our_logits_are_timed_at_the_size_of_the_image() -> None:
    """As the peers give them; in training the loss resizes."""
    images = torch.rand(2, 3, 33, 49)
    torch.manual_seed(0)
    timed = CONTENDERS["segapp"].network(small(), 5, False).eval()
    torch.manual_seed(0)
    trained = CONTENDERS["segapp"].network(small(), 5, True).eval()
    logits = trained(images)
    assert logits.shape == (2, 5, 9, 13)
    assert torch.equal(timed(images), F.interpolate(logits, (33, 49), mode="bilinear", align_corners=True))


def test_our_loss_is_that_of_full_size_logits() -> None:
    """Beside each other, ours and the peers compute the same."""
    logits, labels = torch.randn(2, 5, 9, 9), torch.randint(5, (2, 33, 33), dtype=torch.uint8)
    labels[:, :4] = 255
    full_size: Tensor = CONTENDERS["smp"].loss(resize(logits, (33, 33)), labels)
    assert CONTENDERS["segapp"].loss(logits, labels).item() == pytest.approx(full_size.item(), rel=1e-6)


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
