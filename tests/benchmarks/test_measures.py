"""What measures prints, held against torchmetrics and against itself."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import segapp.benchmarks.scorers
from segapp.base.compose import read_config
from segapp.base.errors import UserError
from segapp.benchmarks.made_up import make_up
from segapp.benchmarks.measures import MeasuresBenchmarkConfig, check, network_passes, one_round, time_measures
from segapp.benchmarks.scorers import CALIBRATION, MATRIX, OURS, class_scores, new_scorers
from segapp.cli import run_tool
from segapp.data.dataset import SegmentationDataset
from segapp.data.packed_strings import PackedStrings
from segapp.evaluation.confusion import Scores
from tests.benchmarks.tables import CPU, MEASURES, TINY, Capture, number, tables
from tests.networks import small


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
            ratio, base = number(row["x segapp"]), ours[row["an image"]]
            rounding = 0.0051 * (1 + ratio + base)  # each of the three is a number of hundredths
            assert ratio * base == pytest.approx(milliseconds, abs=rounding)
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
    passes, reader = network_passes(small(), 5, 65, compile=False, device=CPU)
    before = passes["float32"]()
    dataset = drawn(tmp_path, height, width)
    scored = make_up(dataset, 2, reader)
    assert len(scored) == 2
    assert torch.equal(passes["float32"](), before), "the network that is timed is left alone"
    for image in scored:
        scores = class_scores(image, 65)
        best = scores.softmax(1).max(1)
        assert torch.equal(best.indices[0], image.labels.long())
        assert torch.allclose(best.values[0], image.confidence, atol=1e-6)
    seconds, results = one_round(scored, new_scorers(5, (1, 2), reader), CPU, iter(range(1000)).__next__)
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


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("decoder", [True, False])
def test_made_up_logits_have_the_size_that_the_timed_network_gives(
    tmp_path: Path, decoder: bool, output_stride: int
) -> None:
    changes = {} if decoder else {"decoder": None}
    passes, reader = network_passes(small(output_stride=output_stride, **changes), 5, 65, compile=False, device=CPU)
    (image,) = make_up(drawn(tmp_path, 60, 65), 1, reader)
    assert image.logits.shape == passes["float32"]().shape
    assert image.labels.shape == (60, 65)


def test_without_torchmetrics_its_rows_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setattr(segapp.benchmarks.scorers, "peer_installed", lambda: False)
    options = [*TINY, *MEASURES, f"data.root={tmp_path}", "size=[65,65]", "rounds=1", "masks=1"]
    assert run_tool("benchmark", ["measures", *options]) == 0
    shown = capsys.readouterr().out
    assert "torchmetrics is left out: it is not installed; pip install torchmetrics" in shown
    assert {row["by"] for row in tables(shown)[1]} == {"segapp", "softmax over all classes"}


def test_measures_need_masks_and_a_square(tmp_path: Path) -> None:
    config = read_config("benchmark_measures", [*TINY, *MEASURES], MeasuresBenchmarkConfig)
    dataset = drawn(tmp_path, 8, 9)
    bare = SegmentationDataset("bare", dataset.classes, dataset.ids, dataset.images, None)
    for images, size, message in (
        (bare, (65, 65), "bare: its images have no masks"),
        (dataset, (65, 81), r"size=\[65,81\]: the canvas of measures is a square"),
    ):
        data = SimpleNamespace(dataset={"val": images}.get)
        settings = config.model_copy(update={"size": size, "data": data})
        with pytest.raises(UserError, match=message):
            time_measures(settings, ())


def test_other_counts_than_torchmetrics_are_an_error() -> None:
    ours, theirs = np.eye(2, dtype=np.int64), np.ones((2, 2), np.int64)
    with pytest.raises(AssertionError, match="torchmetrics has another confusion matrix"):
        check({(MATRIX, OURS): ours, (MATRIX, "torchmetrics"): theirs})
