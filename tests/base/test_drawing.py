import numpy as np
import numpy.typing as npt
import pytest

from segapp.base.classes import ADE20K_CLASSES, CITYSCAPES_CLASSES, VOC_CLASSES, background_of, voc_palette
from segapp.base.drawing import LEGEND_PART, blend, legend_strip, overlay


def test_overlay_shows_image_labels_and_legend() -> None:
    image = np.full((200, 300, 3), 100, np.uint8)
    labels = np.zeros((200, 300), np.uint8)
    labels[50:100, 50:100] = 15
    labels[0, 0] = 255
    shown = overlay(image, labels, VOC_CLASSES, voc_palette(), background=0)
    assert shown.shape[1] == 300
    assert shown.shape[0] > 200, "the legend is below"
    assert shown[150, 200].tolist() == [100, 100, 100], "background stays clear"
    assert shown[0, 0].tolist() == [100, 100, 100], "void stays clear"
    assert shown[60, 60].tolist() == pytest.approx((0.45 * 100 + 0.55 * voc_palette()[15]).tolist(), abs=1)
    legend = shown[200:].reshape(-1, 3).tolist()
    assert voc_palette()[15].tolist() in legend
    assert voc_palette()[8].tolist() not in legend
    assert np.array_equal(shown[:200], blend(image, labels, voc_palette(), background=0))


def test_only_a_background_stays_clear() -> None:
    image = np.full((40, 60, 3), 100, np.uint8)
    road = np.zeros((40, 60), np.uint8)
    road[0, 0] = 255
    palette = np.full((256, 3), 200, np.uint8)
    assert background_of(VOC_CLASSES) == 0
    assert np.array_equal(blend(image, road, palette, background=0), image)
    assert background_of(CITYSCAPES_CLASSES) is None
    shown = overlay(image, road, CITYSCAPES_CLASSES, palette, background=background_of(CITYSCAPES_CLASSES))
    assert shown[0, 0].tolist() == [100, 100, 100], "void stays clear"
    assert (shown[1:40] == 155).all(), "class 0 is a class as any other"
    other = blend(image, np.full((40, 60), 7, np.uint8), palette, background=7)
    assert np.array_equal(other, image), "a background need not be the first class"


def stripes(height: int, width: int, classes: int) -> npt.NDArray[np.uint8]:
    """Labels with so many classes, each with one column more than the next."""
    widths = np.arange(classes, 0, -1)
    columns = np.repeat(np.arange(classes), widths)
    return np.tile(columns[np.arange(width) * len(columns) // width].astype(np.uint8), (height, 1))


def chips(strip: npt.NDArray[np.uint8]) -> set[tuple[int, ...]]:
    """The colours in a legend but for greys, which are letters and frames."""
    return {tuple(colour) for colour in np.unique(strip.reshape(-1, 3), axis=0).tolist() if len(set(colour)) > 1}


@pytest.mark.parametrize("classes", [("one",), ("no", "yes"), VOC_CLASSES, CITYSCAPES_CLASSES, ADE20K_CLASSES])
@pytest.mark.parametrize(("height", "width"), [(332, 500), (500, 332), (300, 1000), (50, 70), (2, 3000), (900, 90)])
def test_overlays_of_equal_pictures_are_of_equal_size(height: int, width: int, classes: tuple[str, ...]) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    heights = set()
    for number in (0, 1, 2, 5, len(classes)):
        number = min(number, len(classes))
        labels = stripes(height, width, number) if number else np.full((height, width), 255, np.uint8)
        shown = overlay(image, labels, classes, voc_palette(), background=None)
        heights.add(shown.shape[0])
        assert shown.shape[1:] == (width, 3)
        assert number == 0 or (shown[height:] != 255).any(), "the largest class is named"
    (found,) = heights
    assert 0 < found - height <= max(LEGEND_PART * height, 3 * 51), "of three lines of the largest letters, or a sixth"


def test_classes_that_do_not_fit_are_summed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """On 500 pixels: all of three classes; of 21, the largest that fit in three lines, and the sum of the others."""
    drawn: list[list[str]] = []

    def spy(entries: list[tuple[str, str | None]], *arguments: int) -> object:
        drawn.append([name for name, _ in entries])
        return legend_strip(entries, *arguments)

    monkeypatch.setattr("segapp.base.drawing.legend_strip", spy)
    image, palette = np.zeros((332, 500, 3), np.uint8), voc_palette()
    few = overlay(image, stripes(332, 500, 3), VOC_CLASSES, palette, background=0)
    assert drawn[0] == ["background 50.0%", "aeroplane 33.4%", "bicycle 16.6%"]
    assert chips(few[332:]) == {(128, 0, 0), (0, 128, 0)}, "the background's is black"
    many = overlay(image, stripes(332, 500, 21), VOC_CLASSES, palette, background=0)
    *named, rest = drawn[1]
    shares = [np.mean(stripes(332, 500, 21) == index) for index in range(21)]
    assert 6 <= len(named) <= 12
    assert named == [f"{VOC_CLASSES[index]} {shares[index]:.1%}" for index in range(len(named))]
    assert rest == f"+{21 - len(named)} more {sum(shares[len(named) :]):.1%}"
    assert chips(many[332:]) == chips(palette[1 : len(named)])


def test_a_legend_has_the_lines_it_needs_or_those_it_is_given() -> None:
    entries = [(f"class {index}", "#800000") for index in range(10)]
    one, all_lines = legend_strip(entries[:1], 300, 14), legend_strip(entries, 300, 14)
    assert one.width == all_lines.width == 300
    assert one.height < all_lines.height <= 10 * one.height
    assert legend_strip(entries[:1], 300, 14, lines=3).height == 3 * one.height
    awkward = [("two\nlines", None), ("x" * 3000, "#000000"), (b"\xe9".decode("utf-8", "surrogateescape"), None)]
    assert legend_strip(awkward, 90, 14).width == 90
