"""What the HTML pages share: rendering, and pictures held inside the page."""

import base64
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from segapp.base.files import write_text

MAX_SIDE = 1024
"""Longer side, in pixels, above which a picture is scaled down before it goes into a page, if nothing else is said."""

Array = npt.NDArray[np.uint8]


def _figure(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.4f}"


def _percent(value: float) -> str:
    return "n/a" if math.isnan(value) else f"{value:.2%}"


_environment = Environment(
    loader=PackageLoader("segapp", "reports"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_environment.filters.update(figure=_figure, percent=_percent)


def render(template: str, path: Path, **context: Any) -> None:
    """Writes one template of this folder, filled in and with every value escaped, whole or not at all.

    Templates have the filters `figure` (0.1234) and `percent` (12.34%), both "n/a" for NaN.
    """
    html = _environment.get_template(template).render(context)
    # A file name that is not UTF-8 holds lone surrogates, which no text file can.
    write_text(path, html.encode("utf-8", "replace").decode("utf-8"))


def picture(pixels: Array, palette: Array | None = None) -> Image.Image:
    """H x W x 3 RGB as it stands, or H x W indices into the 256 x 3 palette."""
    image = Image.fromarray(pixels)
    if palette is not None:
        image.putpalette(palette.tobytes())
    return image


def fit(image: Image.Image, side: int, enlarge: float = 1.0) -> Image.Image:
    """Scales the longer side to `side` pixels, but to no more than `enlarge` times its own.

    Pillow never mixes the indices of a palette picture: it takes the nearest one.
    """
    scale = min(side / max(image.size), enlarge)
    return image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))


def data_uri(pixels: Array, palette: Array | None = None, side: int = MAX_SIDE) -> str:
    """A picture as text for `src`: JPEG of H x W x 3 RGB, or with a palette PNG of H x W indices.

    `side` is the longer one's bound in pixels.
    """
    image = fit(picture(pixels, palette), side)
    kind = "jpeg" if palette is None else "png"
    file = io.BytesIO()
    image.save(file, kind, quality=88, optimize=True)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def css_colour(rgb: Array) -> str:
    """One palette row as #rrggbb."""
    return f"#{rgb.tobytes().hex()}"
