"""The benchmark of loading, as a person runs it."""

import re
from pathlib import Path

import pytest
import torch

from segapp.base.classes import VOC_CLASSES
from segapp.benchmarks.loading import PEERS
from segapp.cli import run_tool
from segapp.data.formats.voc import voc_layout


@pytest.mark.slow
def test_benchmark_times_loading(shapes_root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [f"data.root={shapes_root}", "data.train=train", "rounds=1", "samples=32", "transform.crop=65"]
    assert run_tool("benchmark", ["data", *options]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if re.match("(segapp|albumentations) ", line)]
    assert len(rows) == 2, "in-process and with workers"
    assert all(float(row.split()[-1]) == 1.0 for row in rows)


def test_peers_make_what_training_needs(shapes_root: Path) -> None:
    dataset = voc_layout(shapes_root, "train", VOC_CLASSES, "shapes")
    for name, peer in PEERS.items():
        images = peer(dataset, 97, (0.5, 1.0, 2.0))
        labels: set[float] = set()
        for position in range(24):
            image, label = images[position]
            assert (image.shape, image.dtype, label.shape) == ((3, 97, 97), torch.float32, (97, 97)), name
            assert image.min() >= -1
            assert image.max() <= 1
            labels |= set(label.flatten().tolist())
        assert {0, 255} < labels <= {*range(21), 255}, name
