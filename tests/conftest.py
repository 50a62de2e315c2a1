"""Tiny data and networks; nothing outside pytest's own folders is read or written."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from segapp.data.formats.shapes import SHAPES_CLASSES, make_shapes
from segapp.models.deeplabv3plus import DeepLabV3PlusConfig
from tests.networks import save_random, small


def pytest_configure() -> None:
    """One thread a process: the tests themselves run side by side."""
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs and caches of a test are its own."""
    monkeypatch.setenv("SEGAPP_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("SEGAPP_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def shapes_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """8 + 4 images of 64 x 64 in VOC's layout. Read only."""
    root = tmp_path_factory.mktemp("shapes") / "set"
    make_shapes(root, train=8, val=4, height=64, width=64, seed=0)
    return root


@pytest.fixture
def make_checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Writes a checkpoint of a narrow network with random weights."""

    def make(
        name: str = "net.safetensors",
        classes: tuple[str, ...] = SHAPES_CLASSES,
        trained_on: tuple[str, ...] = ("none",),
        seed: int = 0,
        network: DeepLabV3PlusConfig | None = None,
    ) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        save_random(path, network or small(), classes, trained_on, seed)
        return path

    return make
