import math
import re

import numpy as np
import pytest

from segapp.reports.curves import FRAME, LABEL, POINTS, Line, chart, round_ticks, smoothed, thinned


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


def test_ticks_are_round_and_few() -> None:
    assert round_ticks(0, 30_000) == [0, 10_000, 20_000, 30_000]
    assert round_ticks(0, 12_000) == [0, 5000, 10_000]
    assert round_ticks(0, 60) == [0, 20, 40, 60]
    assert round_ticks(0.62, 0.79) == pytest.approx([0.65, 0.7, 0.75])


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
