"""The page of a run, from folders made by hand."""

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segapp.reports.curves import POINTS
from segapp.reports.run import write_run_page
from tests.pages import EVIL, Classed, assert_nothing_injected, assert_self_contained
from tests.training_runs import LINES, make_run, train_line, val_line


def run_page(folder: Path) -> Classed:
    write_run_page(folder)
    return Classed(folder / "run.html")


def test_figures_are_the_hand_worked_ones(tmp_path: Path) -> None:
    page = run_page(make_run(tmp_path / "my run"))
    assert page.texts["value"][0] == "0.4750"
    assert "at iteration 40\n" in page.text
    assert "EMA of the weights" in page.text
    assert "unfinished, 50%" in page.text
    assert page.tiles() == {
        "Iterations": ("60", "of 120"),
        "Last mIoU": ("0.4000", "iteration 60, EMA 0.4750"),
        "Last pixel accuracy": ("0.6500", "at the last validation"),
        "Time trained": ("1 min 30 s", "validations included"),  # 85 s, and 5 s before the first line
        "Time to go": ("1 min 30 s", "at the mean pace so far"),
        "Images a second": ("22", "median"),
    }
    assert "3 batches held nothing but void pixels" in page.text
    assert page.tables["classes"] == [
        ["class", "last", "best", "at", "20", "40", "60"],
        ["road", "62.50%", "70.00%", "40", "50", "70", "62"],
        ["tree", "17.50%", "20.00%", "40", "0", "20", "18"],
        ["rare", "40.00%", "40.00%", "60", "", "", "40"],
    ]
    for text in ("last 0.75", "last 0.4000, EMA 0.4750", "median 15%", "optimizer:\n  lr: 0.01", "1234567"):
        assert text in page.text
    assert_self_contained(page)


def test_curves_show_the_values(tmp_path: Path) -> None:
    curves = run_page(make_run(tmp_path)).curves()
    assert list(curves) == [
        f"{title} by iteration"
        for title in (
            "Loss",
            "mIoU",
            "Pixel accuracy",
            "Learning rate",
            "Images a second",
            "Time spent waiting for data",
        )
    ]
    expected = {
        "Loss": [(10, 3.0), (20, 2.0), (30, 1.0), (40, 1.5), (50, 0.5), (60, 0.75)],
        "Learning rate": [(10, 0.01), (20, 0.008), (30, 0.004), (40, 0.002), (50, 0.001), (60, 0)],
        "Time spent waiting for data": [(10, 25), (20, 5), (30, 15), (40, 15), (50, 15), (60, 15)],
        "mIoU": [(20, 0.25), (40, 0.45), (60, 0.4)],
    }
    for title, points in expected.items():
        drawn, given = np.array(curves[f"{title} by iteration"][0]), np.array(points)
        assert drawn == pytest.approx(given, rel=1e-3, abs=1e-3 * given[:, 1].max())
    ema = np.array(curves["mIoU by iteration"][1])
    assert ema[:, 1] == pytest.approx([0.2, 0.475, 0.475], abs=1e-3)


def test_a_finished_run_links_its_report(tmp_path: Path) -> None:
    folder = make_run(tmp_path, config={"iterations": 60})
    assert "final report" not in run_page(folder).text
    (folder / "report.html").touch()
    page = run_page(folder)
    assert "finished" in page.texts["tag"]
    assert "unfinished" not in page.text
    assert "Time to go" not in page.tiles()
    assert [attributes["href"] for tag, attributes in page.tags if tag == "a"] == ["report.html"]


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"metrics.jsonl": b""},
        {"metrics.jsonl": b'{"iteration": 1'},
        {"config.yaml": b"a: [1", "environment.json": b"[]", "metrics.jsonl": b"[]\nnull\n{}\n\xff\n"},
        {
            "config.yaml": b"- 1\n",
            "environment.json": b"{",
            "metrics.jsonl": b'{"iteration": "1"}\n{"iteration": -1}\n',
        },
        {"config.yaml": b"iterations: &a [*a]\n", "metrics.jsonl": b"[" * 100_000 + b"\n"},
    ],
)
def test_a_folder_with_nothing_measured(files: dict[str, bytes], tmp_path: Path) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    page = run_page(tmp_path)
    assert "nothing measured yet" in page.text
    assert not page.curves()


def test_before_the_first_validation(tmp_path: Path) -> None:
    page = run_page(make_run(tmp_path, LINES[:2], config={}))
    assert "no validation yet" in page.text
    assert page.tiles() == {
        "Iterations": ("20", ""),
        "Time trained": ("10 s", "validations included"),
        "Images a second": ("22", "median"),
    }
    page = run_page(make_run(tmp_path, LINES[:1]))
    assert page.tiles()["Time trained"][0] == "n/a", "a single line tells no pace"


def test_a_line_cut_off_and_lines_that_are_damaged(tmp_path: Path) -> None:
    whole = run_page(make_run(tmp_path)).text
    metrics = tmp_path / "metrics.jsonl"
    text = metrics.read_text()
    metrics.write_text(text + '{"iteration": 70, "time": 18000')
    assert run_page(tmp_path).text == whole, "a line half written is not told"
    metrics.write_text("nonsense\n" + text.replace("\n", "\n\n", 1) + "{}\n")
    assert "2 lines of metrics.jsonl cannot be read" in run_page(tmp_path).text


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    losses = [3.0, None, 2.0, 2.0, math.nan, math.inf, 1e300, 1.0, 1.0]
    lines: list[dict[str, Any]] = [train_line(at * 1000, at, loss, grad_norm=None) for at, loss in enumerate(losses)]
    lines += [val_line(8000, 9, None, {"road": None}), val_line(9000, 10, math.nan, {"road": "much"})]  # type: ignore[dict-item]
    page = run_page(make_run(tmp_path, lines))
    assert "The loss was not finite on 4 of 9 lines: iteration 1,000, 4,000, 5,000, ..." in page.text
    assert list(page.curves()) == ["Loss by iteration"]
    assert len(page.curves()["Loss by iteration"][0]) == 5
    (path, *_) = [each["d"] or "" for tag, each in page.tags if tag == "path" and "line" in (each.get("class") or "")]
    assert [len(part.split("L")) for part in path[1:].split("M")] == [1, 2, 2], "broken where nothing was finite"
    assert path.split("M")[1].endswith("h0"), "a point alone is a dot"
    assert page.tables["classes"][1] == ["road", "n/a", "n/a", "", "", ""]
    assert "no validation yet" in page.text
    assert not re.search(r"\b(nan|inf)\b", page.text)


def test_everything_is_escaped(tmp_path: Path) -> None:
    lines = [train_line(10, 0, 1.0), val_line(10, 1, 0.5, {EVIL: 0.5}, **{EVIL: 1.0})]
    page = run_page(make_run(tmp_path / '<b onclick="x">', lines, config={EVIL: EVIL}, environment={EVIL: EVIL}))
    assert_nothing_injected(page)
    assert_self_contained(page)
    assert page.tables["classes"][1][0] == EVIL
    assert page.tables[None][0] == [EVIL, EVIL]


def test_pauses_are_told(tmp_path: Path) -> None:
    """Stopped after the validation of iteration 40, taken up again three days later and once more an hour later."""
    gap = 3 * 86400
    lines = LINES[:6] + [{**line, "time": line["time"] + gap} for line in LINES[6:]]
    lines.append(train_line(70, 85 + gap + 3600, 0.5))
    page = run_page(make_run(tmp_path, lines))
    assert page.tiles()["Time trained"] == ("1 min 35 s", "validations included, without 2 pauses")


def test_a_long_run_is_small_and_keeps_its_spikes(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    losses = random.uniform(0.5, 1.0, 100_000)
    losses[[12345, 54321]] = 700.0, 90.0
    losses[77777] = 0.001
    tall = run_page(make_run(tmp_path, [train_line(at, at, loss) for at, loss in enumerate(losses.tolist(), 1)]))
    assert len(tall.source) < 100_000
    thin, _ = tall.curves()["Loss by iteration"]
    assert POINTS / 2 < len(thin) <= POINTS + 2
    for iteration, value in ((12346, 700), (54322, 90), (77778, 0.001)):
        assert any(x == pytest.approx(iteration, abs=20) and y == pytest.approx(value, rel=0.01) for x, y in thin)


def test_the_table_of_many_validations_keeps_first_last_and_best(tmp_path: Path) -> None:
    lines = [val_line(at * 100, at, 0.9 if at == 38 else at / 200, {"a": 0.5}) for at in range(1, 101)]
    header = run_page(make_run(tmp_path, lines)).tables["classes"][0]
    assert 10 < len(header) < 22
    assert {"100", "3,800", "10,000"} <= set(header)


def test_pictures_newest_first_and_few(tmp_path: Path) -> None:
    (make_run(tmp_path) / "pictures").mkdir()
    for iteration in range(500, 4501, 500):
        pixels = np.full((900, 1200, 3), iteration // 20, np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{iteration:06}.png")
    (tmp_path / "pictures" / "000500.png").write_bytes(b"damaged")
    (tmp_path / "pictures" / "notes.png").touch()
    page = run_page(tmp_path)
    pictures = page.pictures()
    assert list(pictures) == [
        "iteration 4,500",
        "iteration 4,000",
        "iteration 3,000",
        "iteration 2,000",
        "iteration 1,500",
    ]
    assert [each.shape for each in pictures.values()] == [(900, 1200, 3)] + [(315, 420, 3)] * 4
    assert [int(each.mean().round()) for each in pictures.values()] == [225, 200, 150, 100, 75]
    assert_self_contained(page)


def test_the_page_names_the_metric_of_the_run(tmp_path: Path) -> None:
    lines = [{key.replace("miou", "top1"): value for key, value in line.items()} for line in LINES]
    page = run_page(make_run(tmp_path, lines, environment={"metric": "top1", "metric_title": "Top-1 accuracy"}))
    assert page.texts["label"][0] == "Best Top-1 accuracy"
    assert page.texts["value"][0] == "0.4750"
    assert page.tiles()["Last Top-1 accuracy"] == ("0.4000", "iteration 60, EMA 0.4750")
    curve = page.curves()["Top-1 accuracy by iteration"][0]
    assert [y for _, y in curve] == pytest.approx([0.25, 0.45, 0.4], abs=1e-3)
    assert "mIoU" not in page.text
