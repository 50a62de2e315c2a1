"""Who goes through the network together, and who waits for memory."""

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from segapp.inference.predictor import BATCHES_AT_ONCE
from segapp.serving.batching import Batcher, Budget


async def batched(items: Sequence[tuple[str, int]], batch_size: int, wait: float) -> tuple[list[int], list[list[int]]]:
    """The results of items by key, all asked for at once, and the batches."""
    batches: list[list[int]] = []

    def compute(key: str, numbers: Sequence[int]) -> list[int]:
        batches.append(list(numbers))
        if key == "bad":
            raise ValueError("bad")
        return [10 * each for each in numbers]

    batcher: Batcher[str, int, int] = Batcher(compute, batch_size, wait)
    running = asyncio.create_task(batcher.run())
    try:
        return await asyncio.gather(*(batcher(*each) for each in items)), batches
    finally:
        running.cancel()


def test_those_alike_go_together_in_their_order() -> None:
    items = [("a", 1), ("b", 2), ("a", 3), ("a", 4), ("b", 5), ("a", 6)]
    results, batches = asyncio.run(batched(items, 3, 0.01))
    assert results == [10, 20, 30, 40, 50, 60]
    assert batches == [[1, 3, 4], [2, 5], [6]]


def test_a_full_batch_waits_for_nobody() -> None:
    results, batches = asyncio.run(asyncio.wait_for(batched([("a", 1), ("a", 2)], 2, 3600), 10))
    assert (results, batches) == ([10, 20], [[1, 2]])


def test_a_batch_begins_while_another_is_computed_and_no_third() -> None:
    async def most() -> int:
        lock, running, highest = threading.Lock(), 0, 0
        both = threading.Event()

        def compute(key: int, numbers: Sequence[int]) -> Sequence[int]:
            nonlocal running, highest
            with lock:
                running += 1
                highest = max(highest, running)
                if running == BATCHES_AT_ONCE:
                    both.set()
            assert both.wait(10)
            time.sleep(0.01)
            with lock:
                running -= 1
            return numbers

        batcher: Batcher[int, int, int] = Batcher(compute, 1, 0)
        task = asyncio.create_task(batcher.run())
        assert await asyncio.gather(*(batcher(at, at) for at in range(8))) == list(range(8))
        task.cancel()
        return highest

    assert asyncio.run(most()) == BATCHES_AT_ONCE == 2


def test_what_fails_is_told_to_its_own() -> None:
    async def both() -> tuple[int | BaseException, int | BaseException]:
        batcher: Batcher[str, int, int] = Batcher(lambda key, numbers: [1 // each for each in numbers], 1, 0)
        running = asyncio.create_task(batcher.run())
        results = await asyncio.gather(batcher("a", 0), batcher("a", 1), return_exceptions=True)
        running.cancel()
        return results

    failed, sound = asyncio.run(both())
    assert isinstance(failed, ZeroDivisionError)
    assert sound == 1


def test_memory_is_given_in_the_order_of_asking() -> None:
    async def told() -> list[str]:
        budget, order = Budget(10), []

        async def hold(name: str, amount: int) -> None:
            async with budget.holding(amount):
                order.append(f"{name} begins")
                await asyncio.sleep(0.01)
                order.append(f"{name} ends")

        await asyncio.gather(hold("a", 6), hold("large", 10), hold("small", 1))
        async with budget.holding(10):
            return order

    expected = ["a begins", "a ends", "large begins", "large ends", "small begins", "small ends"]
    assert asyncio.run(told()) == expected


@pytest.mark.parametrize("error", [ValueError, KeyError])
def test_memory_comes_back_after_an_error(error: type[Exception]) -> None:
    async def told() -> None:
        budget = Budget(10)
        for _ in range(3):
            with pytest.raises(error):
                async with budget.holding(10):
                    raise error

    asyncio.run(asyncio.wait_for(told(), 10))
