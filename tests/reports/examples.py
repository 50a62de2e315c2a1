"""A scored image made by hand."""

import numpy as np

from segapp.evaluation.examples import Example

CLASSES = ("road", "<script>alert(1)</script>", "tree & bush", "unseen")
RED, GREEN = (128, 0, 0), (0, 128, 0)  # VOC's colours 1 and 2


def example(height: int = 40, width: int = 60, name: str = "one") -> Example:
    """Truth: class 1 at the left, 2 at the right, two ignored rows below. Prediction: class 1 everywhere."""
    truth = np.full((height, width), 2, np.uint8)
    truth[:, : width // 2] = 1
    truth[-2:] = 255
    image = np.full((height, width, 3), 240, np.uint8)
    return Example(name, image, truth, np.ones((height, width), np.uint8), 0.25, np.full(4, 0.25))
