"""The page on which people show pictures to the service."""

from importlib.resources import files

from segapp.reports.kit import filled

_FILES = files(__name__)
SAMPLES = {each.name for each in _FILES.iterdir() if each.name.endswith(".jpg")}
"""Names of the pictures that anybody may show; README.md says whose they are."""


def html() -> str:
    """The whole page; it asks the service for the samples, and elsewhere for nothing."""
    return filled(_text("index.html.j2"), style=_text("page.css"), script=_text("page.js"))


def _text(name: str) -> str:
    return (_FILES / name).read_text(encoding="utf-8")


def sample(name: str) -> bytes:
    """The JPEG of one of SAMPLES."""
    return (_FILES / name).read_bytes()
