"""A real browser, one a module; the pages, made once a module; and a tab that lets nothing pass unseen."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from tests.browser.make import make_pages

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser to test the pages in: none of {', '.join(NAMES)} is there; apt install chromium")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(scope="module")
def pages(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """By name; asks for the browser first, as without one they are not needed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGAPP_CACHE", str(tmp_path_factory.mktemp("cache")))
        return make_pages(tmp_path_factory.mktemp("pages"))


@pytest.fixture
def visit(browser: Browser, pages: dict[str, Path]) -> Iterator[Open]:
    """Opens pages by name; fails if one then asks for anything but itself, or has any error or message."""
    seen: list[str] = []
    tabs: list[Page] = []

    def visit(name: str, width: int = 1280, scheme: Literal["light", "dark"] = "light") -> Page:
        address = pages[name].as_uri()
        tab = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme, offline=True)
        tabs.append(tab)

        def on_request(request: Request) -> None:
            if request.url != address and not request.url.startswith("data:"):
                seen.append(f"asks for {request.url}")

        def on_console(message: ConsoleMessage) -> None:
            seen.append(f"console: {message.text}")

        tab.on("request", on_request)
        tab.on("console", on_console)
        tab.on("pageerror", lambda error: seen.append(f"exception: {error}"))
        tab.set_default_timeout(5000)
        tab.goto(address)
        return tab

    yield visit
    for tab in tabs:
        tab.close()
    assert not seen
