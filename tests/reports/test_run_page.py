"""The page of a run and the comparison of runs, from folders made by hand; and what is wrong with the others."""

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from segapp.base.paths import runs_folder
from segapp.cli import read_config, run_tool
from segapp.commands.compare import CompareConfig
from segapp.reports.compare import MOST, differences, names_apart
from segapp.reports.curves import FRAME, LABEL, POINTS, Line, chart, round_ticks, short, smoothed, thinned
from segapp.reports.run import duration, write_run_page
from segapp.runs.history import read_run, trained_seconds
from tests.reports.test_pages import Page

EVIL = '"><img src=x onerror=alert(1)></script><script>alert(2)</script>'
START = 1_800_000_000
Capture = pytest.CaptureFixture[str]


def train_line(iteration: int, time: float, loss: float | None, **more: float | None) -> dict[str, Any]:
    return {"iteration": iteration, "time": START + time, "loss": loss, **more}


def val_line(
    iteration: int, time: float, miou: float | None, iou: Mapping[str, float | None] | None = None, **more: float
) -> dict[str, Any]:
    classes = {f"iou/{name}": value for name, value in (iou or {}).items()}
    return {"iteration": iteration, "time": START + time, "miou": miou, **more, **classes}


LINES = [
    train_line(10, 0, 3.0, lr=0.01, images_per_second=20.0, data_wait=0.25, void_batches=1),
    train_line(20, 5, 2.0, lr=0.008, images_per_second=24.0, data_wait=0.05, void_batches=0),
    val_line(20, 25, 0.25, {"road": 0.5, "tree": 0.0, "rare": None}, pixel_accuracy=0.6, ema_miou=0.2),
    train_line(30, 30, 1.0, lr=0.004, images_per_second=22.0, data_wait=0.15, void_batches=2),
    train_line(40, 35, 1.5, lr=0.002, images_per_second=22.0, data_wait=0.15, void_batches=0),
    val_line(40, 55, 0.45, {"road": 0.7, "tree": 0.2, "rare": None}, pixel_accuracy=0.7, ema_miou=0.475),
    train_line(50, 60, 0.5, lr=0.001, images_per_second=30.0, data_wait=0.15, void_batches=0),
    train_line(60, 65, 0.75, lr=0.0, images_per_second=10.0, data_wait=0.15, void_batches=0),
    val_line(60, 85, 0.4, {"road": 0.625, "tree": 0.175, "rare": 0.4}, pixel_accuracy=0.65, ema_miou=0.475),
]
"""Five seconds for ten iterations, 20 seconds a validation."""


def make_run(
    folder: Path,
    lines: Sequence[Mapping[str, Any]] = LINES,
    config: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    values = {"name": "test", "iterations": 120, "optimizer": {"lr": 0.01}} if config is None else config
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(values), sort_keys=False))
    (folder / "environment.json").write_text(json.dumps(environment or {"device": "cpu", "parameters": 1234567}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


class Classed(Page):
    """Adds the texts of the elements by their first class, and the plots by the title of their card."""

    def __init__(self, path: Path) -> None:
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        super().__init__(path)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        if tag not in ("meta", "img", "br"):
            self._open.append((dict(attrs).get("class") or "").split(" ")[0])
            self.texts.setdefault(self._open[-1], []).append("")

    def handle_endtag(self, tag: str) -> None:
        super().handle_endtag(tag)
        self._open.pop()

    def handle_data(self, data: str) -> None:
        super().handle_data(data)
        for name in set(self._open):
            self.texts[name][-1] += data

    def tiles(self) -> dict[str, tuple[str, str]]:
        """By label, value and note; the headline has a label and a value as well."""
        values = [each.replace("\N{NO-BREAK SPACE}", " ") for each in self.texts["value"][1:]]
        return dict(zip(self.texts["label"][1:], zip(values, self.texts["note"], strict=True), strict=True))

    def curves(self) -> dict[str, list[list[tuple[float, float]]]]:
        """By the plot's label, each line's points as values, read off the drawing alone."""
        found: dict[str, list[list[tuple[float, float]]]] = {}
        for tag, attributes in self.tags:
            name = attributes.get("aria-label")
            if tag == "svg" and name:
                axes = [float(each) for each in (attributes["data-axes"] or "").split()]
                lines = found.setdefault(name, [])
            elif tag == "path" and (attributes.get("class") or "").startswith("line"):
                left, right, bottom, top, x0, x1, y0, y1, log_x, log_y = axes
                points = []
                for across, down in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", attributes["d"] or ""):
                    assert left - 0.01 <= float(across) <= right + 0.01
                    assert top - 0.01 <= float(down) <= bottom + 0.01
                    part = (bottom - float(down)) / (bottom - top)
                    value = y0 * (y1 / y0) ** part if log_y else y0 + part * (y1 - y0)
                    part = (float(across) - left) / (right - left)
                    points.append((x0 * (x1 / x0) ** part if log_x else x0 + part * (x1 - x0), value))
                lines.append(points)
        return found


def run_page(folder: Path) -> Classed:
    write_run_page(folder)
    return Classed(folder / "run.html")


def assert_self_contained(page: Page) -> None:
    source = re.sub(r"base64,[\w+/=]+", "", page.source)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|srcset", source)
    assert not any({"action", "poster", "data"} & attributes.keys() for _, attributes in page.tags)
    assert not any(tag in ("link", "iframe", "object", "embed") for tag, _ in page.tags)
    assert {attributes["href"] for _, attributes in page.tags if "href" in attributes} <= {"report.html"}


def assert_nothing_injected(page: Page) -> None:
    assert [tag for tag, _ in page.tags].count("script") == 1  # the page's own
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert not [
        1 for tag, attributes in page.tags if tag == "img" and not (attributes["src"] or "").startswith("data:")
    ]


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
    folders = [
        make_run(tmp_path / name, lines, config={EVIL: EVIL, "x": name}, environment={EVIL: EVIL, "y": name})
        for name in ('<b onclick="x">', "other")
    ]
    page = run_page(folders[0])
    assert_nothing_injected(page)
    assert_self_contained(page)
    assert page.tables["classes"][1][0] == EVIL
    assert page.tables[None][0] == [EVIL, EVIL]
    assert run_tool("compare", [*map(str, folders), f"output={tmp_path / 'c.html'}"]) == 0
    page = Classed(tmp_path / "c.html")
    assert_nothing_injected(page)
    assert_self_contained(page)
    assert page.tables["iou"][1][0] == EVIL
    assert page.tables["configs"][1:] == [["x", '<b onclick="x">', "other"]]


def test_pauses_are_no_time_of_training(tmp_path: Path) -> None:
    """Stopped after the validation of iteration 40, taken up again three days later and once more an hour later."""
    gap = 3 * 86400
    lines = LINES[:6] + [{**line, "time": line["time"] + gap} for line in LINES[6:]]
    lines.append(train_line(70, 85 + gap + 3600, 0.5))
    run = read_run(make_run(tmp_path, lines))
    assert run.pauses == 2
    assert run.seconds == pytest.approx(90 + 5), "the two paused stretches count as five seconds each, as the others"
    assert run["miou"].seconds == pytest.approx([30, 60, 90])
    page = run_page(tmp_path)
    assert page.tiles()["Time trained"] == ("1 min 35 s", "validations included, without 2 pauses")


@pytest.mark.parametrize(
    ("lines", "seconds", "pauses"),
    [
        ([], [], 0),
        ([(100, 0, True)], [math.nan], 0),
        ([(10, 0, False), (20, 100, False), (30, 200, False)], [100, 200, 300], 0),
        ([(10, 0, False), (20, 1, False), (40, 3, False), (240, 23, False)], [1, 2, 4, 24], 0),  # logged more rarely
        ([(10, 0, False), (20, 1, False), (30, 60, False)], [1, 2, 61], 0),  # no pause yet: a minute's grace
        (
            [(10, 0, False), (20, 1, False), (30, -500, False), (40, -499, False)],
            [1, 2, 3, 4],
            1,
        ),  # the clock set back
        ([(10, 0, False), (20, math.nan, False), (30, 2, False), (40, 3, False)], [1, 2, 3, 4], 2),
        (
            [(10, 0, False), (20, 5, False), (20, 1805, True), (30, 1810, False), (30, 3610, True)],
            [5, 10, 1810, 1815, 3615],
            0,
        ),
        ([(5, 0, True), (10, 50, True), (15, 100, True), (20, 9999, True)], [50, 100, 150, 200], 1),
    ],
)
def test_trained_seconds(lines: list[tuple[int, float, bool]], seconds: list[float], pauses: int) -> None:
    columns = np.array(lines, float).reshape(-1, 3)
    found, number = trained_seconds(columns[:, 0], columns[:, 1], columns[:, 2] > 0)
    assert found == pytest.approx(seconds, nan_ok=True)
    assert number == pauses


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


@pytest.mark.parametrize("length", [0, 1, 500, 501, 777, 12_345])
def test_thinned_keeps_the_extremes_of_every_stretch(length: int) -> None:
    random = np.random.default_rng(length)
    x, y = np.arange(length, dtype=float), random.normal(size=length)
    y[random.random(length) < 0.2] = np.nan
    few_x, few_y = thinned(x, y)
    assert len(few_y) <= POINTS + 2
    assert (np.diff(few_x) > 0).all()
    assert np.array_equal(few_x[[0, -1]], x[[0, -1]]) if length else not len(few_x)
    places = few_x.astype(int)
    assert np.array_equal(y[places], few_y, equal_nan=True), "points of the line itself"
    width = math.ceil(length / (POINTS // 2)) + 1
    if length > POINTS:
        for start in range(0, length - 2 * width, 97):  # two stretches wide: one lies inside whole
            inside = few_y[(few_x >= start) & (few_x < start + 2 * width)]
            assert np.isfinite(inside).any() == np.isfinite(y[start : start + 2 * width]).any()
        assert np.nanmax(few_y) == np.nanmax(y)
        assert np.nanmin(few_y) == np.nanmin(y)


def test_smoothed_is_the_mean_of_the_neighbours() -> None:
    random = np.random.default_rng(0)
    x, y = np.arange(200.0) * 10, random.normal(size=200)
    y[50:53], y[100:120] = np.nan, np.nan
    places, means = smoothed(x, y)
    assert places == pytest.approx(x)
    slow = [
        float(np.nanmean(part)) if np.isfinite(part := y[max(0, at - 5) : at + 6]).any() else math.nan
        for at in range(200)
    ]
    assert means == pytest.approx(slow, nan_ok=True)
    long = random.uniform(1, 2, 100_000)
    places, means = smoothed(np.arange(100_000.0), long)
    assert len(means) == POINTS
    assert means[250] == pytest.approx(np.mean(long[47600:52600]), abs=5e-3)
    for few in (0, 1, 2, 3):
        assert len(smoothed(x[:few], y[:few])[1]) == few


@pytest.mark.parametrize(
    "values",
    [
        [0.0],
        [5.0, 5.0],
        [-3.0, 7.0],
        [0.7012, 0.7013],
        [3.4e38, 1.0, 1.0],
        [-3.4e38, 3.4e38],
        [1e-38, 1.0, 1e-30],
        [1e-45, 1.0],
        [0.0, 0.0, 1e9],
        [math.nan, 2.0, math.nan],
        [12345.0, 12346.0],
        [99.99999, 1.0, 1.0, 1.0],
    ],
)
@pytest.mark.parametrize("from_zero", [True, False])
def test_axes_hold_every_value_and_have_few_round_ticks(values: list[float], from_zero: bool) -> None:
    drawn = chart("x", [Line(np.arange(1.0, len(values) + 1), np.array(values), marked=True)], from_zero=from_zero)
    assert drawn is not None
    finite = [value for value in values if not math.isnan(value)]
    assert drawn.y.low <= min(finite) <= max(finite) <= drawn.y.high
    assert 2 <= len(drawn.y.ticks) <= 8
    for value, text in drawn.y.ticks:
        assert drawn.y.low * (1 - 1e-9) <= value or drawn.y.low <= 0
        assert float(text.replace(",", "")) == pytest.approx(value, rel=1e-3, abs=1e-12 * max(map(abs, finite)))
    assert len(drawn.lines[0].dots) == len(finite)
    for _, down in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", drawn.lines[0].path):
        assert FRAME.top - 0.01 <= float(down) <= FRAME.bottom + 0.01


@pytest.mark.parametrize("x", [[1.0], [100.0], [150.0, math.nan], [4.0, 64.0, 1e5], [3.0, 3.5], [1e-6, 2.0, 1e9]])
def test_a_logarithmic_x_axis_spaces_equal_ratios_equally(x: list[float]) -> None:
    drawn = chart("x", [Line(np.array(x), np.ones(len(x)), marked=True)], log_x=True)
    assert drawn is not None
    assert 2 <= len(drawn.x.ticks) <= 8
    assert all(drawn.x.low * (1 - 1e-9) <= value <= drawn.x.high * (1 + 1e-9) for value, _ in drawn.x.ticks)
    finite = [value for value in x if not math.isnan(value)]
    across = [float(each) for each in re.findall(r"[ML]([-\d.]+) ", drawn.lines[0].path)]
    parts = [math.log(value / drawn.x.low) / math.log(drawn.x.high / drawn.x.low) for value in finite]
    assert all(0 <= part <= 1 for part in parts)
    assert across == pytest.approx([FRAME.left + part * (FRAME.right - FRAME.left) for part in parts], abs=0.01)
    log_x, log_y = drawn.axes.split()[-2:]
    assert (log_x, log_y) == ("1", "0")


def test_ticks_and_figures() -> None:
    assert round_ticks(0, 30_000) == [0, 10_000, 20_000, 30_000]
    assert round_ticks(0, 12_000) == [0, 5000, 10_000]
    assert round_ticks(0, 60) == [0, 20, 40, 60]
    assert round_ticks(0.62, 0.79) == pytest.approx([0.65, 0.7, 0.75])
    assert [short(value) for value in (30_000, 0.0125, 1e-5, 61.049, 1e9, math.nan)] == [
        "30,000",
        "0.0125",
        "1e-05",
        "61.05",
        "1e+09",
        "n/a",
    ]
    times = {0: "0 s", 59.6: "1 min", 61: "1 min 1 s", 3600: "1 h", 11_520: "3 h 12 min", 273_600: "3 d 4 h"}
    assert {each: duration(each).replace("\N{NO-BREAK SPACE}", " ") for each in times} == times
    assert duration(math.nan) == "n/a"


@pytest.mark.parametrize("highest", [1.0, 0.01])
def test_labels_of_lines_that_end_together_stand_apart(highest: float) -> None:
    lines = [Line(np.array([0.0, 9.0]), np.array([1, highest - at / 2000]), "", "c0", str(at)) for at in range(12)]
    lines.append(Line(np.array([0.0, 4.0]), np.array([0.0, 0.5]), "", "c0", "short"))
    drawn = chart("x", lines)
    assert drawn is not None
    ends = [each.end[1] for each in drawn.lines[:12]]
    assert min(np.diff(ends)) >= LABEL - 1e-9, "in the order of the lines"
    assert FRAME.top <= ends[0] < ends[-1] <= FRAME.bottom
    middle = (FRAME.top + FRAME.bottom) / 2
    assert drawn.lines[12].end[1] == pytest.approx(middle + 4, abs=1), "at its own line's end"


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


# tools/compare.py


def compare_runs(*arguments: object) -> int:
    return run_tool("compare", list(map(str, arguments)))


@pytest.fixture
def two(tmp_path: Path) -> list[Path]:
    """A, as above; B, with an hour's pause, classes of its own and a config that differs in three keys."""
    base = {"name": "x", "iterations": 60, "optimizer": {"lr": 0.01, "power": 0.9}, "splits": ["a", "b"]}
    transforms = {"train": [{"Flip": {"p": 0.5}}, {"Crop": {"height": 65}}]}
    other = {"train": [{"Flip": {"p": 0.5}}, {"Crop": {"height": 129}}]}
    lines = [
        train_line(10, 0, 4.0, images_per_second=40.0),
        train_line(20, 5, 2.0, images_per_second=50.0),
        train_line(30, 4000, 3.0, images_per_second=60.0),
        val_line(30, 4020, 0.5, {"road": 0.75, "sky": 0.25}),
    ]
    return [
        make_run(tmp_path / "a", config=base | {"transform": transforms}, environment={"device": "cpu"}),
        make_run(
            tmp_path / "b",
            lines,
            config=base | {"transform": other, "optimizer": {"lr": 0.02, "power": 0.9}, "seed": None},
            environment={"device": "cuda", "parameters": 41055413},
        ),
    ]


@pytest.mark.parametrize(
    ("other", "unlike"),
    [
        ({"data": {"val": "val", "train": "trainaug", "root": "/elsewhere"}}, []),
        ({"data": {"val": "minival"}}, ["data.val"]),
        (
            {"inference": {"scales": [0.5, 1.0]}, "model": {"output_stride": 8}},
            ["inference.scales", "model.output_stride"],
        ),
    ],
)
def test_runs_scored_differently_are_not_compared_silently(
    other: dict[str, Any], unlike: list[str], tmp_path: Path, capsys: Capture
) -> None:
    base = {"data": {"val": "val", "train": "train"}, "inference": {"scales": [1.0]}, "model": {"output_stride": 16}}
    make_run(tmp_path / "a", config=base)
    make_run(tmp_path / "b", config={key: value | other.get(key, {}) for key, value in base.items()})
    output = tmp_path / "c.html"
    assert compare_runs(tmp_path / "a", tmp_path / "b", f"output={output}") == 0
    page, told = output.read_text(), capsys.readouterr().err
    assert ("Not scored alike" in page) == bool(unlike)
    assert ("not scored alike: they differ in " + ", ".join(unlike) in told) == bool(unlike)
    assert not unlike or f"The runs differ in {', '.join(unlike)}:" in page


def test_comparison_figures_are_the_hand_worked_ones(two: list[Path], tmp_path: Path, capsys: Capture) -> None:
    output = tmp_path / "new" / "c=1.html"
    assert compare_runs(*two, f"output={output}") == 0
    assert capsys.readouterr().out == f"page  {output}\n"
    page = Classed(output)
    rows = [[cell.replace("\N{NO-BREAK SPACE}", " ") for cell in row] for row in page.tables["runs"]]
    assert rows == [
        ["Run", "Best mIoU", "to A", "at", "Iterations", "Time trained", "Images/s", "Parameters"],
        ["Aa", "0.4750EMA", "", "40", "60", "1 min 30 s", "22", "n/a"],
        ["Bb", "0.5000", "+0.0250", "30", "30of 60", "35 s", "50", "41,055,413"],
    ]
    assert page.texts["value"][0] == "0.5000"
    assert page.tables["iou"] == [
        ["Class", "A", "B"],
        ["road", "70.00%", "75.00%+5.00"],  # of A at iteration 40
        ["tree", "20.00%", "n/a"],
        ["rare", "n/a", "n/a"],
        ["sky", "n/a", "25.00%"],
    ]
    assert page.tables["configs"] == [
        ["Key", "A", "B"],
        ["optimizer.lr", "0.01", "0.02"],
        ["transform.train.1.Crop.height", "65", "129"],
        ["seed", "absent", "null"],
    ]
    assert page.tables["environments"][1:] == [["device", "cpu", "cuda"], ["parameters", "absent", "41055413"]]
    assert_self_contained(page)
    curves = page.curves()
    assert list(curves) == [
        f"{title} by {x}" for title in ("Loss", "mIoU", "mIoU of the EMA") for x in ("iteration", "seconds trained")
    ]
    *_, last = curves["mIoU by seconds trained"]
    assert np.array(last) == pytest.approx(np.array([[35, 0.5]]), rel=2e-3)
    assert [x for x, _ in curves["mIoU by seconds trained"][0]] == pytest.approx([30, 60, 90], abs=0.2)
    assert [y for _, y in curves["Loss by iteration"][1]] == pytest.approx([4, 2, 3], abs=0.01), "as logged, too"


def test_time_has_the_unit_that_fits(tmp_path: Path) -> None:
    """Three times 30 minutes, and three times 30 hours."""
    for factor, unit in ((60, "minutes"), (3600, "hours")):
        lines = [{**line, "time": START + factor * (line["time"] - START)} for line in LINES]
        folders = [make_run(tmp_path / unit / name, lines) for name in "ab"]
        assert compare_runs(*folders, f"output={tmp_path / unit / 'c.html'}") == 0
        curve = Classed(tmp_path / unit / "c.html").curves()[f"mIoU by {unit} trained"][1]
        assert [x for x, _ in curve] == pytest.approx([30, 60, 90], abs=0.2)


def test_differences_are_exact() -> None:
    one = {"a": 1, "b": {"c": [1, 2], "d": None}, "same": "x", "e": {}, "f": "1"}
    other = {"a": 1, "b": {"c": [1, 3], "d": None}, "same": "x", "e": {"g": True}, "f": 2, "h": 1.5}
    assert differences([one, other]) == {
        "b.c": ["[1, 2]", "[1, 3]"],
        "e": ["{}", None],
        "f": ["1", "2"],
        "e.g": [None, "true"],
        "h": [None, "1.5"],
    }
    assert differences([one, one, one]) == {}
    assert differences([{}, {}]) == {}


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [read_run(make_run(tmp_path / place)) for place in ("x/1/run", "y/1/run", "y/2/run")]
    assert names_apart(runs) == ["x/1/run", "y/1/run", "y/2/run"]
    assert names_apart(runs[1:]) == ["1/run", "2/run"]
    assert names_apart([runs[0], read_run(make_run(tmp_path / "z"))]) == ["run", "z"]


def test_globs_latest_and_runs_named_twice(tmp_path: Path, capsys: Capture) -> None:
    base = runs_folder() / "train"
    for age, name in enumerate(("one", "two", "three")):
        make_run(base / name)
        os.utime(base / name / "metrics.jsonl", (START - age, START - age))
    (base / "notes").mkdir()
    assert compare_runs(base / "t*", "latest", base / "two", f"output={tmp_path / 'c.html'}") == 0
    assert [row[0] for row in Page(tmp_path / "c.html").tables["runs"][1:]] == ["Athree", "Btwo", "Cone"]
    capsys.readouterr()
    assert compare_runs(base / "*") == 0, "a glob leaves out what is no run"
    (page,) = runs_folder().glob("compare/*_one/compare.html")
    assert capsys.readouterr().out == f"page  {page}\n"


def test_as_many_as_fit_have_lines_of_their_own(tmp_path: Path) -> None:
    folders = [make_run(tmp_path / f"run {number:02}") for number in range(MOST)]
    make_run(folders[3], [])
    assert compare_runs(*folders, f"output={tmp_path / 'c.html'}") == 0
    page = Classed(tmp_path / "c.html")
    samples = {attributes.get("class") or "" for tag, attributes in page.tags if tag == "svg"}
    assert len({each for each in samples if each.startswith("sample")}) == MOST
    assert page.tables["runs"][4][:2] == ["Drun 03", "n/a"]
    assert len(page.curves()["mIoU by iteration"]) == MOST - 1
    assert "No key differs" in page.text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no run is named; name two or more: python tools/compare.py "),
        (["a"], "a is one run; name two or more"),
        (["a", "./a"], "a is one run; name two or more"),
        (["a", "nothing"], "nothing: no such run"),
        (["a", "n*"], "n*: no such run"),
        (["a", "empty"], "empty: no run's folder, which holds metrics.jsonl"),
        (["a", "more"], "more: no run's folder, which holds metrics.jsonl; try more/*"),
        (["a", "a/config.yaml"], "a/config.yaml: no run's folder"),
        (["a", "latest"], "no run yet under "),
        (["a", "b", "outptu=x.html"], "outptu is no key of this config; did you mean output?"),
        (["a", "b", "output=x"], "output=x: a file that ends in .html is written"),
        (["a", "b", "output=a/config.yaml/x.html"], "cannot write to a/config.yaml"),
        (["more/*"], f"{MOST + 1} runs are named; {MOST} fit on one page"),
        (["--all"], "--all: options are written key=value"),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b", *(f"more/{number}" for number in range(MOST + 1))):
        make_run(tmp_path / name, LINES[:1])
    (tmp_path / "empty").mkdir()
    before = sorted(tmp_path.rglob("*"))
    assert compare_runs(*arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")
    assert sorted(tmp_path.rglob("*")) == before


def test_the_config_composes() -> None:
    assert read_config("compare", [], CompareConfig).output is None
