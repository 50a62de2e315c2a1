"""Folders of training runs, made by hand."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

START = 1_800_000_000


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
