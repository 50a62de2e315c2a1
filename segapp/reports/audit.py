"""Writes the page of an audit of a data set: one HTML file that needs nothing beside it."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from segapp.base.classes import voc_palette
from segapp.base.drawing import Array, css_colour, legend
from segapp.base.errors import UserError
from segapp.base.images import read_image
from segapp.data.checks.audit import Audit
from segapp.data.checks.finding import SEVERITIES
from segapp.data.checks.inspection import AuditedSet
from segapp.data.loading.balance import class_weights
from segapp.reports.kit import data_uri, render
from segapp.runs.layout import AUDIT_PAGE

AT_ONCE = 10
"""Files that a finding names before it is unfolded."""
LISTED = 1000
"""Files that it names at most; audit.json names all."""
SAMPLE_SIDE = 480
"""Longer side, in pixels, of a sample's pictures."""
BINS = 40
"""Widths and heights are told apart in so many steps, so that a plot of any set stays small."""


def write_audit(folder: Path, audit: Audit, *, samples: int, provenance: Mapping[str, str]) -> None:
    """Writes audit.html into a folder, whole or not at all.

    Args:
        samples: how many pictures to show; those that cannot be read are left out.
        provenance: what the result came from (command, versions, date...).
    """
    palette, train, val, findings = voc_palette(), audit.train, audit.val, audit.findings
    render(
        "audit.html.j2",
        folder / AUDIT_PAGE,
        title=f"Audit of {train.dataset.name} and {val.dataset.name}",
        verdict=audit.verdict,
        severities=[(each, sum(finding.severity == each for finding in findings)) for each in SEVERITIES],
        sets=(train, val),
        findings=findings,
        at_once=AT_ONCE,
        listed=LISTED,
        rows=_rows(train, val, palette),
        sizes=_sizes((train, val)),
        samples=[sample for chosen in audit.pictures(samples) for sample in _sample(*chosen, palette)],
        provenance=provenance,
    )


def _rows(train: AuditedSet, val: AuditedSet, palette: Array) -> list[dict[str, object]]:
    """Each class's share of the labelled pixels, and its images; a bar's width is the share's square root, in %."""
    weights = class_weights(train.counts, len(train.dataset.classes))
    pixels, images = {}, {}
    for each in (train, val):
        pixels[each.role] = each.class_pixels / max(each.class_pixels.sum(), 1)
        images[each.role] = each.class_images
    return [
        {
            "name": name,
            "colour": css_colour(palette[index]),
            "weight": float(weights[index]),
            "pixels": [(role, float(share[index]), 100 * math.sqrt(share[index])) for role, share in pixels.items()],
            "images": [
                (
                    each.role,
                    int(images[each.role][index]),
                    100 * math.sqrt(images[each.role][index] / max(len(each.dataset), 1)),
                )
                for each in (train, val)
            ],
        }
        for index, name in enumerate(train.dataset.classes)
    ]


def _sizes(sets: Sequence[AuditedSet]) -> dict[str, object]:
    """Dots of the images' sizes, (role, width, height, images) in pixels, in coarse steps; the most usual size."""
    longest = max(1, *(int(each.sizes.max(initial=0)) for each in sets))
    step = max(1, longest // BINS)
    dots = []
    for each in sets:
        known = each.sizes[each.sizes[:, 0] > 0]
        steps, numbers = np.unique(known // step * step, axis=0, return_counts=True)
        dots += [(each.role, w, h, n) for (h, w), n in zip(steps.tolist(), numbers.tolist(), strict=True)]
    dots.sort(key=lambda dot: -dot[3])  # small dots lie on large ones
    sizes = Counter((w, h) for each in sets for h, w in each.sizes.tolist() if w)
    return {
        "dots": dots,
        "step": step,
        "most": max((dot[3] for dot in dots), default=1),
        "end": _round_up(longest),
        "usual": ", ".join(f"{w} x {h}, {number} images" for (w, h), number in sizes.most_common(1)),
    }


def _round_up(length: int) -> int:
    """The next of 100, 200, 400, 600, 800, 1000, 2000, ... pixels: an axis's end with a whole half."""
    unit: int = 10 ** math.floor(math.log10(max(length, 100)))
    return next(end for end in (unit, 2 * unit, 4 * unit, 6 * unit, 8 * unit, 10 * unit) if end >= length)


def _sample(each: AuditedSet, index: int, why: str, palette: Array) -> Iterator[dict[str, object]]:
    """An image and its mask as the page holds them; nothing where either cannot be read."""
    if each.dataset.masks is None:
        return
    try:
        image = read_image(each.dataset.images[index], decoding=each.dataset.decoding)
        label = each.dataset.read_label(each.dataset.masks[index])
    except UserError:  # one of the findings
        return
    pictures = {"image": data_uri(image, side=SAMPLE_SIDE), "mask": data_uri(label, palette, SAMPLE_SIDE)}
    yield {
        "id": each.dataset.ids[index],
        "role": each.role,
        "why": why,
        "pictures": pictures,
        "legend": legend([label], each.dataset.classes, palette),
    }
