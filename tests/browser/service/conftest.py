"""A service in a thread, and its page in a browser."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect

from segapp.base.compose import read_config
from segapp.data.formats.shapes import SHAPES_CLASSES
from segapp.models.encoders.interface import INCEPTION
from segapp.serving.config import ServeConfig
from segapp.serving.networks import open_network
from segapp.serving.service import Service
from segapp.weights.checkpoint import CheckpointInfo, save_checkpoint
from tests.browser.conftest import Open
from tests.commands.tools import PREDICT
from tests.networks import randomise, small
from tests.serving.conftest import live

Array = npt.NDArray[np.uint8]

MOST_BYTES = 100_000
"""Of a picture that the service takes."""


@contextmanager
def serving(checkpoint: Path, *overrides: str, port: int = 0) -> Iterator[str]:
    """The address of a service in a thread, which shows images to a network as `run_predict` does."""
    words = [f"checkpoint={checkpoint}", *PREDICT, f"limits.bytes={MOST_BYTES}", *overrides]
    config = read_config("serve", words, ServeConfig)
    with live(Service(open_network(config, {}, checkpoint), config), port) as address:
        yield address


@pytest.fixture(scope="session")
def checkpoint(picture: Array, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a network that finds all classes in the picture, about as often."""
    model = small().build(len(SHAPES_CLASSES)).eval()
    randomise(model)
    with torch.no_grad():
        logits = model(torch.from_numpy(picture).permute(2, 0, 1)[None] / 127.5 - 1)
        last = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)][-1]
        assert last.bias is not None
        last.weight /= logits.std((0, 2, 3))[:, None, None, None]
        last.bias.sub_(logits.mean((0, 2, 3))).div_(logits.std((0, 2, 3)))
    info = CheckpointInfo(
        network=small(), classes=SHAPES_CLASSES, background=0, normalization=INCEPTION, canvas=65, trained_on=()
    )
    path = tmp_path_factory.mktemp("checkpoint") / "net.safetensors"
    save_checkpoint(path, model, info)
    return path


@pytest.fixture(scope="session")
def address(checkpoint: Path) -> Iterator[str]:
    with serving(checkpoint) as address:
        yield address


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    """Opens a service's page; fails if it asks for anything from elsewhere, or has an exception or a message but that
    an answer was an error."""
    seen: list[str] = []
    context = browser.new_context(accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(10000)
    expect.set_options(10000)

    def visit(address: str, width: int = 1280, scheme: Literal["light", "dark"] = "light") -> Page:
        def on_request(request: Request) -> None:
            if not request.url.startswith((address, f"blob:{address}", "data:")):
                seen.append(f"asks for {request.url}")

        def on_console(message: ConsoleMessage) -> None:
            if "Failed to load resource" not in message.text:
                seen.append(f"console: {message.text}")

        page.on("request", on_request)
        page.on("console", on_console)
        page.on("pageerror", lambda error: seen.append(f"exception: {error}"))
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        page.goto(address)
        return page

    yield visit
    context.close()
    assert not seen


@pytest.fixture(scope="session")
def picture() -> Array:
    """48 x 64."""
    y, x = np.mgrid[:48, :64]
    areas = np.stack([(x > 32) * 220, (y > 24) * 200, (x + y > 64) * 180], 2)
    return np.clip(areas + np.random.default_rng(0).integers(0, 12, (48, 64, 3)), 0, 255).astype(np.uint8)
