"""How the page looks, and how it is steered: at any width, in light and dark, by keys alone."""

from typing import Literal

import numpy as np
import pytest
from playwright.sync_api import expect

from segapp.serving.page import SAMPLES
from tests.browser.conftest import Open
from tests.browser.service.conftest import Array
from tests.browser.service.page import answered, choose, encoded, hand_over
from tests.browser.test_looks import GRAPHICS, TEXT, look

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("width", [1280, 390, 320])
def test_it_fits_its_width(visit: Open, address: str, picture: Array, width: int) -> None:
    page = visit(address, width)
    for view in (None, "over", "wipe", "side"):
        if view == "over":
            choose(page, encoded(picture), 5 * "unbroken_" + ".png")
            answered(page, 5 * "unbroken_" + ".png")
        if view:
            page.locator(f"[value={view}]").check()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert look(page, "scrollingSideways") == []
        assert look(page, "outside") == []
        assert look(page, "overlapping") == []


@pytest.mark.parametrize("shape", [(400, 1), (1, 400)])
def test_a_sliver_fits_the_window_and_can_be_pointed_at(visit: Open, address: str, shape: tuple[int, int]) -> None:
    page = visit(address, 390)
    choose(page, encoded(np.zeros((*shape, 3), np.uint8)))
    answered(page)
    for view in ("over", "side"):
        page.locator(f"[value={view}]").check()
        box = page.locator("#shown").bounding_box()
        assert box is not None
        assert 40 < box["width"] <= 390
        assert 40 < box["height"] <= 0.73 * 800


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out(visit: Open, address: str, picture: Array, scheme: Literal["light", "dark"]) -> None:
    page = visit(address, scheme=scheme)
    hand_over(page, "paste", None)
    expect(page.locator("#problem p")).to_have_text("There is no picture in what was pasted.")
    assert look(page, "faintTexts", TEXT) == {}
    choose(page, encoded(picture))
    answered(page)
    page.locator("#shown").focus()
    page.keyboard.press("ArrowUp")
    assert look(page, "faintTexts", TEXT) == {}
    paper = look(page, "luminance", "[getComputedStyle(document.body).backgroundColor]")
    assert paper < 0.05 if scheme == "dark" else paper > 0.8
    line = "getComputedStyle(document.querySelector('#input')).borderTopColor"
    assert look(page, "contrast", "document.querySelector('#input')", line) >= GRAPHICS


def test_all_is_reached_by_keys_in_order(visit: Open, address: str) -> None:
    page = visit(address)
    outline = "getComputedStyle(document.activeElement.closest('.choice') ?? document.activeElement).outlineStyle"
    focus = "document.activeElement.id || document.activeElement.dataset.name || document.activeElement.type || ''"
    page.keyboard.press("Tab")
    assert page.evaluate(focus) == "choose"
    for name in sorted(SAMPLES, reverse=True):
        page.keyboard.press("Tab")
        assert page.evaluate(focus) == name
    page.keyboard.press("Enter")
    answered(page, "astronaut.jpg")
    order: list[str] = []
    for _ in range(20):
        page.keyboard.press("Tab")
        if not (reached := page.evaluate(focus)):
            break
        assert page.evaluate(outline) != "none", "the focus is seen"
        if reached not in order[-1:]:
            order.append(reached)
    assert order == ["radio", "opacity", "shown", "on", "off", "checkbox", "mask-file", "overlay-file", "coco-file"]
    page.get_by_role("checkbox").first.focus()
    before = page.get_by_role("checkbox").first.is_checked()
    page.keyboard.press("Space")
    assert page.get_by_role("checkbox").first.is_checked() != before


def test_views(visit: Open, address: str, picture: Array) -> None:
    page = visit(address)
    choose(page, encoded(picture))
    answered(page)
    clip = "getComputedStyle(document.querySelector('#mask')).clipPath"
    assert page.evaluate(clip) == "none"
    assert not page.locator("#plain").is_visible()
    page.get_by_role("radio", name="Wipe").check()
    page.get_by_role("slider", name="Wipe").fill("30")
    assert "30%" in page.evaluate(clip)
    box = page.locator("#shown").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 60)
    page.mouse.up()
    assert page.get_by_role("slider", name="Wipe").input_value() == "80"
    page.get_by_role("radio", name="Side by side").check()
    assert page.evaluate(clip) == "none"
    left, right = page.locator("#plain").bounding_box(), page.locator("#shown").bounding_box()
    assert left is not None
    assert right is not None
    assert left["x"] + left["width"] < right["x"]
    assert left["height"] == pytest.approx(right["height"], abs=1)
