"""Draws the images that validate, by a hash of their names: the split survives added images, and needs no file."""

import os
import zlib
from collections.abc import Iterable


def drawn_for_validation(ids: Iterable[str], fraction: float, seed: int) -> list[str]:
    """About `fraction` of the ids, at least one of two or more, each with the same chance, by `seed`."""
    factor = 2 * 0x9E3779B9 * seed + 1  # odd: every seed has its own order of the hashes, and 0 their own
    by_hash = sorted((zlib.crc32(os.fsencode(id)) * factor % 2**32, id) for id in ids)
    bound = fraction * 2**32
    return [id for value, id in by_hash if value < bound] or [id for _, id in by_hash[: len(by_hash) // 2][:1]]
