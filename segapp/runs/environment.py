"""Where and with what a result is made, for its provenance."""

import platform
import shlex
import sys
from datetime import datetime

import torch


def environment() -> dict[str, str]:
    """The command, the time and the machine, and the versions that matter, by name."""
    cpu = platform.processor() or platform.machine()
    return {
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.now().astimezone().isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": torch.cuda.get_device_name() if torch.cuda.is_available() else cpu,
    }
