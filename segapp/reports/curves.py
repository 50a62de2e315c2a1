"""Lays out curves for a page: few enough points, round ticks, and the paths that curves.html.j2 draws."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from segapp.reports.numbers import short
from segapp.runs.history import Floats

POINTS = 500
"""About as many are drawn of a line: more than a plot has pixels for."""
DOTS = 60
"""Up to so many points of a line are marked."""
LOG_FROM = 30
"""An axis is logarithmic if the highest value is above so many medians: a spike then leaves the rest readable."""
LABEL = 11
"""Room in height for a label at a line's end, in the units of the drawing."""


@dataclass(frozen=True)
class Frame:
    """A plot's size and the frame in it, in the units of the drawing."""

    width: int = 440
    height: int = 218
    left: int = 54
    right: int = 418
    top: int = 10
    bottom: int = 196


FRAME = Frame()


@dataclass(frozen=True)
class Line:
    """A NaN in y breaks the line.

    Args:
        name: in the legend; a line without one is not in it.
        style: its classes in the page.
        label: what stands at its end.
        marked: with a dot at each point, if they are few.
    """

    x: Floats
    y: Floats
    name: str = ""
    style: str = "c0"
    label: str = ""
    marked: bool = False


@dataclass(frozen=True)
class Axis:
    """`ticks`: values with their texts, all within [low, high]; of a log axis, low is above 0."""

    low: float
    high: float
    ticks: list[tuple[float, str]]
    log: bool = False

    def scale(self, values: Floats) -> Floats:
        """From 0 at the low end to 1 at the high one."""
        low, high = self.low, self.high
        if self.log:
            values, low, high = np.log10(values), math.log10(low), math.log10(high)
        return (values - low) / (high - low)


@dataclass(frozen=True)
class Drawn:
    """A line in the drawing's units: the path, the points to mark, and where the label stands."""

    line: Line
    path: str
    dots: list[tuple[str, str, str]]
    end: tuple[float, float]


@dataclass(frozen=True)
class Chart:
    title: str
    note: str
    x_name: str
    x: Axis
    y: Axis
    x_ticks: list[tuple[str, str]]
    y_ticks: list[tuple[str, str]]
    lines: list[Drawn]
    about: str
    frame: Frame = FRAME

    @property
    def axes(self) -> str:
        """What turns the drawing's units into values again: frame, ends of x and y, whether they are logarithmic."""
        frame = (self.frame.left, self.frame.right, self.frame.bottom, self.frame.top)
        values = (*frame, self.x.low, self.x.high, self.y.low, self.y.high, self.x.log, self.y.log)
        return " ".join(f"{value:.10g}" for value in values)


def chart(
    title: str,
    lines: Sequence[Line],
    *,
    x_name: str = "iteration",
    note: str = "",
    about: str = "",
    log_x: bool = False,
    from_zero: bool = True,
) -> Chart | None:
    """One plot with all lines, those without a finite value left out; None if no line is left.

    Args:
        note: a number or two, beside the title.
        about: what the plot shows, below it.
        log_x: the x axis is logarithmic, and does not begin at 0; all x are above 0.
        from_zero: the y axis begins at 0 at the latest, unless it is logarithmic.
    """
    lines = [line for line in lines if np.isfinite(line.y[np.isfinite(line.x)]).any()]
    if not lines:
        return None
    x_values = np.concatenate([line.x for line in lines])
    y_values = np.concatenate([line.y for line in lines])
    x = x_axis(float(np.nanmin(x_values)), float(np.nanmax(x_values)), log=log_x)
    y = y_axis(y_values[np.isfinite(y_values)], from_zero=from_zero)
    drawn = [_draw(line, x, y) for line in lines]
    return Chart(
        title,
        note,
        x_name,
        x,
        y,
        [(f"{_across(x, value):.1f}", text) for value, text in x.ticks],
        [(f"{_down(y, value):.1f}", text) for value, text in y.ticks],
        _labels_apart(drawn),
        about,
    )


def x_axis(low: float, high: float, *, log: bool) -> Axis:
    """From 0 to the last value, or logarithmic from the first on."""
    if log:
        return _log_axis(low, high) if low < high else _log_axis(low / 2, high * 2)
    high = high if high > 0 else 1.0
    return Axis(0, high, [(value, short(value)) for value in round_ticks(0, high)])


def y_axis(values: Floats, *, from_zero: bool) -> Axis:
    """Round at both ends; see LOG_FROM."""
    low, high = float(values.min()), float(values.max())
    if low > 0 and high > LOG_FROM * np.median(values):
        return _log_axis(low, high)
    if from_zero:
        low, high = min(low, 0), max(high, 0)
    if low == high:
        low, high = low - (abs(low) / 10 or 1), high + (abs(high) / 10 or 1)
    step = _step(low, high)
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    return Axis(low, high, [(value, short(value)) for value in round_ticks(low, high)])


def _log_axis(low: float, high: float) -> Axis:
    """From and to 1, 2 or 5 times a power of ten; ticks at all of these if they are few, else at powers."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    low, high = max(step for step in steps if step <= low), min(step for step in steps if step >= high)
    ticks = [step for step in steps if low <= step <= high]
    if len(ticks) > 7:
        ticks = [10.0**power for power in powers[:: math.ceil(len(powers) / 7)] if low <= 10.0**power <= high]
    return Axis(low, high, [(value, short(value)) for value in ticks], log=True)


def round_ticks(low: float, high: float) -> list[float]:
    """The multiples of 1, 2 or 5 times a power of ten in [low, high], at most some six."""
    step = _step(low, high)
    slack = 1e-9  # of a step, for what rounding has added
    return [index * step for index in range(math.ceil(low / step - slack), math.floor(high / step + slack) + 1)]


def _step(low: float, high: float) -> float:
    least = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= least * (1 - 1e-9))


def thinned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """At most some POINTS of the line: of neighbours the lowest and the highest, so that no spike is lost."""
    if len(y) <= POINTS:
        return x, y
    chosen = {0, len(y) - 1}
    for stretch in np.array_split(np.arange(len(y)), POINTS // 2):
        finite = stretch[np.isfinite(y[stretch])]
        chosen |= {finite[y[finite].argmin()], finite[y[finite].argmax()]} if len(finite) else {stretch[0]}
    indices = np.array(sorted(chosen))
    return x[indices], y[indices]


def smoothed(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """The running mean over a twentieth of the line, or three points; at most POINTS; NaN where nothing is finite."""
    if len(y) < 3:
        return x, y
    starts = np.unique(np.linspace(0, len(y), POINTS, endpoint=False).astype(int))
    finite = np.isfinite(y)
    window = np.ones(max(3, 2 * (len(starts) // 40) + 1))
    sums = np.convolve(np.add.reduceat(np.where(finite, y, 0), starts), window, "same")
    counts = np.convolve(np.add.reduceat(finite.astype(float), starts), window, "same")
    middles = np.add.reduceat(x, starts) / np.diff(starts, append=len(y))
    return middles, np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _across(axis: Axis, values: Floats | float) -> Floats:
    return FRAME.left + (FRAME.right - FRAME.left) * axis.scale(np.asarray(values, float))


def _down(axis: Axis, values: Floats | float) -> Floats:
    return FRAME.bottom - (FRAME.bottom - FRAME.top) * axis.scale(np.asarray(values, float))


def _draw(line: Line, x: Axis, y: Axis) -> Drawn:
    across, down = _across(x, line.x), _down(y, line.y)
    there = np.isfinite(across) & np.isfinite(down)
    path, before = [], False
    for index in range(len(there)):
        if there[index]:
            alone = not before and not there[index + 1 : index + 2].any()
            path.append(f"{'L' if before else 'M'}{across[index]:.2f} {down[index]:.2f}{'h0' if alone else ''}")
        before = bool(there[index])
    dots = []
    if line.marked and there.sum() <= DOTS:
        dots = [
            (f"{across[index]:.1f}", f"{down[index]:.1f}", f"{short(line.x[index])}: {short(line.y[index])}")
            for index in np.flatnonzero(there)
        ]
    last = np.flatnonzero(there)[-1]
    return Drawn(line, "".join(path), dots, (float(across[last]) + 3, float(down[last]) + 4))


def _labels_apart(drawn: list[Drawn]) -> list[Drawn]:
    """Moves labels down that stand on one another, and their stack up again where the frame ends."""
    ends = {id(each): each.end for each in drawn if each.line.label}
    order = sorted(ends, key=lambda key: ends[key][1])
    for at, key in enumerate(order):
        x, y = ends[key]
        above = [ends[other][1] + LABEL for other in order[:at] if abs(ends[other][0] - x) < LABEL]
        ends[key] = x, max([y, *above])
    for at, key in reversed(list(enumerate(order))):
        x, y = ends[key]
        below = [ends[other][1] - LABEL for other in order[at + 1 :] if abs(ends[other][0] - x) < LABEL]
        ends[key] = x, min([y, FRAME.bottom, *below])
    return [replace(each, end=ends.get(id(each), each.end)) for each in drawn]
