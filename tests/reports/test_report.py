import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import scipy.ndimage

from segapp.data.formats.shapes import SHAPES_CLASSES
from segapp.data.formats.voc import voc_layout
from segapp.evaluation.confusion import Scores
from segapp.evaluation.evaluate import Evaluation
from segapp.reports.kit import render
from segapp.reports.report import Metric, write_report
from segapp.reports.results import write_results
from tests.evaluation.test_evaluate import CONFIG, scored
from tests.pages import Page
from tests.reports.examples import CLASSES, GREEN, RED, example

MATRIX = np.array([[6, 2, 0, 0], [1, 3, 0, 0], [0, 4, 4, 0], [0, 0, 0, 0]])


def report(
    folder: Path,
    *,
    title: str = "Test",
    provenance: Mapping[str, str] = MappingProxyType({"checkpoint": "best.safetensors"}),
    further: Sequence[Metric] = (("Boundary IoU", 0.4321, "by hand"),),
    **changes: Any,
) -> Page:
    """The page of an evaluation with changes to the attributes of it."""
    values: dict[str, Any] = {
        "dataset": "test",
        "scores": Scores(CLASSES, MATRIX),
        "images": 7,
        "problems": [],
        "protocol": "whole image",
        "examples": [example()],
    }
    write_report(folder, Evaluation(**(values | changes)), title=title, provenance=provenance, further=further)
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
        further=[(evil, 0.5, evil)],
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
