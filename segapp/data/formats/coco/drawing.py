"""Draws the mask of one image from its regions: outlines and run-length codes, as the package's rules say."""

from array import array
from collections.abc import Iterable
from typing import Any

import numpy as np
from pycocotools import mask as rle_tools

from segapp.base.classes import IGNORE_INDEX
from segapp.base.errors import UserError
from segapp.data.dataset import Array
from segapp.data.fates import Fate
from segapp.data.formats.coco.annotations import Region

MOST_STEPS = 10_000_000
"""Pixels along a polygon's outline, for each of which pycocotools takes some 50 bytes."""


def draw(height: int, width: int, regions: Iterable[Region]) -> tuple[Array, list[Fate]]:
    """The mask of one image, height x width, by the package's rules, and what became of each region.

    Raises:
        UserError: a region is damaged; its id is named.
    """
    layers = []
    for place, region in enumerate(regions):
        code = _run_lengths(region, height, width)
        layers.append((not region.is_crowd, -int(rle_tools.area(code)), place, region, code))
    label = np.zeros((width, height), np.uint8)  # by columns, as COCO counts pixels
    fates: list[Fate] = ["drawn"] * len(layers)
    for _, negative_area, place, region, code in sorted(layers, key=lambda layer: layer[:2]):
        fates[place] = _fate(region, -negative_area, height, width)
        np.copyto(
            label, IGNORE_INDEX if region.is_crowd else region.class_index, where=rle_tools.decode(code).T.view(bool)
        )
    if len({region.class_index for _, _, _, region, _ in layers}) > 1:
        for _, _, place, region, code in layers:
            if (
                fates[place] == "drawn"
                and not (label[rle_tools.decode(code).T.view(bool)] == region.class_index).any()
            ):
                fates[place] = "hidden"
    return np.ascontiguousarray(label.T), fates


def _fate(region: Region, area: int, height: int, width: int) -> Fate:
    """Of a region of so many pixels, as far as others do not hide it."""
    polygons = region.segmentation if isinstance(region.segmentation, list) else []
    corners = np.concatenate([np.asarray(each).reshape(-1, 2) for each in polygons] or [np.zeros((0, 2))])
    if len(corners) and max(height, width) > 2 and corners.min() >= 0 and corners.max() <= 1:
        return "normalised"
    if area:
        return "crowd" if region.is_crowd else "drawn"
    if not region.segmentation:
        return "no_outline"
    if not len(corners):
        return "empty"
    if max(map(len, polygons)) < 6:
        return "few_points"
    low, high = corners.min(0), corners.max(0)
    return "outside" if (high <= 0).any() or (low >= (width, height)).any() else "empty"


def _run_lengths(region: Region, height: int, width: int) -> dict[str, Any]:
    """Any segmentation in pycocotools' own form; checked, for pycocotools reads past the end of a wrong one."""
    what = f"annotation {region.id}"
    if isinstance(region.segmentation, dict):
        size, counts = region.segmentation.get("size"), region.segmentation.get("counts")
        if size != [height, width]:
            raise UserError(f"{what}: its run-length code is of size {size}, its image of [{height}, {width}]")
        if isinstance(counts, str):
            runs = decode_runs(counts)
        elif isinstance(counts, array):
            runs = counts.tolist()
        else:
            runs = []
        if sum(runs) != height * width or min(runs, default=-1) < 0:
            raise UserError(
                f"{what}: its run-length code is damaged: its runs are not those of {width} x {height} pixels"
            )
        return _encode_runs(runs, height, width)
    polygons = []
    for polygon in region.segmentation if isinstance(region.segmentation, list) else [None]:
        if not isinstance(polygon, array) or len(polygon) % 2:
            raise UserError(
                f"{what}: its segmentation is neither a list of polygons [x, y, x, y, ...] nor run lengths"
            )
        corners = np.array(polygon).reshape(-1, 2)
        if not (np.abs(corners) <= 2 * max(height, width)).all():  # not-a-number too
            raise UserError(f"{what}: a polygon lies far outside its image of {width} x {height} pixels")
        if np.abs(np.diff(corners, axis=0)).sum() > MOST_STEPS:
            raise UserError(f"{what}: a polygon's outline is longer than {MOST_STEPS} pixels")
        if len(corners) >= 3:  # fewer enclose nothing, and pycocotools takes two for a box
            polygons.append(polygon)
    if not polygons:
        return _encode_runs([height * width], height, width)
    merged: dict[str, Any] = rle_tools.merge(rle_tools.frPyObjects(polygons, height, width))
    return merged


def _encode_runs(runs: list[int], height: int, width: int) -> dict[str, Any]:
    code: dict[str, Any] = rle_tools.frPyObjects({"size": [height, width], "counts": runs}, height, width)
    return code


def decode_runs(code: str) -> list[int]:
    """The runs of COCO's compressed form (rleFrString in cocoapi's maskApi.c); empty if it is damaged.

    Five bits a character from "0", lowest first, bit 5 set where more follow and the last one signed; from the
    fourth run on, the difference to the run before the last.
    """
    runs: list[int] = []
    value = shift = 0
    for character in code.encode():
        bits = character - 48
        if not 0 <= bits < 64 or shift > 30:
            return []
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    return [] if shift else runs
