"""What a request is answered: the files that `segapp predict` writes, and for the page all at once."""

import base64
import io
import json
from typing import Any, Literal, NamedTuple

import numpy as np

from segapp.base.classes import voc_palette
from segapp.base.drawing import overlay
from segapp.base.images import Array, encode_image
from segapp.base.masks import encode_mask
from segapp.inference.prediction import Outputs, Prediction
from segapp.inference.saving import describe, overlay_suffix, save_probabilities
from segapp.runtimes.interface import RuntimeSpec

Format = Literal["mask", "overlay", "coco", "probabilities", "all"]

OUTPUTS: dict[Format, Outputs] = {"probabilities": Outputs(probabilities=True), "all": Outputs(confidence="as_shown")}
"""What of a prediction an answer needs beside the labels."""
ACCEPTED: dict[str, Format] = {
    "image/png": "mask",
    "application/json": "coco",
    "application/x-npz": "probabilities",
    "application/octet-stream": "probabilities",
}
"""The answer of a media type that a request accepts."""


class Answer(NamedTuple):
    content: bytes
    media_type: str


def format_of(accept: str) -> Format:
    """The answer of the likeliest media type of an Accept header that has one; else a mask."""
    wanted = []
    for each in accept.lower().split(","):
        kind, *parameters = (part.strip() for part in each.split(";"))
        quality = next((value for name, _, value in (p.partition("=") for p in parameters) if name == "q"), "1")
        wanted.append((_number(quality), kind))
    kinds = [kind for quality, kind in sorted(wanted, key=lambda each: -each[0]) if quality > 0]
    return next((ACCEPTED[kind] for kind in kinds if kind in ACCEPTED), "mask")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


def answer(form: Format, image: Array, name: str, found: Prediction, spec: RuntimeSpec) -> Answer:
    """Args:
    image: H x W x 3 RGB.
    name: of its file.
    """
    if form == "mask":
        return Answer(encode_mask(found.labels, voc_palette()), "image/png")
    if form == "overlay":
        shown = overlay(image, found.labels, spec.classes, voc_palette(), background=spec.background)
        suffix = overlay_suffix(shown)
        return Answer(encode_image(shown, suffix), "image/png" if suffix == ".png" else "image/jpeg")
    if form == "probabilities":
        assert found.probabilities is not None
        file = io.BytesIO()
        save_probabilities(file, found.probabilities, spec.classes)
        return Answer(file.getvalue(), "application/x-npz")
    return Answer(json.dumps(describe(name, found.labels, spec.classes)).encode(), "application/json")


def everything(name: str, found: Prediction, spec: RuntimeSpec) -> dict[str, Any]:
    """What the page shows of an image."""
    assert found.confidence is not None
    coco = describe(name, found.labels, spec.classes)
    certain = np.rint(255 * found.confidence.clip(0, 1)).astype(np.uint8)
    return {
        "width": coco["width"],
        "height": coco["height"],
        "classes": [{key: each[key] for key in ("index", "name", "share")} for each in coco["classes"]],
        "mask": base64.b64encode(encode_mask(found.labels, voc_palette())).decode(),
        "confidence": base64.b64encode(encode_image(certain, ".png")).decode(),
        "coco": coco,
    }


def as_read(image: Array) -> dict[str, str]:
    """The image as the network was shown it, for a page whose browser cannot read it, or turns it otherwise.

    Args:
        image: H x W x 3 RGB.
    """
    return {"picture": base64.b64encode(encode_image(image, overlay_suffix(image))).decode()}
