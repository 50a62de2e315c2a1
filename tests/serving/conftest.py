"""A service of a narrow network, in this process."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from segapp.base.compose import read_config
from segapp.data.formats.shapes import SHAPES_CLASSES
from segapp.models.classifier import ClassifierConfig
from segapp.serving.app import make_app
from segapp.serving.config import ServeConfig
from segapp.serving.networks import open_network, ways_of
from segapp.serving.server import address_of, listening, make_server
from segapp.serving.service import Service
from tests.networks import save_random, small

Open = Callable[..., Service]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow network's. Read only."""
    path = tmp_path_factory.mktemp("serving") / "net.safetensors"
    save_random(path, small(), SHAPES_CLASSES)
    return path


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow one's. Read only."""
    path = tmp_path_factory.mktemp("serving") / "classifier.safetensors"
    save_random(path, ClassifierConfig(encoder=small().encoder), tuple("abcdef"))
    return path


@pytest.fixture(scope="session")
def open_service(checkpoint: Path) -> Open:
    """Opens a service by the keys of conf/serve.yaml, of a narrow network if none is named."""

    ways = cache(ways_of)

    def opened(*overrides: str, path: Path = checkpoint) -> Service:
        config = read_config("serve", [f"checkpoint={path}", "device=cpu", *overrides], ServeConfig)
        return Service(open_network(config, ways(config.limits), path), config)

    return opened


@pytest.fixture(scope="session")
def client(open_service: Open) -> Iterator[TestClient]:
    """For tests that leave nothing behind."""
    with TestClient(make_app(open_service())) as client:
        yield client


@contextmanager
def live(service: Service, port: int = 0) -> Iterator[str]:
    """A server in a thread, at a port of its own if none is named; gives its address."""
    server = make_server(service)
    with listening("127.0.0.1", port) as listener:
        address = address_of(listener)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield address
        finally:
            server.should_exit = True
            thread.join()
