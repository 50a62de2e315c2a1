"""What the page says where there is no answer."""

from pathlib import Path

import pytest
from playwright.sync_api import Route, expect

from tests.browser.conftest import Open
from tests.browser.service.conftest import MOST_BYTES, Array, serving
from tests.browser.service.page import answered, choose, encoded, hand_over

pytestmark = pytest.mark.browser


def test_what_is_no_picture_is_refused_in_a_sentence(visit: Open, address: str, picture: Array) -> None:
    page, alert, content = visit(address), "[role=alert]", encoded(picture)
    for event, told in (("drop", "What was dropped is no file"), ("paste", "There is no picture")):
        hand_over(page, event, None)
        expect(page.locator(alert)).to_contain_text(told)
    choose(page, b"hello", "<b>text</b>.jpg", "image/jpeg")
    expect(page.locator(alert)).to_contain_text("<b>text</b>.jpg: not an image")
    assert not page.locator("#again").is_visible()
    assert not page.locator("#result").is_visible()
    choose(page, content)
    answered(page)
    assert not page.locator("#problem").is_visible()
    choose(page, content[: len(content) // 2], "half.png")
    expect(page.locator("#problem")).to_be_visible()
    assert not page.locator("#result").is_visible()
    assert page.locator("#problem p b").count() == 0


def test_a_picture_of_too_many_bytes_is_not_sent(visit: Open, address: str) -> None:
    page, sent = visit(address), []
    page.on("request", lambda request: sent.append(request.url))
    choose(page, bytes(MOST_BYTES + 1))
    expect(page.get_by_role("alert")).to_contain_text(f"more than the {MOST_BYTES} that this service takes")
    assert not [url for url in sent if "segment" in url]


def test_a_service_that_goes_away_and_comes_back(visit: Open, checkpoint: Path, picture: Array) -> None:
    with serving(checkpoint) as address:
        page = visit(address)
        expect(page.locator("#network")).to_contain_text("net.safetensors")
    choose(page, encoded(picture))
    expect(page.get_by_role("alert")).to_contain_text("The service does not answer.")
    assert not page.locator("#result").is_visible()
    with serving(checkpoint, port=int(address.rpartition(":")[2])):
        page.get_by_role("button", name="Try again").click()
        answered(page)
        assert not page.locator("#problem").is_visible()


def test_a_second_picture_ends_the_request_for_the_first(visit: Open, address: str, picture: Array) -> None:
    page = visit(address)
    held: list[Route] = []
    ended: list[str | None] = []

    def hold(route: Route) -> None:
        held.append(route) if not held else route.continue_()

    page.route("**/v1/segment*", hold)
    page.on("requestfailed", lambda request: ended.append(request.failure))
    choose(page, encoded(picture), "first.png")
    expect(page.locator("#busy")).to_be_visible()
    page.wait_for_function("document.querySelector('#result').ariaBusy === 'true'")
    choose(page, encoded(picture[:, ::-1]), "second.png")
    answered(page, "second.png")
    assert len(held) == 1
    assert ended == ["net::ERR_ABORTED"]
    assert not page.locator("#busy").is_visible()
    assert not page.locator("#problem").is_visible()


def test_a_token_is_asked_for_where_one_is_needed(visit: Open, checkpoint: Path, picture: Array) -> None:
    with serving(checkpoint, "token=open.sesame") as address:
        page = visit(address)
        field = page.get_by_label("This service asks for a token")
        expect(field).to_be_visible()
        choose(page, encoded(picture))
        expect(page.get_by_role("alert")).to_contain_text("token")
        field.fill("another")
        page.get_by_role("button", name="Use it").click()
        expect(field).to_be_focused()
        field.fill(" open.sesame ")
        page.keyboard.press("Enter")
        answered(page)
        assert not field.is_visible()
        assert not page.locator("#problem").is_visible()
