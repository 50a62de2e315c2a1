"""Where the project keeps its config and its runs, whatever the working directory."""

from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
CONF = PROJECT / "conf"
RUNS = PROJECT / "runs"
