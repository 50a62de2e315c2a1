import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.ndimage
from PIL import Image

from segapp.base.classes import voc_palette
from segapp.data.formats.shapes import SHAPES_CLASSES
from segapp.data.formats.voc import voc_layout
from segapp.evaluation.confusion import Scores
from segapp.evaluation.examples import Example
from segapp.reports.grid import picture_grid
from segapp.reports.kit import MAX_SIDE, data_uri, render
from segapp.reports.report import write_report
from segapp.reports.results import write_results
from tests.evaluation.test_evaluate import CONFIG, scored

CLASSES = ("road", "<script>alert(1)</script>", "tree & bush", "unseen")
MATRIX = np.array([[6, 2, 0, 0], [1, 3, 0, 0], [0, 4, 4, 0], [0, 0, 0, 0]])
RED, GREEN = (128, 0, 0), (0, 128, 0)  # VOC's colours 1 and 2


def example(height: int = 40, width: int = 60, name: str = "one") -> Example:
    """Truth: class 1 at the left, 2 at the right, two ignored rows below. Prediction: class 1 everywhere."""
    truth = np.full((height, width), 2, np.uint8)
    truth[:, : width // 2] = 1
    truth[-2:] = 255
    image = np.full((height, width, 3), 240, np.uint8)
    return Example(name, image, truth, np.ones((height, width), np.uint8), 0.25, np.full(4, 0.25))


class Page(HTMLParser):
    """The page's text, tables by id as rows of cell texts, and the attributes of every tag."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = ""
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str | None, list[list[str]]] = {}
        self._rows: list[list[str]] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self._rows = self.tables.setdefault(dict(attrs).get("id"), [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self._rows = []

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._rows and self._rows[-1]:
            self._rows[-1][-1] += data.strip()

    def pictures(self) -> dict[str | None, npt.NDArray[np.uint8]]:
        """By caption, as RGB."""
        found = {}
        for tag, attributes in self.tags:
            if tag == "img":
                content = base64.b64decode((attributes["src"] or "").partition(",")[2])
                found[attributes["alt"]] = np.array(Image.open(io.BytesIO(content)).convert("RGB"))
        return found


def report(folder: Path, **changes: Any) -> Page:
    values: dict[str, Any] = {
        "title": "Test",
        "scores": Scores(CLASSES, MATRIX),
        "palette": voc_palette(),
        "protocol": "whole image",
        "images": 7,
        "figures": [("Boundary IoU", 0.4321, "by hand")],
        "examples": [example()],
        "problems": [],
        "provenance": {"checkpoint": "best.safetensors"},
    }
    write_report(folder / "report.html", **(values | changes))
    return Page(folder / "report.html")


def test_report_figures_are_the_hand_worked_ones(tmp_path: Path) -> None:
    page = report(tmp_path)
    assert page.tables["classes"][1:] == [
        [
            "road",
            "66.67%",
            "",
            "75.00%",
            "85.71%",
            "80.00%",
            "40.00%",
        ],  # 6 / (8 + 7 - 6), 6 / 8, 6 / 7, 12 / 15, 8 / 20
        ["<script>alert(1)</script>", "30.00%", "", "75.00%", "33.33%", "46.15%", "20.00%"],  # 3 / (4 + 9 - 3), 3 / 9
        ["tree & bush", "50.00%", "", "50.00%", "100.00%", "66.67%", "40.00%"],  # 4 / (8 + 4 - 4), 4 / 8
        ["unseen", "not present, left out of the mean"],
    ]
    assert [row[1:] for row in page.tables["confusion"][1:]] == [
        ["75", "25", "", ""],
        ["25", "75", "", ""],
        ["", "50", "50", ""],
        ["", "", "", ""],
    ]
    # Means of the above: IoU, accuracy, and IoU weighted by share; 13 of 20 pixels are right.
    for figure in ("0.4889", "0.6500", "0.6667", "0.5267", "0.4321"):
        assert figure in page.text
    assert page.text.count("whole image") == 1
    assert page.text.count("by hand") == 1
    assert "7 images scored, mean over 3 of 4 classes" in page.text


def test_report_is_marked_incomplete_only_with_problems(tmp_path: Path) -> None:
    assert "incomplete" not in report(tmp_path).text.lower()
    page = report(tmp_path, problems=["a<b>.jpg: truncated"])
    assert "incomplete" in page.text
    assert "a<b>.jpg: truncated" in page.text


def test_report_escapes_everything(tmp_path: Path) -> None:
    evil = '"><img src=x onerror=alert(1)>'
    page = report(
        tmp_path,
        title=evil,
        scores=Scores((evil, *CLASSES[1:]), MATRIX),
        protocol=evil,
        figures=[(evil, 0.5, evil)],
        examples=[example(name=evil)],
        problems=[evil],
        provenance={evil: evil},
    )
    assert [tag for tag, _ in page.tags].count("script") == 1  # the page's own
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert {attributes["src"][:11] for tag, attributes in page.tags if tag == "img" and attributes["src"]} == {
        "data:image/"
    }


def test_report_refers_to_nothing_outside_itself(tmp_path: Path) -> None:
    page = report(tmp_path)
    assert not re.search(r"https?:|//[a-z]|url\(|@import|srcset", re.sub(r"base64,[\w+/=]+", "", page.source))
    assert not any({"href", "action", "poster", "data"} & attributes.keys() for _, attributes in page.tags)
    assert not any(tag in ("link", "iframe", "object", "embed") for tag, _ in page.tags)


def test_report_pictures(tmp_path: Path) -> None:
    pictures = report(tmp_path).pictures()
    assert list(pictures) == ["image", "truth", "prediction", "errors"]
    assert {picture.shape for picture in pictures.values()} == {(40, 60, 3)}
    assert tuple(pictures["truth"][10, 10]) == RED
    assert tuple(pictures["truth"][10, 50]) == GREEN
    assert tuple(pictures["truth"][39, 10]) == (224, 224, 192)
    assert (pictures["prediction"] == RED).all()
    right, wrong, ignored = (pictures["errors"][y, x].astype(int) for y, x in ((10, 10), (10, 50), (39, 10)))
    assert right.max() < 100
    assert wrong[0] > 200
    assert wrong[1:].max() < 100
    assert 120 < ignored.mean() < 180


def test_report_draws_iou_and_recall_over_the_mean_area_of_things(shapes_root: Path, tmp_path: Path) -> None:
    dataset = voc_layout(shapes_root, "train", SHAPES_CLASSES, "shapes")
    write_results(tmp_path, scored(dataset), CONFIG, title="shapes", source={})
    page = Page(tmp_path / "report.html")
    areas: list[int] = []
    for sample in (dataset[index] for index in range(len(dataset))):
        if sample.id.endswith("1"):
            continue  # not scored
        for index in range(len(SHAPES_CLASSES)):
            parts, _ = scipy.ndimage.label(sample.label == index, np.ones((3, 3)))
            areas += np.bincount(parts.ravel())[1:].tolist()
    buckets = np.digitize(areas, [(2**power) ** 2 for power in range(2, 9)])
    means = [float(np.mean(np.array(areas)[buckets == bucket])) for bucket in sorted(set(buckets.tolist()))]
    table = [[float(row[at].strip("%")) / 100 for row in page.tables["by-size"][1:]] for at in (2, 4)]
    assert len(means) >= 3
    plot = page.source.partition("IoU and recall by size")[2]
    dots = [(float(x.replace(",", "")), float(y)) for x, y in re.findall(r"<title>([\d,.]+): ([\d.]+)</title>", plot)]
    assert [x for x, _ in dots] == pytest.approx(2 * means, rel=1e-3)
    assert [y for _, y in dots] == pytest.approx([*table[0], *table[1]], abs=1e-4)


def test_report_without_a_single_scored_pixel(tmp_path: Path) -> None:
    page = report(tmp_path, scores=Scores(CLASSES, np.zeros((4, 4), np.int64)), images=0, examples=[])
    assert page.text.count("left out of the mean") == 4
    assert "n/a" in page.text
    assert not re.search(r"\bnan\b", page.text)


def test_report_of_many_classes_stays_small(tmp_path: Path) -> None:
    matrix = np.random.default_rng(0).integers(0, 100, (150, 150))
    names = tuple(f"class {index}" for index in range(150))
    page = report(tmp_path, scores=Scores(names, matrix))
    assert len(page.tables["confusion"]) == 151
    assert len(page.source) < 3_000_000


def test_page_of_a_file_name_that_is_not_utf8(tmp_path: Path) -> None:
    page = report(tmp_path, examples=[example(name=b"caf\xe9.jpg".decode("utf-8", "surrogateescape"))])
    assert "caf?.jpg" in page.text


def test_a_failed_page_leaves_the_old_one(tmp_path: Path) -> None:
    report(tmp_path)
    before = (tmp_path / "report.html").read_text()
    with pytest.raises(Exception, match="undefined"):
        render("report.html.j2", tmp_path / "report.html", title="no values")
    assert (tmp_path / "report.html").read_text() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_large_pictures_are_scaled_down_with_labels_unmixed() -> None:
    labels = np.zeros((300, 3000), np.uint8)
    labels[:, 1500:] = 2
    content = base64.b64decode(data_uri(labels, voc_palette()).partition(",")[2])
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    assert max(picture.size) == MAX_SIDE
    colours = picture.getcolors()
    assert colours is not None
    assert {colour for _, colour in colours} == {(0, 0, 0), GREEN}


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
