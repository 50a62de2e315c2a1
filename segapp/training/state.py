"""What a stopped run needs to continue: everything, in one file that is written whole or not at all."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from segapp.errors import UserError
from segapp.files import whole_file


def save_state(
    path: Path, *, iteration: int, best_miou: float | None, model: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """`iteration`: how many are done. The data order follows from it and the seed."""
    state = {
        "iteration": iteration,
        "best_miou": best_miou,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "cpu_random": torch.get_rng_state(),
        "cuda_random": torch.cuda.get_rng_state_all(),
    }
    with whole_file(path) as temporary:
        torch.save(state, temporary)


def load_state(path: Path, *, model: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[int, float | None]:
    """Restores what `save_state` wrote. Returns the iterations done and the best mIoU so far.

    Raises:
        UserError: missing, damaged, or of another network.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["cpu_random"])
        if len(state["cuda_random"]) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda_random"])
        iteration, best_miou = state["iteration"], state["best_miou"]
        if not isinstance(iteration, int) or iteration < 0 or not isinstance(best_miou, float | None):
            raise ValueError("no count of iterations")
        return iteration, best_miou
    except FileNotFoundError:
        raise UserError(f"{path}: nothing to resume from; the run ended before its first checkpoint") from None
    except Exception as error:  # whatever unpickling makes of a damaged file
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        raise UserError(f"{path}: damaged, or of another network ({reason})") from None
