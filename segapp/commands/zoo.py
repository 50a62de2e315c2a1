"""Tells what networks there are and what each costs, and what weights are published.

python tools/zoo.py list             networks: parameters, multiply-adds, top-1; then the names of weights
python tools/zoo.py show xception    all that is known of a network or of weights, by a name that list shows
"""

from difflib import get_close_matches

from segapp.base.errors import UserError
from segapp.weights.networks import COLUMNS, NETWORKS, rows, shown
from segapp.weights.zoo import ZOO

CONFIGS = ()


def main(arguments: list[str]) -> int:
    """Prints what is asked for. Returns the exit status."""
    match arguments:
        case ["list"]:
            print(_listed())
        case ["show", name]:
            print(_found(name))
        case _:
            raise UserError("say what: python tools/zoo.py list, or: show NAME")
    return 0


def _listed() -> str:
    """Numbers stand to the right."""
    table = [COLUMNS, *rows()]
    widths = [max(len(row[i]) for row in table) for i in range(len(COLUMNS))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    ]
    networks = [name for name, entry in ZOO.items() if entry.kind == "network"]
    encoders = [name for name, entry in ZOO.items() if entry.kind == "encoder"]
    return "\n".join(
        [
            *lines,
            "",
            "Weights of whole networks, for checkpoint=:",
            *(f"  {name}" for name in networks),
            "",
            "Weights of encoders, for encoder_weights=:",
            *(f"  {name}" for name in encoders),
        ]
    )


def _found(name: str) -> str:
    known = [*NETWORKS, *ZOO]
    if name not in known:
        near = get_close_matches(name, known, 1)
        raise UserError(
            f"{name}: no network or weights; " + (f"did you mean {near[0]}?" if near else "list shows all")
        )
    return shown(name)
