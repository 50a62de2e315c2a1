"""Requests that go through the network together, and the memory that they share."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from segapp.inference.predictor import BATCHES_AT_ONCE

T = TypeVar("T")
R = TypeVar("R")
K = TypeVar("K", bound=Hashable)


class Budget:
    """Bytes that requests may hold together; what does not fit waits, in the order of asking."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def holding(self, amount: int) -> AsyncIterator[None]:
        """Args:
        amount: no more than the size.
        """
        if self._waiting or amount > self._free:
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((amount, turn))
            await turn
        else:
            self._free -= amount
        try:
            yield
        finally:
            self._free += amount
            while self._waiting and self._waiting[0][0] <= self._free:
                next_amount, turn = self._waiting.popleft()
                self._free -= next_amount
                turn.set_result(None)


@dataclass(eq=False)
class _Entry(Generic[K, T, R]):
    key: K
    item: T
    result: asyncio.Future[R]


class Batcher(Generic[K, T, R]):
    """Computes, in threads, those items together that came with one key; BATCHES_AT_ONCE of them at a time.

    Args:
        compute: gives the results of items of one key.
        batch_size: of them at most.
        wait: seconds in which others may join the first one, if the batch is not full by then.
    """

    def __init__(self, compute: Callable[[K, Sequence[T]], Sequence[R]], batch_size: int, wait: float) -> None:
        self._compute = compute
        self._batch_size = batch_size
        self._wait = wait
        self._entries: deque[_Entry[K, T, R]] = deque()
        self._any = asyncio.Event()
        self._full = asyncio.Event()
        self._next_in_line = asyncio.Lock()

    async def __call__(self, key: K, item: T) -> R:
        """The result of one item."""
        entry: _Entry[K, T, R] = _Entry(key, item, asyncio.get_running_loop().create_future())
        self._entries.append(entry)
        self._any.set()
        if self._alike() >= self._batch_size:
            self._full.set()
        return await entry.result

    def _alike(self) -> int:
        """How many have the key of the first."""
        return sum(entry.key == self._entries[0].key for entry in self._entries)

    async def run(self) -> None:
        """Until it is cancelled."""
        with ThreadPoolExecutor(BATCHES_AT_ONCE, "network") as threads:
            async with asyncio.TaskGroup() as group:
                for _ in range(BATCHES_AT_ONCE):
                    group.create_task(self._take(threads))

    async def _take(self, threads: ThreadPoolExecutor) -> None:
        while True:
            async with self._next_in_line:
                batch = await self._gathered()
            items = [entry.item for entry in batch]
            try:
                loop = asyncio.get_running_loop()
                results = await loop.run_in_executor(threads, self._compute, batch[0].key, items)
                for entry, result in zip(batch, results, strict=True):
                    entry.result.set_result(result)
            except Exception as error:
                for entry in batch:
                    if not entry.result.done():
                        entry.result.set_exception(error)

    async def _gathered(self) -> list[_Entry[K, T, R]]:
        """The next batch."""
        await self._any.wait()
        if self._alike() < self._batch_size:
            self._full.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._full.wait(), self._wait)
        key = self._entries[0].key
        batch = [entry for entry in self._entries if entry.key == key][: self._batch_size]
        self._entries = deque(entry for entry in self._entries if entry not in batch)
        if not self._entries:
            self._any.clear()
        return batch
