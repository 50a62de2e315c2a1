"""What the HTML pages share: rendering, and pictures held inside the page."""

import base64
import io
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from segapp.base.drawing import Array, fit, picture
from segapp.base.files import write_text
from segapp.reports.numbers import decimal, percent

MAX_SIDE = 1024
"""Longer side, in pixels, above which a picture is scaled down before it goes into a page, if nothing else is said."""

_environment = Environment(
    loader=PackageLoader("segapp", "reports"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters.update(decimal=decimal, percent=percent)


def filled(source: str, **context: Any) -> str:
    """A page of another room, whose template's text may build on those of this folder."""
    return _environment.from_string(source).render(context)


def render(template: str, path: Path, **context: Any) -> None:
    """Writes one template of this folder, filled in and with every value escaped, whole or not at all.

    Templates have `decimal` (0.1234) and `percent` (12.34%) of reports/numbers.py as filters.
    """
    html = _environment.get_template(template).render(context)
    # A file name that is not UTF-8 holds lone surrogates, which no text file can.
    write_text(path, html.encode("utf-8", "replace").decode("utf-8"))


def data_uri(pixels: Array, palette: Array | None = None, side: int = MAX_SIDE) -> str:
    """A picture as text for `src`: JPEG of H x W x 3 RGB, or with a palette PNG of H x W indices.

    `side` is the longer one's bound in pixels.
    """
    image = fit(picture(pixels, palette), side)
    kind = "jpeg" if palette is None else "png"
    file = io.BytesIO()
    image.save(file, kind, quality=88, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"
