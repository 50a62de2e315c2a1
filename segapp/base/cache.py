"""The one cache folder."""

import os
from pathlib import Path

from platformdirs import user_cache_path


def cache_folder() -> Path:
    """SEGAPP_CACHE, else the platform's; it may not exist yet."""
    named = os.environ.get("SEGAPP_CACHE")
    return Path(named).expanduser() if named else user_cache_path("segapp", appauthor=False)
