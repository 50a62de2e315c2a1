"""Where the time of a step goes: every operator that PyTorch runs in it, forward and backward, by kind of layer."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from segapp.benchmarks.timing import milliseconds, seconds_of, table
from segapp.models.flops import Clock, finish

Component = Literal["network", "loss", "optimizer"]
Direction = Literal["forward", "backward", "update"]
EnterPhase = Callable[[Component, Direction], None]
"""Called by a step with what it does from here on."""
Step = Callable[[EnterPhase], object]
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


def untracked(component: Component, direction: Direction) -> None:
    """The `EnterPhase` of a step whose operators are not recorded."""


@dataclass(frozen=True)
class OperatorCall:
    """One call of an operator. `seconds` gives its time once the device has finished."""

    kind: str
    direction: Direction
    flops: int
    bytes: int
    seconds: Callable[[], float]


@dataclass(frozen=True)
class LayerTime:
    """All calls of a kind of layer in one step."""

    kind: str
    direction: Direction | Literal[""]
    calls: int
    flops: int
    bytes: int
    seconds: float


class OperatorRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records each operator that runs, views aside, with what it asks for: not under inference mode, which hides some.

    FLOPs are two for each multiply-add of a convolution; bytes are the least there can be: all that an operator takes
    read once, and all that it gives written once.
    """

    def __init__(self, device: torch.device, clock: Clock = time.perf_counter) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device
        self.clock = clock
        self.calls: list[OperatorCall] = []
        self.enter_phase("network", "forward")

    def enter_phase(self, component: Component, direction: Direction) -> None:
        """What is recorded from here on belongs there."""
        self.component: Component = component
        self.direction: Direction = direction

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if operator.is_view:
            return operator(*args, **kwargs)
        name, direction = operator.overloadpacket.__name__, self.direction
        kind = kind_of(self.component, name, args)
        out, seconds = timed(lambda: operator(*args, **kwargs), self.device, self.clock)
        flops, moved = flops_of(name, args, out), least_bytes(operator, args, kwargs, out)
        self.calls.append(OperatorCall(kind, direction, flops, moved, seconds))
        return out


def kind_of(component: Component, name: str, args: Sequence[Any]) -> str:
    """The kind of layer that ATen's operator `name` belongs to."""
    if "upsample" in name:
        return "resize"
    if component != "network":
        return component
    if name in ("convolution", "convolution_backward"):
        weight = args[1 if name == "convolution" else 2]
        if weight.shape[1] == 1:
            return "depthwise conv"
        return "pointwise conv" if weight.shape[2:] == (1, 1) else "dense conv"
    if name == "add":
        return "sums"
    return next((kind for part, kind in KINDS.items() if part in name), "rest")


def flops_of(name: str, args: Sequence[Any], out: Any) -> int:
    """The gradients of a convolution's input and weights take as many as its forward pass, each.

    torch.utils.flop_counter has many more for the weights of a depthwise one, as if it were dense.
    """
    if name == "convolution":
        return 2 * out.numel() * args[1][0].numel()  # type: ignore[no-any-return]
    if name == "convolution_backward":
        gradient, weight, output_mask = args[0], args[2], args[10]
        return 2 * gradient.numel() * weight[0].numel() * sum(output_mask[:2])  # type: ignore[no-any-return]
    return 0


def least_bytes(operator: Any, args: Any, kwargs: Any, out: Any) -> int:
    """All tensors that an operator takes, and all that it gives or changes."""
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


def profile_layers(
    step: Step, device: torch.device, rounds: int, clock: Clock = time.perf_counter
) -> tuple[list[LayerTime], list[float]]:
    """Medians over the rounds, by kind of layer, and the seconds of whole steps, which take turns."""
    profiles, step_seconds = [], []
    for _ in range(rounds + 1):
        step_seconds.append(seconds_of(lambda: step(untracked), device, clock))
        with OperatorRecorder(device, clock) as recorder:
            step(recorder.enter_phase)
        finish(device)
        profiles.append(by_kind(recorder.calls))
    _, *profiles = profiles  # the first warms up
    rows = [
        replace(row, seconds=statistics.median(profile[key].seconds for profile in profiles))
        for key, row in profiles[0].items()
    ]
    return sorted(rows, key=lambda row: (ORDER.index(row.kind), row.direction != "forward")), step_seconds[1:]


def by_kind(calls: Iterable[OperatorCall]) -> dict[tuple[str, Direction], LayerTime]:
    """The sums of all calls of a kind in one direction."""
    groups: dict[tuple[str, Direction], list[OperatorCall]] = defaultdict(list)
    for each in calls:
        groups[each.kind, each.direction].append(each)
    return {
        (kind, direction): LayerTime(
            kind,
            direction,
            calls=len(group),
            flops=sum(each.flops for each in group),
            bytes=sum(each.bytes for each in group),
            seconds=sum(each.seconds() for each in group),
        )
        for (kind, direction), group in groups.items()
    }


def print_layers(rows: Sequence[LayerTime], step_seconds: Sequence[float], *, matmul: float, copy: float) -> None:
    """The table, and its sum beside the whole.

    Args:
        rows: of `profile_layers`.
        step_seconds: of whole steps, without the recorder.
        matmul: the device's measured limit, in operations a second.
        copy: likewise, in bytes a second.
    """
    everything = LayerTime(
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
    median, least, most = milliseconds(step_seconds)
    print(
        f"the whole step, not looked into: {median} ms ({least} to {most}); "
        f"with every kind at the limits: {limit * 1e3:.2f} ms"
    )
