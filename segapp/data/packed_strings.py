"""Keeps long lists of names in a few arrays, so that workers neither copy a million objects nor touch their counts."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import numpy as np


class PackedStrings(Sequence[str]):
    """Immutable; names of files keep bytes that are no text (os.fsencode)."""

    def __init__(self, strings: Iterable[str]) -> None:
        encoded = [os.fsencode(each) for each in strings]
        self._ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        self._bytes = np.frombuffer(b"".join(encoded), np.uint8)

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        return os.fsdecode(self._bytes[self._ends[at] : self._ends[at + 1]].tobytes())


class PackedPaths(Sequence[Path]):
    """folder / NAMEsuffix for each name."""

    def __init__(self, folder: Path, names: PackedStrings, suffix: str = "") -> None:
        self.folder = folder
        self.names = names
        self.suffix = suffix

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> list[Path]: ...
    def __getitem__(self, index: int | slice) -> Path | list[Path]:
        if isinstance(index, slice):
            return [self[at] for at in range(*index.indices(len(self)))]
        return self.folder / f"{self.names[index]}{self.suffix}"
