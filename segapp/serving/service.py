"""A request's way through a process: admission, decoding, its batch, and its answer."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from segapp.base.devices import available_cores, is_out_of_gpu_memory, is_out_of_memory
from segapp.base.errors import UserError
from segapp.base.images import Array, TooLargeError, open_picture, read_image
from segapp.inference.arrays import Size
from segapp.serving.batching import Batcher, Budget
from segapp.serving.config import ServeConfig
from segapp.serving.metrics import Metrics
from segapp.serving.networks import Network
from segapp.serving.refusals import Refusal, busy
from segapp.serving.uploads import Receiver

log = logging.getLogger(__name__)

R = TypeVar("R")

BYTES_A_PIXEL = 24
"""Of a picture on its way: decoded, turned, its labels and their probability, and what is written of them."""
MOST_SCANS = 100
"""Of a progressive JPEG, which costs a pass over all pixels each; cameras and programs write about ten."""
AT_ONCE = 16
"""Files of the largest size that may be held at once."""


@dataclass
class Job:
    """One request's picture on its way.

    Attributes:
        content: of its file.
        key: for an image of a size, with which others it goes through the network.
        finish: makes the answer from the image and what the network gave.
        bytes_a_pixel: that it takes of the memory.
        shown: for an image of a size, pixels that the network is shown.
        given_up: nobody waits for it any more.
        seconds: that each stage took.
    """

    content: bytes
    key: Callable[[Size], Hashable]
    finish: Callable[[Array, Any], Any]
    bytes_a_pixel: int = BYTES_A_PIXEL
    shown: Callable[[Size], int] = lambda size: 0
    given_up: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    begun: float = field(default_factory=time.perf_counter)

    @property
    def timing(self) -> str:
        """The header Server-Timing."""
        return ", ".join(f"{stage};dur={1000 * seconds:.1f}" for stage, seconds in self.seconds.items())


class _GivenUpError(Exception):
    pass


class Service:
    """Answers requests with one network.

    Its methods belong to one event loop; `running` is entered before the first of them.
    """

    def __init__(self, network: Network, config: ServeConfig) -> None:
        self.network = network
        self.config = config
        self.metrics = Metrics()
        self.receiver = Receiver(config.limits.bytes, AT_ONCE * config.limits.bytes, config.upload)
        self.stopping: Callable[[], bool] = lambda: False
        self._memory = Budget(config.memory)
        self._in_work = 0
        self._pace = 0.1  # seconds an image, of late
        self._ended = 0.0  # when the last batch did

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        batch_size = self.config.batch_size
        if batch_size == "auto":
            batch_size = 8 if self.network.device.type == "cuda" else 1
        self._batcher: Batcher[Any, tuple[Job, Array], tuple[Any, float, float]] = Batcher(
            self._compute, batch_size, self.config.wait / 1000
        )
        task = asyncio.create_task(self._batcher.run())
        number = min(4, available_cores())
        with ThreadPoolExecutor(number, "decode") as decode, ThreadPoolExecutor(number, "encode") as encode:
            self._threads = {"decode": decode, "encode": encode}  # nobody's answer waits for others' decoding
            yield
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    def _compute(self, key: Any, items: Sequence[tuple[Job, Array]]) -> list[tuple[Any, float, float]]:
        """What the network gives of each image that is still waited for, when it began, and how long it took."""
        begin = time.perf_counter()
        wanted = [at for at, (job, _) in enumerate(items) if not job.given_up]
        found = self.network.compute(key, [items[at][1] for at in wanted]) if wanted else []
        end = time.perf_counter()
        seconds = end - begin
        if wanted:
            spent = max(0.0, end - max(begin, self._ended))  # two batches are under way
            self._pace += 0.2 * (spent / len(wanted) - self._pace)
            self._ended = end
            self.metrics.batch.observe(len(wanted))
        results = dict(zip(wanted, found, strict=True))
        return [(results.get(at), begin, seconds) for at in range(len(items))]

    def check_ready(self) -> None:
        """Raises:
        Refusal: it is stopping.
        """
        if self.stopping():
            raise Refusal(503, "the service is stopping; ask another one, or later", {"Connection": "close"})

    async def run(self, job: Job, gone: Callable[[], Any]) -> Any:
        """What the job's `finish` makes.

        Args:
            gone: a coroutine that ends when the client goes away.

        Raises:
            Refusal: the queue is full, the image is none or too large, or time is up.
        """
        if self._in_work >= self.config.queue:
            raise busy(self._in_work * self._pace)
        self._in_work += 1
        self.metrics.in_work.inc()
        work, away = asyncio.create_task(self._work(job)), asyncio.create_task(gone())
        work.add_done_callback(self._left)
        await asyncio.wait((work, away), timeout=self.config.deadline, return_when=asyncio.FIRST_COMPLETED)
        away.cancel()
        if work.done():
            return work.result()
        job.given_up = True
        if away.done() and not away.cancelled():
            raise Refusal(400, "the connection ended before the answer")
        raise Refusal(504, f"no answer within {self.config.deadline:g} seconds; try a smaller image, or later")

    def _left(self, work: "asyncio.Task[Any]") -> None:
        self._in_work -= 1
        self.metrics.in_work.dec()
        work.cancelled() or work.exception()  # of one that was given up nobody else asks

    async def _work(self, job: Job) -> Any:
        limits = self.network.limits
        try:
            size = await self._timed(job, "decode", lambda: _size_of(job.content, limits.pixels))
            if job.shown(size) > limits.shown:
                raise Refusal(
                    413,
                    f"{size[1]} x {size[0]} in this way of inference are {job.shown(size)} pixels for the network, "
                    f"more than the bound of {limits.shown}; scale the image down, or choose another way",
                )
            taken = size[0] * size[1] * job.bytes_a_pixel
            if taken > self._memory.size:
                raise Refusal(413, f"the answer for {size[1]} x {size[0]} pixels takes too much memory; scale it down")
            async with self._memory.holding(taken):
                read = lambda: read_image(job.content, limits.pixels, self.network.decoding)  # noqa: E731
                image = await self._timed(job, "decode", read)
                if job.given_up:
                    raise _GivenUpError
                found, begin, seconds = await self._batcher(job.key(image.shape[:2]), (job, image))
                job.seconds |= {"wait": begin - job.begun - job.seconds["decode"], "network": seconds}
                answer = await self._timed(job, "encode", lambda: job.finish(image, found))
        except TooLargeError as error:
            raise Refusal(413, str(error)) from None
        except UserError as error:
            raise Refusal(400, str(error)) from None
        except Exception as error:
            if is_out_of_gpu_memory(error) or is_out_of_memory(error):
                raise Refusal(503, "out of memory; try a smaller image, or later") from None
            raise
        self.metrics.pixels.inc(size[0] * size[1])
        for stage, spent in (job.seconds | {"total": time.perf_counter() - job.begun}).items():
            self.metrics.seconds.labels(stage).observe(spent)
        return answer

    async def _timed(self, job: Job, stage: str, function: Callable[[], R]) -> R:
        """What the function gives, in one of the stage's threads; the time there is added to the stage's."""

        def run() -> R:
            if job.given_up:
                raise _GivenUpError
            begin = time.perf_counter()
            result = function()
            job.seconds[stage] = job.seconds.get(stage, 0) + time.perf_counter() - begin
            return result

        return await asyncio.get_running_loop().run_in_executor(self._threads[stage], run)


def _size_of(content: bytes, max_pixels: int) -> Size:
    """(height, width) of an image that may be decoded, before it is turned.

    Raises:
        UserError: it may not.
    """
    with open_picture(content, max_pixels) as image:
        size = image.height, image.width
    if content[:2] == b"\xff\xd8" and content.count(b"\xff\xda") > MOST_SCANS:
        raise UserError(f"image: a JPEG of more than {MOST_SCANS} scans; save it anew")
    return size
