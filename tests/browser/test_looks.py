"""How the pages look: at any width, in light and dark, and on paper."""

import io
import re
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Page
from pypdf import PdfReader

from segapp.base.classes import voc_palette
from segapp.base.drawing import css_colour
from tests.browser.conftest import Open
from tests.browser.make import CLASSES

pytestmark = pytest.mark.browser

PAGES = ["report", "run", "compare", "audit"]
WIDTHS = [1280, 390, 320]
A4_WIDTH, A4_HEIGHT = 210 / 25.4 * 72, 297 / 25.4 * 72
"""In points."""
PRINTED_WIDTH = 700
"""Of A4 less the margins, in CSS pixels."""
TEXT, GRAPHICS = 4.5, 3.0
"""Contrasts that WCAG 2.2 asks for: 1.4.3 and 1.4.11, level AA."""
LOOK = (Path(__file__).parent / "look.js").read_text()


def look(page: Page, question: str, *arguments: object) -> Any:
    return page.evaluate(f"({LOOK.strip()}).{question}({', '.join(map(str, arguments))})")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_fits_its_width(visit: Open, name: str, width: int) -> None:
    page = visit(name, width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert look(page, "scrollingSideways") == [], "only cards marked for it scroll"
    assert look(page, "outside") == []
    assert look(page, "overlapping") == []
    pictures = "[...document.images].map(image => [image.complete, image.naturalWidth > 0, image.clientWidth > 20])"
    assert all(map(all, page.evaluate(pictures)))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", PAGES)
def test_text_and_lines_stand_out(visit: Open, name: str, scheme: Literal["light", "dark"]) -> None:
    page = visit(name, scheme=scheme)
    paper = look(page, "luminance", "[getComputedStyle(document.body).backgroundColor]")
    assert paper < 0.05 if scheme == "dark" else paper > 0.8
    assert look(page, "faintTexts", TEXT) == {}
    assert look(page, "faintLines", GRAPHICS) == {}


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["report", "run"])
def test_heat_tables_can_be_read_at_every_shade(visit: Open, name: str, scheme: Literal["light", "dark"]) -> None:
    assert look(visit(name, scheme=scheme), "faintestShade") >= TEXT


@pytest.mark.parametrize("name", PAGES)
def test_print_is_light_and_leaves_out_what_is_for_screens(visit: Open, name: str) -> None:
    page = visit(name, PRINTED_WIDTH, "dark")
    page.emulate_media(media="print", color_scheme="dark")
    assert look(page, "luminance", "[getComputedStyle(document.body).backgroundColor]") == 1
    assert look(page, "faintTexts", TEXT) == {}
    assert "Click" not in page.evaluate("document.body.innerText")
    assert look(page, "sortMarks") == []
    assert look(page, "lostColours") == []


@pytest.mark.parametrize("name", PAGES)
def test_nothing_printed_is_wider_than_the_paper(visit: Open, name: str) -> None:
    page = visit(name, PRINTED_WIDTH)
    page.set_viewport_size({"width": PRINTED_WIDTH, "height": 200})  # of which heat tables take a part on screens
    page.emulate_media(media="print")
    assert look(page, "beyond", PRINTED_WIDTH) == []
    assert look(page, "scrolling") == [], "paper shows it all"


def printed(page: Page, height: int = 297) -> PdfReader:
    """On paper of A4's width and a height in mm, as most people print: only backgrounds that insist."""
    pdf = page.pdf(width="210mm", height=f"{height}mm", prefer_css_page_size=True, print_background=False)
    return PdfReader(io.BytesIO(pdf))


def fills(reader: PdfReader) -> set[str]:
    """The colours that areas and letters are filled with, as #rrggbb."""
    found = set()
    for sheet in reader.pages:
        contents = sheet.get_contents()
        assert contents is not None
        for values in re.findall(rb"([\d.]+) ([\d.]+) ([\d.]+) rg\b", contents.get_data()):
            found.add("#" + "".join(f"{round(255 * float(value)):02x}" for value in values))
    return found


def test_the_printed_report(visit: Open) -> None:
    reader = printed(visit("report", scheme="dark"))
    for sheet in reader.pages:
        assert float(sheet.mediabox.width) == pytest.approx(A4_WIDTH, abs=1)
        assert float(sheet.mediabox.height) == pytest.approx(A4_HEIGHT, abs=1)
    colours = fills(reader)
    assert {"#0f766e", "#e9edf2"} <= colours, "bars, in the light scheme's colours"
    assert {"#1a2027", "#12161b", "#2fa79b"}.isdisjoint(colours), "and none in the dark one's"
    assert {css_colour(colour) for colour in voc_palette()[: len(CLASSES)]} <= colours, "chips"


@pytest.mark.parametrize("height", [297, 240, 210])
def test_no_example_is_broken_across_sheets(visit: Open, height: int) -> None:
    page = visit("report")
    texts = [sheet.extract_text() for sheet in printed(page, height).pages]
    heads = [len(re.findall(r"mIoU \d\.\d{4}$|its IoU here", text, re.MULTILINE)) for text in texts]
    legends = [len(re.findall(r"\bignored$", text, re.MULTILINE)) for text in texts]
    assert sum(heads) == page.locator(".example").count()
    assert legends == heads
