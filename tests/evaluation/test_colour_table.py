from collections import Counter, defaultdict

import numpy as np
import pytest

from segapp.evaluation.colour_table import ColourTable

RED, DARK_RED, BLUE, GREEN = (200, 0, 0), (80, 0, 0), (0, 0, 200), (0, 200, 0)


def test_worked_example() -> None:
    table = ColourTable(3, bits=1)  # 200 and 255 fall in one bin, 0 and 80 in the other
    table.fit(np.array([[RED, RED], [BLUE, GREEN]], np.uint8), np.array([[1, 1], [2, 255]], np.uint8))
    table.fit(np.array([[RED, BLUE]], np.uint8), np.array([[2, 0]], np.uint8))
    # Red was 1, 1, 2. Blue was 2 and 0, of which the lower wins. Green was only ignored, so it is unseen, as
    # is black: of all five pixels two are 1 and two are 2, and the lower wins.
    asked = np.array([[(255, 0, 0), BLUE], [GREEN, DARK_RED]], np.uint8)
    answer = table(asked)
    assert answer.dtype == np.uint8
    np.testing.assert_array_equal(answer, [[1, 0], [1, 1]])


@pytest.mark.parametrize("bits", [2, 5, 6])
def test_equals_counting_in_a_dictionary(bits: int) -> None:
    rng = np.random.default_rng(bits)
    table = ColourTable(4, bits=bits)
    seen: defaultdict[tuple[int, ...], Counter[int]] = defaultdict(Counter)
    overall: Counter[int] = Counter()

    def coarse(pixel: list[int]) -> tuple[int, ...]:
        return tuple(value // 2 ** (8 - bits) for value in pixel)

    for _ in range(3):
        image = rng.choice([0, 3, 7, 60, 130, 255], (13, 11, 3)).astype(np.uint8)
        label = rng.choice([0, 1, 2, 3, 255], (13, 11), p=[0.2, 0.2, 0.3, 0.2, 0.1]).astype(np.uint8)
        table.fit(image, label)
        for pixel, value in zip(image.reshape(-1, 3).tolist(), label.ravel().tolist(), strict=True):
            if value != 255:
                seen[coarse(pixel)][value] += 1
                overall[value] += 1

    def most_frequent(counts: Counter[int]) -> int:
        return min(counts, key=lambda value: (-counts[value], value))

    asked = rng.choice([0, 3, 7, 60, 130, 200, 255], (20, 9, 3)).astype(np.uint8)
    expected = [most_frequent(seen.get(coarse(pixel), overall)) for pixel in asked.reshape(-1, 3).tolist()]
    np.testing.assert_array_equal(table(asked).ravel(), expected)
