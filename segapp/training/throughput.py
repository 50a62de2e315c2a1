"""How fast training goes, and how long it waits for data."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Throughput:
    """Images since the last reset, and the time that training waited for them."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.images = 0
        self._waited = 0.0
        self._since = time.perf_counter()

    def count(self, images: int) -> None:
        self.images += images

    @contextmanager
    def waiting(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def metrics(self) -> dict[str, float]:
        """Images a second, and the share of the time spent waiting for them, in [0, 1]."""
        elapsed = time.perf_counter() - self._since
        return {"images_per_second": self.images / elapsed, "data_wait": self._waited / elapsed}
