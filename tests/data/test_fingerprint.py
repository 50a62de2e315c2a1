"""Fingerprints follow from the images alone."""

import random
from pathlib import Path

from segapp.data.fingerprint import fingerprinted


def files(root: Path, *sizes: int) -> list[Path]:
    root.mkdir(parents=True)
    paths = [root / f"{index}.jpg" for index in range(len(sizes))]
    for path, size in zip(paths, sizes, strict=True):
        path.write_bytes(bytes(size))
    return paths


def test_a_fingerprint_is_of_the_images_alone(tmp_path: Path) -> None:
    ids, paths = ["0", "1", "2"], files(tmp_path / "a", 5, 6, 7)
    fingerprint = fingerprinted("x", ids, paths).removeprefix("x ")
    assert len(fingerprint) == 7
    assert fingerprinted("another name", ids, paths) == f"another name {fingerprint}"
    assert fingerprinted("x", ids[::-1], paths[::-1]) == f"x {fingerprint}"
    assert fingerprinted("x", ids, files(tmp_path / "moved", 5, 6, 7)) == f"x {fingerprint}"
    others = [
        fingerprinted("x", ids[:2], paths[:2]),
        fingerprinted("x", ["0", "1", "3"], paths),
        fingerprinted("x", ["0", "12"], paths[:2]),
        fingerprinted("x", ids, files(tmp_path / "numbered alike", 5, 6, 8)),
    ]
    assert len({f"x {fingerprint}", *others}) == 5


def test_a_fingerprint_of_many_images_in_any_order(tmp_path: Path) -> None:
    """More than those whose size is looked at."""
    sizes = [random.Random(0).randrange(1000) for _ in range(100)]
    pairs = [(path.stem, path) for path in files(tmp_path / "a", *sizes)]
    name = fingerprinted("x", *zip(*pairs, strict=True))
    random.Random(1).shuffle(pairs)
    assert fingerprinted("x", *zip(*pairs, strict=True)) == name
    assert fingerprinted("x", *zip(*pairs[:99], strict=True)) != name
