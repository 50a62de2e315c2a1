"""Reads the HTML pages that segapp writes."""

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

EVIL = '"><img src=x onerror=alert(1)></script><script>alert(2)</script>'


class Page(HTMLParser):
    """The page's text, tables by id as rows of cell texts, and the attributes of every tag."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str | None, list[list[str]]] = {}
        self._rows: list[list[str]] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self._rows = self.tables.setdefault(dict(attrs).get("id"), [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self._rows = []

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._rows and self._rows[-1]:
            self._rows[-1][-1] += data.strip()

    def pictures(self) -> dict[str | None, npt.NDArray[np.uint8]]:
        """By caption, as RGB."""
        found = {}
        for tag, attributes in self.tags:
            if tag == "img":
                content = base64.b64decode((attributes["src"] or "").partition(",")[2])
                found[attributes["alt"]] = np.array(Image.open(io.BytesIO(content)).convert("RGB"))
        return found


class Classed(Page):
    """Adds the texts of the elements by their first class, and the plots by the title of their card."""

    def __init__(self, path: Path) -> None:
        self.texts: dict[str, list[str]] = {}
        self._open: list[str] = []
        super().__init__(path)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        super().handle_starttag(tag, attrs)
        if tag not in ("meta", "img", "br"):
            self._open.append((dict(attrs).get("class") or "").split(" ")[0])
            self.texts.setdefault(self._open[-1], []).append("")

    def handle_endtag(self, tag: str) -> None:
        super().handle_endtag(tag)
        self._open.pop()

    def handle_data(self, data: str) -> None:
        super().handle_data(data)
        for name in set(self._open):
            self.texts[name][-1] += data

    def tiles(self) -> dict[str, tuple[str, str]]:
        """By label, value and note; the headline has a label and a value as well."""
        values = [each.replace("\N{NO-BREAK SPACE}", " ") for each in self.texts["value"][1:]]
        return dict(zip(self.texts["label"][1:], zip(values, self.texts["note"], strict=True), strict=True))

    def curves(self) -> dict[str, list[list[tuple[float, float]]]]:
        """By the plot's label, each line's points as values, read off the drawing alone."""
        found: dict[str, list[list[tuple[float, float]]]] = {}
        for tag, attributes in self.tags:
            name = attributes.get("aria-label")
            if tag == "svg" and name:
                axes = [float(each) for each in (attributes["data-axes"] or "").split()]
                lines = found.setdefault(name, [])
            elif tag == "path" and (attributes.get("class") or "").startswith("line"):
                left, right, bottom, top, x0, x1, y0, y1, log_x, log_y = axes
                points = []
                for across, down in re.findall(r"[ML]([-\d.]+) ([-\d.]+)", attributes["d"] or ""):
                    assert left - 0.01 <= float(across) <= right + 0.01
                    assert top - 0.01 <= float(down) <= bottom + 0.01
                    part = (bottom - float(down)) / (bottom - top)
                    value = y0 * (y1 / y0) ** part if log_y else y0 + part * (y1 - y0)
                    part = (float(across) - left) / (right - left)
                    points.append((x0 * (x1 / x0) ** part if log_x else x0 + part * (x1 - x0), value))
                lines.append(points)
        return found


def assert_self_contained(page: Page) -> None:
    source = re.sub(r"base64,[\w+/=]+", "", page.source)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|srcset", source)
    assert not any({"action", "poster", "data"} & attributes.keys() for _, attributes in page.tags)
    assert not any(tag in ("link", "iframe", "object", "embed") for tag, _ in page.tags)
    assert {attributes["href"] for _, attributes in page.tags if "href" in attributes} <= {"report.html"}


def assert_nothing_injected(page: Page) -> None:
    assert [tag for tag, _ in page.tags].count("script") == 1  # the page's own
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert not [
        1 for tag, attributes in page.tags if tag == "img" and not (attributes["src"] or "").startswith("data:")
    ]
