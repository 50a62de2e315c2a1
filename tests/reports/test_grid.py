import numpy as np
import numpy.typing as npt
import pytest

from segapp.base.classes import voc_palette
from segapp.reports.grid import picture_grid
from tests.reports.examples import CLASSES, GREEN, RED, example


def columns(picture: npt.NDArray[np.uint8], colour: tuple[int, int, int], rows: slice) -> list[int]:
    """Picture columns in which the colour fills more than ten pixels."""
    return np.flatnonzero((picture[rows] == colour).all(-1).sum(0) > 10).tolist()


def test_grid_shows_truth_and_prediction_in_their_columns() -> None:
    picture = picture_grid([example(150, 200)], CLASSES, voc_palette(), cell=200)
    height, width, channels = picture.shape
    assert channels == 3
    assert 3 * 200 <= width < 3 * 200 + 60
    assert 150 < height < 150 + 140
    rows = slice(0, height - 40)  # above the legend
    thirds = width / 3
    green, red = columns(picture, GREEN, rows), columns(picture, RED, rows)
    assert len(green) == 100
    assert all(thirds < x < 2 * thirds for x in green)
    assert len(red) == 300  # the truth's left half and the whole prediction
    assert min(red) > thirds
    legend = picture[-40:].reshape(-1, 3)
    assert all((legend == colour).all(-1).any() for colour in (RED, GREEN, (224, 224, 192)))


@pytest.mark.parametrize(
    ("height", "width", "cell"), [(129, 129, 320), (375, 500, 320), (500, 375, 320), (2, 900, 90)]
)
def test_grid_is_bounded_by_the_cell_and_twofold_enlargement(height: int, width: int, cell: int) -> None:
    picture = picture_grid([example(height, width)] * 2, CLASSES, voc_palette(), cell)
    scale = min(cell / max(height, width), 2)
    assert picture.shape[0] <= 2 * round(height * scale) + 200
    assert picture.shape[1] <= 3 * max(round(width * scale), 110) + 60


def test_grid_of_mixed_sizes_and_awkward_names() -> None:
    names = ["x" * 5000, "two\nlines", b"\xe9".decode("utf-8", "surrogateescape"), ""]
    examples = [example(30 + 20 * index, 90, name) for index, name in enumerate(names)]
    widths = {picture_grid([each], CLASSES, voc_palette()).shape[1] for each in [*examples, example(30, 90)]}
    assert len(widths) == 1
    long_classes = ("a" * 3000, *CLASSES[1:])
    assert picture_grid(examples, long_classes, voc_palette()).shape[1] in widths
