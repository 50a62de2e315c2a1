"""What /metrics tells Prometheus."""

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""The variable that names the folder in which several processes add up; prometheus-client's own."""


class Metrics:
    """Of one process, and through the folder of FOLDER of all."""

    def __init__(self) -> None:
        own = self._registry = CollectorRegistry()
        seconds = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
        self.requests = Counter("segapp_requests", "Requests that were answered.", ["path", "status"], registry=own)
        self.seconds = Histogram(
            "segapp_seconds", "Time that a stage of a request took.", ["stage"], registry=own, buckets=seconds
        )
        self.batch = Histogram(
            "segapp_batch_size",
            "Images that went through the network together.",
            registry=own,
            buckets=(1, 2, 4, 8, 16, 32, 64),
        )
        self.pixels = Counter("segapp_pixels", "Pixels of the images that were answered.", registry=own)
        self.in_work = Gauge(
            "segapp_requests_in_work", "Requests in work or waiting.", registry=own, multiprocess_mode="livesum"
        )

    def text(self) -> bytes:
        """In Prometheus' format."""
        if not os.environ.get(FOLDER):
            return generate_latest(self._registry)
        of_all = CollectorRegistry()
        MultiProcessCollector(of_all)  # type: ignore[no-untyped-call]
        return generate_latest(of_all)
