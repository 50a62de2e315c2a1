"""Many clients at once: throughput beside the network alone, latency, memory, and what a signal in the middle leaves.

python -m tests.serving.load seconds=60 clients=32 checkpoint=embedded queue=256     other keys are the service's
"""

import http.client
import io
import itertools
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

from segapp.base.compose import read_config
from segapp.inference.predictor import Predictor
from segapp.serving.config import ServeConfig
from segapp.serving.networks import Segmenter, open_network, ways_of
from segapp.weights.find import chosen, find_checkpoint

MEGAPIXELS = (0.2, 0.5, 1, 3, 6, 12)


def photograph(megapixels: float, seed: int) -> bytes:
    """A JPEG of smooth noise, which is about as long as a photograph's."""
    width = round((megapixels * 1e6 * 4 / 3) ** 0.5)
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (width // 32, width // 24, 3), np.uint8))
    file = io.BytesIO()
    small.resize((width, round(width * 3 / 4)), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


ROUNDS = 6


class Clients:
    """Each asks as soon as it is answered, until `stop`, except between `pause` and `go`.

    Attributes:
        seconds: that each answer with status 200 took.
        statuses: of all answers.
        broken: requests that were not answered, by whether they were begun before the signal.
    """

    def __init__(self, port: int, pictures: list[bytes], number: int) -> None:
        self.seconds: list[float] = []
        self.statuses: Counter[int] = Counter()
        self.broken: Counter[bool] = Counter()
        self.stop = False
        self.signalled = float("inf")
        self._going = threading.Event()
        self._resting: set[int] = set()
        self._next = itertools.count()
        self._threads = [threading.Thread(target=self._ask, args=(port, pictures)) for _ in range(number)]
        for thread in self._threads:
            thread.start()

    def _ask(self, port: int, pictures: list[bytes]) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        while not self.stop:
            if not self._going.is_set():
                connection.close()  # else the service does, after some idle seconds
                self._resting.add(threading.get_ident())
                self._going.wait()
                self._resting.discard(threading.get_ident())
            begin = time.perf_counter()
            try:
                picture = pictures[next(self._next) % len(pictures)]
                connection.request("POST", "/v1/segment", picture, {"Content-Type": "image/jpeg"})
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):
                self.broken[begin < self.signalled] += 1
                if begin >= self.signalled:
                    return
                connection.close()
                continue
            self.statuses[answer.status] += 1
            if answer.status == 200:
                self.seconds.append(time.perf_counter() - begin)
            elif answer.status == 429:
                time.sleep(min(1, int(answer.headers["Retry-After"])))

    def go(self) -> None:
        self._going.set()

    def pause(self) -> None:
        """Nobody asks any more, and all are answered."""
        self._going.clear()
        while len(self._resting) < len(self._threads):
            time.sleep(0.05)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()


def alone(predictor: Predictor, pictures: list[bytes], seconds: float) -> float:
    """Images a second of the predictor on decoded pictures, one after another."""
    images = [np.array(Image.open(io.BytesIO(each)).convert("RGB")) for each in pictures]
    predictor.predict(images[:1])
    begin, done = time.perf_counter(), 0
    while time.perf_counter() - begin < seconds:
        predictor.predict([images[done % len(images)]])
        done += 1
    return done / (time.perf_counter() - begin)


def memory(pid: int) -> float:
    """Megabytes of a process and its children, as Linux tells."""
    status = Path(f"/proc/{pid}/status").read_text()
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) / 1000 + sum(memory(int(each)) for each in children)


def main(words: list[str]) -> int:
    own = {"seconds": "15", "clients": "32"}
    own |= dict(word.split("=") for word in words if word.split("=")[0] in own)
    keys = [word for word in words if word.split("=")[0] not in own]
    seconds, pictures = float(own["seconds"]), [photograph(size, at) for at, size in enumerate(MEGAPIXELS)]
    config = read_config("serve", keys, ServeConfig)
    network = open_network(config, ways_of(config.limits), find_checkpoint(chosen(config.checkpoint)))
    assert isinstance(network, Segmenter)
    service = subprocess.Popen(
        [sys.executable, "-m", "segapp", "serve", "port=0", *keys],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parent.parent.parent,
    )
    assert service.stdout is not None
    said = service.stdout.readline()
    port = int(re.findall(r":(\d+) ", said)[0])
    print(said, end="")
    clients = Clients(port, pictures, int(own["clients"]))
    used, asked, by_itself, together = [], 0.0, [], []
    for _ in range(ROUNDS):  # a machine is not as fast at one time as at another
        by_itself.append(alone(network.usual, pictures, seconds / ROUNDS / 2))
        begin, before = time.perf_counter(), len(clients.seconds)
        clients.go()
        while (now := time.perf_counter()) - begin < seconds / ROUNDS:
            time.sleep(min(1.0, seconds / 30))
            used.append(memory(service.pid))
        together.append((len(clients.seconds) - before) / (now - begin))
        asked += now - begin
        if len(together) < ROUNDS:
            clients.pause()
    taken = len(clients.seconds)
    clients.signalled = time.perf_counter()
    os.kill(service.pid, signal.SIGTERM)
    status = service.wait()
    ended = time.perf_counter() - clients.signalled
    clients.join()
    cuts = statistics.quantiles(sorted(clients.seconds), n=100) if taken > 1 else [float("nan")] * 99
    print(f"pictures of {', '.join(map(str, MEGAPIXELS))} megapixels, {own['clients']} clients, {asked:.0f} s")
    rate, share = sum(together) / ROUNDS, statistics.median(a / b for a, b in zip(together, by_itself, strict=True))
    shown = ", ".join(f"{a:.2f} and {b:.2f}" for a, b in zip(together, by_itself, strict=True))
    print(f"{rate:.2f} images/s, {share:.0%} of the predictor alone (rounds: {shown})")
    print(f"latency p50 {cuts[49]:.2f} s, p95 {cuts[94]:.2f} s, p99 {cuts[98]:.2f} s")
    thirds = [max(used[at * len(used) // 3 : (at + 1) * len(used) // 3]) for at in range(3)]
    print(f"memory, the most in each third of the time: {', '.join(f'{each:.0f}' for each in thirds)} MB")
    print(f"answers by status: {dict(clients.statuses)}")
    print(f"SIGTERM: the service left after {ended:.1f} s with status {status}; {len(clients.seconds) - taken} images")
    print(f"were answered after it, {clients.broken[True]} requests begun before it were not")
    return clients.broken[True]


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1:])))
