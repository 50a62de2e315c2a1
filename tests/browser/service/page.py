"""What people do with the page."""

import base64
import io

import numpy as np
from PIL import Image
from playwright.sync_api import Page, expect

from segapp.base.images import EXIF_ORIENTATION
from tests.browser.service.conftest import Array


def encoded(pixels: Array, kind: str = "PNG", orientation: int = 1) -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    Image.fromarray(pixels).save(file, kind, exif=exif)
    return file.getvalue()


def choose(page: Page, content: bytes, name: str = "img.png", kind: str = "image/png") -> None:
    page.locator("#file").set_input_files({"name": name, "mimeType": kind, "buffer": content})


def hand_over(page: Page, event: str, content: bytes | None) -> None:
    """Drops or pastes a file, or without content a text."""
    script = """([event, content]) => {
      const data = new DataTransfer(), more = { bubbles: true, cancelable: true };
      const bytes = content && Uint8Array.from(atob(content), each => each.charCodeAt(0));
      if (bytes) data.items.add(new File([bytes], "img.png", { type: "image/png" }));
      else data.setData("text/plain", "hello");
      document.body.dispatchEvent(event === "drop"
        ? new DragEvent("drop", { dataTransfer: data, ...more })
        : new ClipboardEvent("paste", { clipboardData: data, ...more }));
    }"""
    page.evaluate(script, [event, None if content is None else base64.b64encode(content).decode()])


def answered(page: Page, name: str = "img.png") -> None:
    expect(page.locator("#how")).to_contain_text(f"{name}, ")


def drawn(page: Page, canvas: str) -> Array:
    """H x W x 4."""
    url: str = page.evaluate(f"document.querySelector('#{canvas}').toDataURL()")
    return np.array(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGBA"))
