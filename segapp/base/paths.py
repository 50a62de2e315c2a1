"""Where the config lies, in a clone and in an installed wheel, and where runs and data go: the working directory."""

import os
import re
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent
CONF = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"
"""The wheel carries it inside the package; in a clone it stands beside it."""
IN_CLONE = CONF.parent != PACKAGE


def runs_folder() -> Path:
    """SEGAPP_RUNS, else runs/ in the working directory; it may not exist yet."""
    named = os.environ.get("SEGAPP_RUNS")
    return Path(named).expanduser() if named else Path.cwd() / "runs"


def as_invoked(text: str) -> str:
    """Commands such as `uv run python tools/train.py`, which only a clone has, as `segapp train` in a wheel."""
    if IN_CLONE:
        return text
    return re.sub(r"(?:python )?\btools/(\w+)\.py", r"segapp \1", text.replace("uv run ", ""))
