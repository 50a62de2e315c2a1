"""Draws the pictures of ideas.md: python docs/draw_ideas.py writes docs/ideas/*.svg."""

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "ideas"
INK, FILLS = "#37474f", ("#b2dfdb", "#ffe0b2", "#d1c4e9", "#f8bbd0")
BOX, HEIGHT, GAP, STEP, ROOM = 132, 30, 24, 22, 14
"""Of a box its width and height, and what is between two; a cell of a grid; room around. In pixels."""


class Drawing:
    """What has been drawn, and the size of it."""

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.width = self.height = 0.0

    def reach(self, x: float, y: float) -> None:
        self.width, self.height = max(self.width, x), max(self.height, y)

    def line(self, points: Sequence[tuple[float, float]], *, arrow: bool = True, colour: str = INK) -> None:
        path = " ".join(f"{x:g},{y:g}" for x, y in points)
        end = ' marker-end="url(#arrow)"' if arrow else ""
        self.parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.4"{end}/>')
        for x, y in points:
            self.reach(x, y)

    def text(self, x: float, y: float, words: str, *, anchor: str = "middle") -> None:
        self.parts.append(f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}">{escape(words)}</text>')
        self.reach(x + (len(words) * 6.6 if anchor == "start" else len(words) * 3.3), y + 4)

    def box(self, x: float, y: float, words: str, fill: str) -> None:
        """`x`: of its middle; `y`: of its top."""
        self.parts.append(
            f'<rect x="{x - BOX / 2:g}" y="{y:g}" width="{BOX}" height="{HEIGHT}" rx="5" '
            f'fill="{fill}" stroke="{INK}"/>'
        )
        self.text(x, y + HEIGHT / 2 + 4, words)
        self.reach(x + BOX / 2, y + HEIGHT)

    def dot(self, x: float, y: float, fill: str, radius: float = 5) -> None:
        self.parts.append(f'<circle cx="{x:g}" cy="{y:g}" r="{radius:g}" fill="{fill}" stroke="{INK}"/>')
        self.reach(x + radius, y + radius)

    def svg(self, title: str) -> str:
        width, height = self.width + 2 * ROOM, self.height + 2 * ROOM
        inside = "\n".join(self.parts)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{-ROOM} {-ROOM} {width:g} {height:g}" '
            f'width="{width:g}" height="{height:g}" font-family="sans-serif" font-size="12" fill="{INK}" role="img">\n'
            f"<title>{escape(title)}</title>\n"
            '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto">'
            f'<path d="M0 0L8 4L0 8z" fill="{INK}"/></marker></defs>\n'
            f'<rect x="{-ROOM}" y="{-ROOM}" width="{width:g}" height="{height:g}" rx="8" fill="#ffffff"/>\n'
            f"{inside}\n</svg>\n"
        )


def flow(drawing: Drawing, entry: str, branches: Sequence[Sequence[str]], join: str = "", *, left: float = 0) -> None:
    """An input, branches of boxes side by side, where one without boxes is a line, and what joins them."""
    middles = [left + BOX / 2 + i * (BOX + GAP) for i in range(len(branches))]
    centre = (middles[0] + middles[-1]) / 2
    fork, top = HEIGHT + GAP / 2, HEIGHT + GAP
    bottom = top + max(map(len, branches)) * (HEIGHT + GAP)
    drawing.box(centre, 0, entry, "#eceff1")
    for i, (x, branch) in enumerate(zip(middles, branches, strict=True)):
        y = float(HEIGHT)
        points = [(centre, y), (centre, fork), (x, fork)]
        for j, words in enumerate(branch):
            place = top + j * (HEIGHT + GAP)
            drawing.line([*(points if j == 0 else [(x, y)]), (x, place)])
            drawing.box(x, place, words, FILLS[i % len(FILLS)])
            y = place + HEIGHT
            points = [(x, y)]
        if join:
            drawing.line([*points, (x, bottom - GAP / 2), (centre, bottom - GAP / 2), (centre, bottom)])
    if join:
        drawing.box(centre, bottom, join, "#eceff1")


def wires(
    drawing: Drawing, top: float, pairs: Iterable[tuple[int, int]], groups: int, channels: int, order: Sequence[int]
) -> float:
    """From each channel above to each below that takes it.

    Args:
        order: the channels that stand above.

    Returns:
        The y below.
    """
    share, step, below = channels // groups, 34.0, top + 58
    for above, under in pairs:
        drawing.line([(10 + above * step, top + 5), (10 + under * step, below - 5)], arrow=False, colour="#90a4ae")
    for place in range(channels):
        drawing.dot(10 + place * step, top, FILLS[order[place] // share])
    return below


def grid(
    drawing: Drawing, left: float, side: int, taps: Iterable[tuple[float, float]], words: str, moved: bool = False
) -> None:
    """Cells, and a dot where a tap of the 3x3 kernel reads; `moved`: with an arrow from where it would."""
    for i in range(side + 1):
        at = i * STEP
        drawing.line([(left, at), (left + side * STEP, at)], arrow=False, colour="#cfd8dc")
        drawing.line([(left + at, 0), (left + at, side * STEP)], arrow=False, colour="#cfd8dc")
    middle = side / 2 * STEP
    for i, (down, across) in enumerate(taps):
        x, y = left + middle + across * STEP, middle + down * STEP
        if moved:
            start = left + middle + (i % 3 - 1) * STEP, middle + (i // 3 - 1) * STEP
            drawing.dot(*start, "#ffffff", 3)
            drawing.line([start, (x, y)])
        drawing.dot(x, y, FILLS[0])
    drawing.text(left + middle, side * STEP + 18, words)


def atrous(rate: int) -> list[tuple[float, float]]:
    return [(down * rate, across * rate) for down in (-1, 0, 1) for across in (-1, 0, 1)]


def drawings() -> dict[str, str]:
    """Every picture by its name."""
    made: dict[str, str] = {}

    drawing = Drawing()
    below = wires(drawing, 0, [(i, j) for i in range(6) for j in range(6) if i // 3 == j // 3], 2, 6, range(6))
    wires(drawing, below, (), 2, 6, range(6))
    drawing.text(0, below + 26, "each output takes its own group's inputs", anchor="start")
    made["group_convolution"] = drawing.svg("Group convolution: 6 channels in 2 groups")

    drawing = Drawing()
    flow(drawing, "7x7: 49", [["conv 7x7"]])
    flow(drawing, "3 x 3x3: 27", [["conv 3x3", "conv 3x3", "conv 3x3"]], left=BOX + GAP)
    flow(drawing, "5x5: 25", [["conv 5x5"]], left=2 * (BOX + GAP))
    flow(drawing, "2 x 3x3: 18", [["conv 3x3", "conv 3x3"]], left=3 * (BOX + GAP))
    made["small_kernels"] = drawing.svg("Small kernels: weights for each pair of channels")

    drawing = Drawing()
    branches = [["1x1, 64"], ["1x1, 96", "3x3, 128"], ["1x1, 16", "5x5, 32"], ["max pool 3x3", "1x1, 32"]]
    flow(drawing, "192 channels", branches, "concat: 256")
    made["multi_size_kernels"] = drawing.svg("Kernels of several sizes: GoogLeNet's inception 3a")

    drawing = Drawing()
    flow(drawing, "256 channels", [["conv 3x3, 256"]])
    flow(drawing, "256 channels", [["1x1, 64", "3x3, 64", "1x1, 256"]], left=BOX + 2 * GAP)
    made["bottleneck"] = drawing.svg("Bottleneck: 1x1, 3x3, 1x1 in the place of a 3x3")

    drawing = Drawing()
    flow(drawing, "x", [["ReLU, sep. conv", "ReLU, sep. conv", "ReLU, sep. conv"], []], "x + F(x)")
    made["residual"] = drawing.svg("Residual: Xception's middle module")

    drawing = Drawing()
    below = wires(drawing, 0, [(i, i) for i in range(4)], 4, 4, range(4))
    last = wires(drawing, below, [(i, j) for i in range(4) for j in range(4)], 4, 4, range(4))
    wires(drawing, last, (), 1, 4, range(4))
    drawing.text(130, below / 2 + 4, "3x3 depthwise", anchor="start")
    drawing.text(130, below * 1.5 + 4, "1x1", anchor="start")
    made["depthwise"] = drawing.svg("Depthwise separable convolution")

    drawing = Drawing()
    below = wires(drawing, 0, [(i, i // 3 + i % 3 * 2) for i in range(6)], 2, 6, range(6))
    order = [i % 2 * 3 + i // 2 for i in range(6)]
    last = wires(drawing, below, [(i, j) for i in range(6) for j in range(6) if i // 3 == j // 3], 2, 6, order)
    wires(drawing, last, (), 1, 6, range(6))
    drawing.text(200, below / 2 + 4, "shuffle", anchor="start")
    drawing.text(200, below * 1.5 + 4, "1x1 in groups", anchor="start")
    made["channel_shuffle"] = drawing.svg("Channel shuffle between group convolutions")

    drawing = Drawing()
    flow(drawing, "x, C channels", [[], ["mean over places", "FC, C / 16, ReLU", "FC, C, sigmoid"]], "x * weights")
    made["channel_weighting"] = drawing.svg("Channel weighting: squeeze and excitation")

    drawing = Drawing()
    for i, rate in enumerate((1, 2, 3)):
        grid(drawing, i * 9 * STEP, 7, atrous(rate), f"rate {rate}: {2 * rate + 1} x {2 * rate + 1}")
    made["dilation"] = drawing.svg("Dilation: nine taps at rates 1, 2 and 3")

    drawing = Drawing()
    moves = [
        (-1.1, -0.4),
        (-1.6, 0.7),
        (-0.5, 1.2),
        (0.3, -1.3),
        (0.5, 0.4),
        (-0.7, 0.8),
        (0.9, 0.6),
        (1.2, -0.8),
        (0.4, 1.4),
    ]
    grid(drawing, 0, 7, atrous(1), "plain")
    taps = [(a + c, b + d) for (a, b), (c, d) in zip(atrous(1), moves, strict=True)]
    grid(drawing, 9 * STEP, 7, taps, "deformable", moved=True)
    made["deformable"] = drawing.svg("Deformable convolution: each tap is moved, by learned offsets of each place")
    return made


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, svg in drawings().items():
        (FOLDER / f"{name}.svg").write_text(svg, encoding="utf-8")
