import numpy as np

from segapp.data.loading.balance import class_weights


def test_class_weights_are_the_hand_worked_ones() -> None:
    counts = np.zeros((3, 256), np.int64)
    counts[0, [0, 1, 255]] = 90, 10, 900
    counts[1, [0, 2]] = 60, 40
    counts[2, [0]] = 50
    # 0: 200 of 250 pixels, 0.8. 1: 10 of image 0's 100, 0.1. 2: 40 of image 1's 100, 0.4. Their median: 0.4.
    assert np.allclose(class_weights(counts, 4), [0.5, 4, 1, 0])


def test_class_weights_of_nothing_labelled_are_zero() -> None:
    assert class_weights(np.zeros((2, 256), np.int64), 3).tolist() == [0, 0, 0]
    assert class_weights(np.zeros((0, 256), np.int64), 2).tolist() == [0, 0]
