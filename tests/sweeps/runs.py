"""Runs that take no time: their score is a function of their config."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from segapp.base.config import save_config
from segapp.commands import train as command
from segapp.runs.layout import REPORT
from segapp.training.trainer import Watch
from tests.training_runs import make_run, val_line

STEPS = (5, 10)
"""Iterations of the validations."""


class Killed(BaseException):
    """As a process is."""


def made_up(monkeypatch: pytest.MonkeyPatch, before: Callable[[str], None] = lambda name: None) -> list[str]:
    """Puts runs without training in place of training. Returns the list of their folders' names, as they are begun.

    Args:
        before: called with a folder's name before its run is made.
    """
    begun: list[str] = []

    def main(overrides: list[str], watch: Watch | None = None) -> int:
        config = command.read_run_config(overrides)
        assert isinstance(config.output, Path)
        folder = config.output
        begun.append(folder.name)
        score = 0.9 - 0.1 * abs(math.log10(config.optimizer.lr / 0.05)) - 0.01 * config.seed
        folder.mkdir(parents=True, exist_ok=True)
        save_config(folder / "config.yaml", config)
        before(folder.name)
        lines = []
        for iteration in STEPS:
            lines.append(val_line(iteration, iteration, score))
            if watch is not None and not watch(iteration, score):
                break
        make_run(folder, lines, config.model_dump(mode="json"))
        (folder / REPORT).touch()
        return 0

    monkeypatch.setattr(command, "main", main)
    return begun
