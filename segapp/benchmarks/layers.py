"""Where the time of a step goes: every operator that PyTorch runs in it, forward and backward, by kind of layer."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from segapp.models.flops import Clock, finish

Part = Literal["network", "loss", "optimizer"]
Direction = Literal["forward", "backward", "update"]
Mark = Callable[[Part, Direction], None]
"""Told what a step does from here on."""
Step = Callable[[Mark], object]
"""One batch through a network, or one step of training."""

HEAD_START = 400_000
"""Cycles, some 0.2 ms, that the GPU waits before each operator, so that within one it never waits for Python."""

KINDS = {"batch_norm": "BN", "relu": "ReLU", "threshold": "ReLU", "_to_copy": "casts"}
"""Parts of the names of ATen's operators."""
ORDER = (
    "depthwise conv",
    "pointwise conv",
    "dense conv",
    "BN",
    "ReLU",
    "resize",
    "sums",
    "casts",
    "rest",
    "loss",
    "optimizer",
)


def unmarked(part: Part, direction: Direction) -> None:
    """The `Mark` of a step that is not looked into."""


@dataclass(frozen=True)
class Operator:
    """One call. `seconds` gives its time once the device has finished."""

    kind: str
    direction: Direction
    flops: int
    bytes: int
    seconds: Callable[[], float]


@dataclass(frozen=True)
class Row:
    """All calls of a kind in one step."""

    kind: str
    direction: Direction | Literal[""]
    calls: int
    flops: int
    bytes: int
    seconds: float


class Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records each operator that runs, views aside, with what it asks for: not under inference mode, which hides some.

    FLOPs are two for each multiply-add of a convolution; bytes are the least there can be: all that an operator takes
    read once, and all that it gives written once.
    """

    def __init__(self, device: torch.device, clock: Clock = time.perf_counter) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device
        self.clock = clock
        self.seen: list[Operator] = []
        self.mark("network", "forward")

    def mark(self, part: Part, direction: Direction) -> None:
        self.part: Part = part
        self.direction: Direction = direction

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if operator.is_view:
            return operator(*args, **kwargs)
        name, direction = operator.overloadpacket.__name__, self.direction
        kind = kind_of(self.part, name, args)
        out, seconds = timed(lambda: operator(*args, **kwargs), self.device, self.clock)
        flops, moved = flops_of(name, args, out), least_bytes(operator, args, kwargs, out)
        self.seen.append(Operator(kind, direction, flops, moved, seconds))
        return out


def kind_of(part: Part, name: str, args: Sequence[Any]) -> str:
    """The kind of layer that ATen's operator `name` belongs to."""
    if "upsample" in name:
        return "resize"
    if part != "network":
        return part
    if name in ("convolution", "convolution_backward"):
        weight = args[1 if name == "convolution" else 2]
        if weight.shape[1] == 1:
            return "depthwise conv"
        return "pointwise conv" if weight.shape[2:] == (1, 1) else "dense conv"
    if name == "add":
        return "sums"
    return next((kind for part_of_name, kind in KINDS.items() if part_of_name in name), "rest")


def flops_of(name: str, args: Sequence[Any], out: Any) -> int:
    """The gradients of a convolution's input and weights take as many as its forward pass, each.

    torch.utils.flop_counter has many more for the weights of a depthwise one, as if it were dense.
    """
    if name == "convolution":
        return 2 * out.numel() * args[1][0].numel()  # type: ignore[no-any-return]
    if name == "convolution_backward":
        gradient, weight, wanted = args[0], args[2], args[10]
        return 2 * gradient.numel() * weight[0].numel() * sum(wanted[:2])  # type: ignore[no-any-return]
    return 0


def least_bytes(operator: Any, args: Any, kwargs: Any, out: Any) -> int:
    written = tree_leaves(out)
    if not operator._schema.returns:  # in place, on lists of tensors
        arguments = zip(args, operator._schema.arguments, strict=False)
        written = tree_leaves([arg for arg, spec in arguments if spec.alias_info and spec.alias_info.is_write])
    return sum(
        # What was expanded takes no more than it did before.
        min(each.numel() * each.itemsize, each.untyped_storage().nbytes())
        for each in [*tree_leaves((args, kwargs)), *written]
        if isinstance(each, Tensor)
    )


def timed(run: Callable[[], Any], device: torch.device, clock: Clock) -> tuple[Any, Callable[[], float]]:
    """What it returns, and a function that gives its seconds once the device has finished."""
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda._sleep(HEAD_START)  # type: ignore[no-untyped-call]
        start.record()
        out = run()
        end.record()
        return out, lambda: start.elapsed_time(end) / 1e3
    finish(device)
    begin = clock()
    out = run()
    finish(device)
    seconds = clock() - begin
    return out, lambda: seconds


def look_into(
    step: Step, device: torch.device, rounds: int, clock: Clock = time.perf_counter
) -> tuple[list[Row], list[float]]:
    """Medians over the rounds, by kind of layer, and the seconds of whole steps not looked into, which take turns."""
    looks, whole = [], []
    for _ in range(rounds + 1):
        start = clock()
        step(unmarked)
        finish(device)
        whole.append(clock() - start)
        with Operators(device, clock) as operators:
            step(operators.mark)
        finish(device)
        looks.append(by_kind(operators.seen))
    _, *looks = looks  # the first warms up
    rows = [
        replace(row, seconds=statistics.median(look[key].seconds for look in looks)) for key, row in looks[0].items()
    ]
    return sorted(rows, key=lambda row: (ORDER.index(row.kind), row.direction != "forward")), whole[1:]


def by_kind(operators: Sequence[Operator]) -> dict[tuple[str, Direction], Row]:
    groups: dict[tuple[str, Direction], list[Operator]] = defaultdict(list)
    for each in operators:
        groups[each.kind, each.direction].append(each)
    return {
        (kind, direction): Row(
            kind,
            direction,
            calls=len(group),
            flops=sum(each.flops for each in group),
            bytes=sum(each.bytes for each in group),
            seconds=sum(each.seconds() for each in group),
        )
        for (kind, direction), group in groups.items()
    }


def print_layers(rows: Sequence[Row], whole: Sequence[float], *, matmul: float, copy: float) -> None:
    """The table, and its sum beside the whole.

    Args:
        rows: of `look_into`.
        whole: seconds of whole steps.
        matmul: the device's measured limit, in operations a second.
        copy: likewise, in bytes a second.
    """
    everything = Row(
        "all",
        "",
        calls=sum(row.calls for row in rows),
        flops=sum(row.flops for row in rows),
        bytes=sum(row.bytes for row in rows),
        seconds=sum(row.seconds for row in rows),
    )
    header = ["layers", "pass", "calls", "GFLOP", "GB", "ms", "share", "of matmul", "of copy"]
    lines = [
        [
            row.kind,
            row.direction,
            str(row.calls),
            f"{row.flops / 1e9:.2f}" if row.flops else "-",
            f"{row.bytes / 1e9:.3f}",
            f"{row.seconds * 1e3:.2f}",
            f"{row.seconds / everything.seconds:.1%}",
            f"{row.flops / row.seconds / matmul:.1%}" if row.flops else "-",
            f"{row.bytes / row.seconds / copy:.1%}",
        ]
        for row in (*rows, everything)
    ]
    print(table(header, lines, left=2))
    limit = sum(max(row.flops / matmul, row.bytes / copy) for row in rows)
    print(
        f"the whole step, not looked into: {statistics.median(whole) * 1e3:.2f} ms ({min(whole) * 1e3:.2f} to "
        f"{max(whole) * 1e3:.2f}); with every kind at the limits: {limit * 1e3:.2f} ms"
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """In Markdown, in columns; all but the `left` first are numbers."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        sides = ["<"] * left + [">"] * (len(cells) - left)
        return " | ".join(f"{cell:{side}{width}}" for cell, side, width in zip(cells, sides, widths, strict=True))

    rule = ["-" * width if at < left else "-" * (width - 1) + ":" for at, width in enumerate(widths)]
    return "\n".join(f"| {line(cells)} |" for cells in (header, rule, *rows))
