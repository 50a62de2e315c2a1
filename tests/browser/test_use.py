"""What a reader does on a page with mouse and keys: sorting, enlarging, reading values off curves; and no attacker."""

import math
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser.conftest import Open
from tests.browser.make import EVIL, EVIL_SCRIPT

pytestmark = pytest.mark.browser

TABLES = [
    ("report", "classes"),
    ("run", "classes"),
    ("compare", "runs"),
    ("compare", "iou"),
    ("audit", "classes"),
]
ZOOMABLE = ["report", "run", "audit"]


def number(text: str) -> float:
    """NaN of what is none; "41,055,413", "12.34%+5.00", "1 min 30 s" and "30of 60" by their first number."""
    first = text.replace(",", "").replace("%", " ").replace("+", " ").split()
    try:
        return float(first[0])
    except (IndexError, ValueError):
        return math.nan


def sorting(page: Page, table: str) -> tuple[list[str | None], list[list[str]]]:
    """By which heads the table is sorted and how, and what its rows show, in their order."""
    script = """table => [
      [...table.tHead.rows[0].cells].map(head => head.getAttribute("aria-sort")),
      [...table.tBodies[0].rows].map(row => [...row.cells].map(cell => cell.innerText))]"""
    heads, rows = page.locator(f"#{table}").evaluate(script)
    return heads, rows


@pytest.mark.parametrize(("name", "table"), TABLES)
def test_a_click_on_a_head_sorts_and_another_turns_it_round(visit: Open, name: str, table: str) -> None:
    page = visit(name)
    sorts, at_first = sorting(page, table)
    heads: list[str] = page.locator(f"#{table} thead th").all_inner_texts()
    for column, title in enumerate(heads):
        button = page.locator(f"#{table} thead th").nth(column).locator("button")
        if title == "Time trained" or not button.count():
            continue  # 8 min 20 s
        for _ in range(2):
            falls = sorts[column] == "ascending"
            button.click()
            sorts, now = sorting(page, table)
            expected = "descending" if falls else "ascending"
            assert sorts == [expected if each == column else None for each in range(len(heads))]
            assert sorted(now) == sorted(at_first)
            if title in ("Class", "class", "Run"):
                assert now == (at_first[::-1] if falls else at_first)
                continue
            values = [number(row[column]) if column < len(row) else math.nan for row in now]
            if title == "to A":
                values[now.index(at_first[0])] = 0  # A itself
            there = [value for value in values if not math.isnan(value)]
            assert values[: len(there)] == sorted(there, reverse=falls), "what has no value comes last"


def shown(page: Page) -> str | None:
    """The address of the enlarged picture; None if there is none."""
    source: str | None = page.evaluate("document.querySelector('dialog[open] img')?.src ?? null")
    return source


def focused(page: Page) -> int:
    """Which of the pictures has the focus; -1 if none."""
    place: int = page.evaluate("[...document.querySelectorAll('.zoom')].indexOf(document.activeElement)")
    return place


@pytest.mark.parametrize("name", ZOOMABLE)
def test_a_click_enlarges_and_arrows_step_also_round_the_ends(visit: Open, name: str) -> None:
    page = visit(name)
    sources: list[str] = page.evaluate("[...document.querySelectorAll('.zoom img')].map(image => image.src)")
    last = len(sources) - 1
    assert last >= 2
    assert shown(page) is None
    page.locator(".zoom").first.click()
    assert shown(page) == sources[0]
    large, small = page.locator("dialog img").bounding_box(), page.locator(".zoom img").first.bounding_box()
    assert large is not None
    assert small is not None
    assert large["width"] > small["width"]
    assert large["x"] >= 0
    assert large["x"] + large["width"] <= 1280
    for key, place in (("Left", last), ("Right", 0), ("Right", 1), ("Right", 2), ("Left", 1)):
        page.keyboard.press(f"Arrow{key}")
        assert shown(page) == sources[place]
    alt = page.locator(".zoom img").nth(1).get_attribute("alt")
    assert page.locator("dialog p").inner_text().endswith(alt or "no alt")
    page.locator("dialog").click()
    assert shown(page) is None


@pytest.mark.parametrize("name", ZOOMABLE)
def test_enlarging_by_keys_alone(visit: Open, name: str) -> None:
    page = visit(name)
    page.locator(".zoom").first.focus()
    page.keyboard.press("Tab")
    assert focused(page) == 1
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none", "the focus is seen"
    page.keyboard.press("Enter")
    assert shown(page) == page.locator(".zoom img").nth(1).get_attribute("src")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Escape")
    assert shown(page) is None
    assert focused(page) == 1


def test_arrow_down_steps_a_row_of_pictures(visit: Open) -> None:
    page = visit("report")
    page.locator(".zoom").nth(1).click()
    page.keyboard.press("ArrowDown")
    assert shown(page) == page.locator(".zoom img").nth(1 + 4).get_attribute("src")


@pytest.mark.parametrize("name", ["report", "run", "compare"])
def test_hovering_a_point_of_a_curve_tells_its_values(visit: Open, name: str) -> None:
    page = visit(name)
    hovered = 0
    for card in page.locator(".curve").all():
        if not card.locator("circle.dot").count():
            continue
        dot = card.locator("circle.dot").last
        x, y = dot.locator("title").evaluate("title => title.textContent").split(": ")
        dot.scroll_into_view_if_needed()
        dot.hover(force=True)
        where, *values = card.locator("output").all_inner_texts()
        assert number(where) == pytest.approx(number(x), rel=0.01)
        assert any(number(value) == pytest.approx(number(y), rel=0.01, abs=1e-4) for value in values)
        assert card.locator(".at").count() == 1
        page.mouse.move(0, 0)
        assert not any(card.locator("output").all_inner_texts())
        assert card.locator(".at").count() == 0
        hovered += 1
    assert hovered


@pytest.mark.parametrize("name", ["report", "run", "compare"])
def test_every_curve_is_in_the_legend_in_its_own_stroke(visit: Open, name: str) -> None:
    page = visit(name)
    script = """card => {
      const stroke = path => (({stroke, strokeDasharray}) => stroke + strokeDasharray)(getComputedStyle(path));
      const strokes = selector => [...card.querySelectorAll(selector)].map(stroke);
      return [strokes(".line:not(.silent)"), strokes(".legend .sample path")];
    }"""
    for card in page.locator(".curve").all():
        lines, legend = card.evaluate(script)
        if len(lines) > 1:
            assert legend == lines
            assert len(set(lines)) == len(lines) or "running mean" in card.inner_text()


@pytest.mark.parametrize("name", ["report", "run", "compare", "audit"])
def test_foreign_names_are_text_and_run_nothing(visit: Open, name: str, pages: dict[str, Path]) -> None:
    page = visit(name)
    text: str = page.evaluate("document.body.textContent")
    assert EVIL in text
    assert EVIL_SCRIPT in text
    press = "for (const button of document.querySelectorAll('button')) button.click(), box.close()"
    page.evaluate(press)  # `box` is the page's dialog
    state: dict[str, Any] = page.evaluate(
        """({
          attacked: document.attacked ?? 0,
          scripts: document.scripts.length,
          foreign: [...document.images].filter(image => !image.src.startsWith("data:image/")).length,
        })"""
    )
    assert state == {"attacked": 0, "scripts": 1, "foreign": 0}
