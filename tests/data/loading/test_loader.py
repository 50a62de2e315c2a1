"""Loading processes."""

import pytest

from segapp.data.loading.loader import start_worker


def test_workers_run_no_threads_of_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr("segapp.data.loading.loader.cv2.setNumThreads", asked.append)
    start_worker(0)
    assert asked == [0]
