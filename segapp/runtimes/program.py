"""Programs of torch.export. To load one may run code that stands in it: only ones that this process wrote."""

from pathlib import Path

import torch

from segapp.runtimes.exported import Array, Compute


def open_own_program(path: Path) -> Compute:
    program = torch.export.load(path).module()

    def compute(images: Array) -> Array:
        return program(torch.from_numpy(images)).numpy()  # type: ignore[no-any-return]

    return compute
