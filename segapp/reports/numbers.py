"""Numbers as people read them, on pages and in tables; "n/a" for NaN."""

import math


def decimal(value: float) -> str:
    """A share or a score in [0, 1] as 0.1234."""
    return "n/a" if math.isnan(value) else f"{value:.4f}"


def percent(value: float) -> str:
    """A share or a score in [0, 1] as 12.34%."""
    return "n/a" if math.isnan(value) else f"{value:.2%}"


def short(value: float) -> str:
    """Any value in few digits: 12,000 and 0.0125 and 1e-05."""
    if math.isnan(value):
        return "n/a"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.4g}"


def duration(seconds: float) -> str:
    """A time in seconds in its two largest units: 3 d 4 h, 5 h 12 min, 4 min 10 s."""
    if math.isnan(seconds):
        return "n/a"
    rest = round(seconds)
    parts = []
    for name, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        parts.append((rest // size, name))
        rest %= size
    first = next((at for at, (number, _) in enumerate(parts) if number), len(parts) - 1)
    shown = [parts[first], *(each for each in parts[first + 1 : first + 2] if each[0])]
    return " ".join(f"{number}\N{NO-BREAK SPACE}{name}" for number, name in shown)
