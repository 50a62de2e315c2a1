"""The tools as a person runs them, on tiny data and a CPU."""

from segapp.cli import run_tool

EVAL = ["data=voc2012", "device=cpu", "workers=0", "inference.canvas=65", "eval.batch_size=3", "eval.examples=3"]
PREDICT = ["device=cpu", "inference.canvas=65"]


def train(*overrides: str) -> int:
    return run_tool("train", overrides)


def evaluate(*overrides: str) -> int:
    return run_tool("eval", [*EVAL, *overrides])


def run_predict(*arguments: object) -> int:
    return run_tool("predict", [*map(str, arguments), *PREDICT])
