"""The processes of one job: a single one, or those that torchrun started on one machine or many.

PyTorch, whose import takes seconds, is imported by a job of several alone.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from segapp.base.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

PATIENCE = timedelta(minutes=30)
"""How long a process waits for the others."""


@dataclass(frozen=True)
class Processes:
    """`rank` of `world_size`; `local_rank` on its machine. Rank 0 alone writes files."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def main(self) -> bool:
        return self.rank == 0

    def sum(self, values: "Tensor") -> "Tensor":
        """Sums over the processes, in place."""
        if self.world_size > 1:
            import torch.distributed as dist

            dist.all_reduce(values)
        return values

    def broadcast(self, values: "Tensor") -> None:
        """The main process's values to all, in place."""
        if self.world_size > 1:
            import torch.distributed as dist

            dist.broadcast(values, 0)

    def any(self, flag: bool) -> bool:
        """Whether one process at least says so; all must ask."""
        if self.world_size == 1:
            return flag
        import torch

        return bool(self.sum(torch.tensor(int(flag))))

    def gather(self, value: T) -> list[T]:
        """Every process's value, by rank; plain data."""
        if self.world_size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def from_main(self, value: T) -> T:
        """The main process's value."""
        return self.gather(value)[0]

    def barrier(self) -> None:
        """Until all are here."""
        if self.world_size > 1:
            import torch.distributed as dist

            dist.barrier()

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """The main process goes ahead, and the others find what it has cached."""
        if not self.main:
            self.barrier()
        yield
        if self.main:
            self.barrier()


ALONE = Processes()


def is_job() -> bool:
    """Whether torchrun describes a job of several in the environment; schedulers describe one of one, too."""
    return os.environ.get("WORLD_SIZE", "1") != "1"


def rank() -> int:
    """This process's, as torchrun says; 0 alone."""
    return _number("RANK", 0)


def local_world_size() -> int:
    """Processes of the job on this machine, which share its cores and its memory."""
    return max(1, _number("LOCAL_WORLD_SIZE", 1))


def _number(name: str, otherwise: int) -> int:
    """A variable of the job; `otherwise` where it is no number, of which `processes` tells."""
    value = os.environ.get(name, "")
    return int(value) if value.isascii() and value.isdigit() else otherwise


def _check_job() -> None:
    """Raises:
    UserError: a job of several processes is announced whose variables are missing, or no numbers.
    """
    remedy = "torchrun sets all that a job needs; to run alone, unset WORLD_SIZE"
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT"):
        value = os.environ.get(name)
        if value is None:
            raise UserError(f"WORLD_SIZE={os.environ['WORLD_SIZE']} is set, but not {name}; {remedy}")
        if _number(name, -1) < 0:
            raise UserError(f"{name}={value}: a whole number is needed; {remedy}")
    if not os.environ.get("MASTER_ADDR"):
        raise UserError(f"WORLD_SIZE={os.environ['WORLD_SIZE']} is set, but not MASTER_ADDR; {remedy}")


def is_of_another_process(error: RuntimeError) -> bool:
    """Whether a process of the job, waiting for another one, was told that it is gone."""
    if "WORLD_SIZE" not in os.environ:
        return False
    import torch.distributed as dist

    gloo = (
        "Connection closed by peer",
        "Connection reset by peer",
        "Broken pipe",
        "Timed out waiting",
    )  # gloo's words
    return isinstance(error, dist.DistBackendError) or any(words in str(error) for words in gloo)


@contextmanager
def processes(*, gpu: bool) -> Iterator[Processes]:
    """Joins the job that torchrun describes in the environment; a job of one where it does not.

    Args:
        gpu: each process has a GPU of its own: tensors there go by NCCL, all others by gloo.

    Raises:
        UserError: more processes on this machine than GPUs; variables of a job are missing, or no numbers.
    """
    if not is_job():
        yield ALONE
        return
    _check_job()
    import torch
    import torch.distributed as dist

    local_rank = int(os.environ["LOCAL_RANK"])
    if gpu:
        if local_rank >= torch.cuda.device_count():
            raise UserError(
                f"process {local_rank} of this machine has no GPU: {torch.cuda.device_count()} are here; start that "
                "many with --nproc-per-node, or take device=cpu"
            )
        torch.cuda.set_device(local_rank)
    dist.init_process_group("cpu:gloo,cuda:nccl" if gpu else "gloo", timeout=PATIENCE)
    yield Processes(dist.get_rank(), dist.get_world_size(), local_rank)
    dist.destroy_process_group()  # not after an error, of which the others may not know: it would wait for them
