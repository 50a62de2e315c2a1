"""What tells one split's images from another's, whatever the split is called: the #3fa9c1 in "pets train #3fa9c1"."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

SIZES = 16
"""Files whose sizes a fingerprint takes in: a look at a million would take long, and at none, numbers be all alike."""


def fingerprinted(name: str, ids: Sequence[str], images: Sequence[Path]) -> str:
    """The name of a split with its fingerprint of six hexadecimal digits, as in "pets train #3fa9c1".

    It follows from all ids, in any order, and the sizes of some files: so it stays when a folder is moved or renamed,
    or the split plays another role, and changes with any image that comes or goes.
    """
    order = sorted(range(len(ids)), key=ids.__getitem__)
    digest = hashlib.sha256("\0".join([ids[at] for at in order]).encode(errors="surrogateescape"))
    for at in order[:: max(1, len(order) // SIZES)]:
        digest.update(f"\0{images[at].stat().st_size if images[at].exists() else 0}".encode())
    return f"{name} #{digest.hexdigest()[:6]}"


def name_and_fingerprint(split: str) -> tuple[str, str]:
    """What `fingerprinted` has put together; the fingerprint is empty where there is none."""
    match = re.fullmatch("(.*) #([0-9a-f]{6})", split)
    return (match[1], match[2]) if match else (split, "")
