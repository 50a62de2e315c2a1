import math
from pathlib import Path

import numpy as np
import pytest

from segapp.runs.history import Best, read_run, trained_seconds
from tests.training_runs import LINES, make_run, train_line


def test_pauses_are_no_time_of_training(tmp_path: Path) -> None:
    """Stopped after the validation of iteration 40, taken up again three days later and once more an hour later."""
    gap = 3 * 86400
    lines = LINES[:6] + [{**line, "time": line["time"] + gap} for line in LINES[6:]]
    lines.append(train_line(70, 85 + gap + 3600, 0.5))
    run = read_run(make_run(tmp_path, lines))
    assert run.pauses == 2
    assert run.seconds == pytest.approx(90 + 5), "the two paused stretches count as five seconds each, as the others"
    assert run["miou"].seconds == pytest.approx([30, 60, 90])


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


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (41_055_413, 41_055_413),
        ("41,055,413", 41_055_413),
        ("7", 7),
        (None, None),
        ("", None),
        ("many", None),
        ("1.5", None),
        (1.5, None),
        (True, None),
        ([1], None),
    ],
)
def test_parameters_are_read_as_number_and_as_text(written: object, read: int | None, tmp_path: Path) -> None:
    assert read_run(make_run(tmp_path, environment={"parameters": written})).parameters == read
    assert read_run(make_run(tmp_path, environment={"device": "cpu"})).parameters is None


def test_a_run_of_before_is_judged_by_its_miou(tmp_path: Path) -> None:
    for environment in ({"device": "cpu"}, {"metric": None, "metric_title": [1]}, {"metric": "", "metric_title": ""}):
        run = read_run(make_run(tmp_path, environment=environment))
        assert (run.metric, run.metric_title) == ("miou", "mIoU")
        assert run.best == Best(0.475, 40, ema=True)
        assert run.best_class_iou()["road"] == 0.7


def test_a_run_is_judged_by_the_metric_that_it_names(tmp_path: Path) -> None:
    """Its best is another validation than that of the best mIoU; validations are told by it, too."""
    lines = [{"top1" if key == "miou" else key: value for key, value in line.items()} for line in LINES]
    lines[2] |= {"top1": 0.9, "miou": 0.1}
    lines[5] |= {"ema_top1": 0.5}
    run = read_run(make_run(tmp_path, lines, environment={"metric": "top1", "metric_title": "Top-1 accuracy"}))
    assert (run.metric, run.metric_title) == ("top1", "Top-1 accuracy")
    assert run.best == Best(0.9, 20, ema=False)
    assert run.best_class_iou()["road"] == 0.5
    assert run["top1"].seconds == pytest.approx([30, 60, 90])
    lines[8] |= {"ema_top1": 0.95}
    run = read_run(make_run(tmp_path, lines, environment={"metric": "top1", "metric_title": "Top-1 accuracy"}))
    assert run.best == Best(0.95, 60, ema=True)


@pytest.mark.parametrize("text", ["!!int ''", "!!bool x", "!!timestamp x", "[" * 3000])
def test_a_damaged_config_is_none(text: str, tmp_path: Path) -> None:
    folder = make_run(tmp_path)
    (folder / "config.yaml").write_text(text)
    assert read_run(folder).best == Best(0.475, 40, ema=True)
