"""IoU by size on hand-drawn components, and against a slow implementation."""

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from segapp.evaluation.components import AREAS, BUCKETS, ComponentCounts, count_components

Labels = npt.NDArray[np.uint8]


def drawn(*rows: str) -> Labels:
    """Digits are classes, a point is class 0 and a question mark void."""
    return np.array([[255 if each == "?" else int(each.replace(".", "0")) for each in row] for row in rows], np.uint8)


def of_class_1(truth: Labels, prediction: Labels) -> list[int]:
    """Components, pixels, right and united of class 1 in the smallest bucket, which must have all of them."""
    counts = count_components(truth, prediction, 2)
    fields = (counts.components, counts.pixels, counts.right, counts.united)
    assert not any(field[1, 1:].any() for field in fields)
    return [int(field[1, 0]) for field in fields]


def test_one_component_found_in_part_and_beyond() -> None:
    """4 pixels, 2 of them found, in a prediction of 5; the far one overlaps nothing."""
    truth = drawn(".......", ".11....", ".11....", ".......")
    prediction = drawn(".......", "..111..", "..11...", "1......")
    assert of_class_1(truth, prediction) == [1, 4, 2, 4 + 3]


def test_a_prediction_over_two_components_is_held_against_each_for_what_is_wrong() -> None:
    """Two of 2 pixels, joined by 1 wrong one: 2 / 3 each, though the prediction has 5 pixels."""
    assert of_class_1(drawn("11.11"), drawn("11111")) == [2, 4, 4, 3 + 3]


def test_two_predictions_on_one_component_are_counted_together() -> None:
    """7 pixels, of which 2 predicted components find 2 and 2, each with 1 wrong."""
    truth = drawn(".......", "1111111", ".......")
    prediction = drawn(".1...1.", "11...11", ".......")
    assert of_class_1(truth, prediction) == [1, 7, 4, 7 + 2]


def test_a_missed_component_has_its_own_area_for_a_union() -> None:
    assert of_class_1(drawn("1...11"), drawn("....11")) == [2, 3, 2, 3]


def test_corners_join() -> None:
    assert of_class_1(drawn("1..", ".1.", "..1"), drawn("1..", "...", "...")) == [1, 3, 1, 3]


def test_void_is_free_and_does_not_part_a_prediction() -> None:
    """Of the 5 predicted pixels 2 are right, 1 is in the void, and 2 wrong ones beyond it hang on through the void."""
    assert of_class_1(drawn("11?..."), drawn("11111.")) == [1, 2, 2, 2 + 2]
    assert of_class_1(drawn("11?11"), drawn("11111")) == [2, 4, 4, 4], "void parts the truth"


def test_buckets_by_area() -> None:
    """A square with a side of 4 begins the second bucket, one of 8 the third; the background lies in the sixth."""
    truth = np.zeros((70, 70), np.uint8)
    truth[1:4, 1:6] = truth[10:14, 1:5] = truth[20:27, 1:10] = truth[30:38, 1:9] = 1  # 15, 16, 63, 64 pixels
    prediction = truth.copy()
    prediction[30:34, 1:9] = 0
    counts = count_components(truth, prediction, 3)
    assert counts.components[1].tolist() == [1, 2, 1, 0, 0, 0, 0, 0]
    assert counts.pixels[1].tolist() == [15, 79, 64, 0, 0, 0, 0, 0]
    assert counts.iou[1, :3].tolist() == [1, 1, 0.5]
    assert counts.recall[1, :3].tolist() == [1, 1, 0.5]
    assert np.isnan(counts.iou[1, 3:]).all()
    assert counts.components[0].tolist() == [0, 0, 0, 0, 0, 1, 0, 0]
    assert counts.united[0, 5] == 70 * 70 - 158 + 32
    assert not counts.components[2].any()
    assert (AREAS[0], AREAS[-1], BUCKETS) == (16, 65536, 8)


def slow(truth: Labels, prediction: Labels, num_classes: int) -> ComponentCounts:
    """Component by component, with sets of pixels."""
    counts = np.zeros((4, num_classes, BUCKETS), np.int64)
    for index in range(num_classes):
        true_at, number = ndimage.label(truth == index, np.ones((3, 3)))
        found_at, predicted = ndimage.label(prediction == index, np.ones((3, 3)))
        for each in range(1, number + 1):
            mask = true_at == each
            union = mask.copy()
            for other in range(1, predicted + 1):
                if (mask & (found_at == other)).any():
                    union |= found_at == other
            union &= mask | ((truth != index) & (truth != 255))
            bucket = sum(mask.sum() >= area for area in AREAS)
            counts[:, index, bucket] += 1, mask.sum(), (mask & (prediction == index)).sum(), union.sum()
    return ComponentCounts(*counts)


def test_equals_a_slow_implementation_and_adds_up() -> None:
    total = expected = ComponentCounts(*np.zeros((4, 4, BUCKETS), np.int64))
    for seed in range(4):
        rng = np.random.default_rng(seed)
        smooth = ndimage.gaussian_filter(rng.normal(size=(4, 40, 50)), (0, 2, 2))
        noise = ndimage.gaussian_filter(rng.normal(size=(4, 40, 50)), (0, 1, 1))
        truth = smooth.argmax(0).astype(np.uint8)
        prediction = (smooth + 0.5 * noise * smooth.std() / noise.std()).argmax(0).astype(np.uint8)
        truth[noise[0] > 1.5 * noise.std()] = 255
        total += count_components(truth, prediction, 4)
        expected += slow(truth, prediction, 4)
    for name in ("components", "pixels", "right", "united"):
        assert np.array_equal(getattr(total, name), getattr(expected, name)), name
    assert (total.components.sum(0) > 0).sum() >= 4


def test_nothing_to_count() -> None:
    counts = count_components(np.full((5, 5), 255, np.uint8), np.zeros((5, 5), np.uint8), 2)
    assert not counts.components.any()
    assert np.isnan(counts.iou).all()
