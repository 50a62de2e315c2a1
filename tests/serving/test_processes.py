"""The service as it is started: several processes, and a signal in the middle of requests."""

import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from segapp.base.paths import CONF
from tests.serving.hostile import picture, post

pytestmark = [pytest.mark.slow, pytest.mark.network]


def test_processes_answer_what_they_have_taken(checkpoint: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "segapp",
        "serve",
        f"checkpoint={checkpoint}",
        "device=cpu",
        "port=0",
        "workers=2",
    ]
    pipe = subprocess.PIPE
    service = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=CONF.parent)
    assert service.stdout is not None
    address = service.stdout.readline().split()[3]
    image, query = picture("JPEG", 300, 200), "inference=sliding&flip=true"

    def in_work() -> str:
        with urllib.request.urlopen(f"{address}/metrics", timeout=60) as answer:
            lines = answer.read().decode().splitlines()
        return next((line.split()[1] for line in lines if line.startswith("segapp_requests_in_work ")), "")

    with ThreadPoolExecutor(8) as threads:
        asked = [threads.submit(post, f"{address}/v1/segment?{query}", "image/jpeg", image) for _ in range(8)]
        until = time.monotonic() + 30
        while in_work() != "8.0" and time.monotonic() < until:
            time.sleep(0.02)
        service.send_signal(signal.SIGTERM)
        answers = [each.result() for each in asked]
    _, told = service.communicate(timeout=60)
    assert [status for status, _ in answers] == 8 * [200]
    assert len({mask for _, mask in answers}) == 1, "of one image, by two processes"
    assert service.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in told
    assert post(f"{address}/v1/segment", "image/jpeg", image)[0] == 0, "nobody is there"
