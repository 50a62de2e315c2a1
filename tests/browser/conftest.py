"""A real browser, one a module; the pages, made once a module; and what lets nothing of a visit pass unseen."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Request, sync_playwright

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


@pytest.fixture(scope="module")
def tab(browser: Browser) -> Page:
    return browser.new_page(offline=True)


@pytest.fixture
def visit(tab: Page, pages: dict[str, Path]) -> Iterator[Open]:
    """Opens a page by name; fails if it then asks for anything but itself, or has any error or message."""
    seen: list[str] = []
    addresses = {path.as_uri() for path in pages.values()}

    def on_request(request: Request) -> None:
        if request.url not in addresses and not request.url.startswith("data:"):
            seen.append(f"asks for {request.url}")

    def on_console(message: ConsoleMessage) -> None:
        seen.append(f"console: {message.text}")

    def on_error(error: Error) -> None:
        seen.append(f"exception: {error}")

    def visit(name: str, width: int = 1280, scheme: Literal["light", "dark"] = "light") -> Page:
        tab.set_default_timeout(5000)
        tab.set_viewport_size({"width": width, "height": 800})
        tab.emulate_media(media="null", color_scheme=scheme)
        tab.goto(pages[name].as_uri())
        return tab

    tab.on("request", on_request)
    tab.on("console", on_console)
    tab.on("pageerror", on_error)
    yield visit
    tab.remove_listener("request", on_request)
    tab.remove_listener("console", on_console)
    tab.remove_listener("pageerror", on_error)
    assert not seen
