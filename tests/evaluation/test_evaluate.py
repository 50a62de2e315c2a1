"""What an evaluation counts, against slow loops over the same masks; and shared among processes it stays the same."""

import csv
import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torchmetrics.functional.classification import multiclass_f1_score, multiclass_precision, multiclass_recall

from segapp.base.distributed import ALONE, Processes
from segapp.base.errors import UserError
from segapp.base.paths import CONF
from segapp.data.dataset import Sample, SegmentationDataset
from segapp.data.formats.shapes import SHAPES_CLASSES, make_shapes
from segapp.data.formats.voc import voc_layout
from segapp.evaluation.boundary import count_boundaries
from segapp.evaluation.components import count_components
from segapp.evaluation.config import EvalConfig
from segapp.evaluation.evaluate import Evaluation, evaluate
from segapp.evaluation.metrics import metrics
from segapp.inference.prediction import Prediction
from segapp.reports.results import write_results

WIDTHS = (1, 3, 9)
CONFIG = EvalConfig(batch_size=3, classes=None, examples=3, detailed=True, trimap_widths=WIDTHS)


@dataclass(frozen=True)
class Thread(Processes):
    """One of several processes, all of them threads of this one."""

    shared: dict[int, Any] = field(default_factory=dict)
    together: threading.Barrier | None = None

    def gather(self, value: Any) -> list[Any]:
        assert self.together is not None
        self.shared[self.rank] = value
        self.together.wait()
        values = [self.shared[rank] for rank in range(self.world_size)]
        self.together.wait()
        return values


def guess(sample: Sample) -> np.ndarray:
    """The truth moved aside, with a box of another class in it."""
    assert sample.label is not None
    moved = np.roll(sample.label, 3, axis=1)
    moved[moved == 255] = 0
    moved[20:30, 10:40] = int(sample.id) % 4
    return moved


def label(samples: Sequence[Sample]) -> list[Prediction | UserError]:
    return [
        UserError("no guess") if sample.id.endswith("1") else Prediction(torch.from_numpy(guess(sample)))
        for sample in samples
    ]


def scored(dataset: SegmentationDataset, processes: Processes = ALONE, **changes: Any) -> Evaluation:
    config = CONFIG.model_copy(update=changes)
    return evaluate(dataset, label, protocol="moved", config=config, workers=0, processes=processes)


@pytest.fixture(scope="module")
def dataset(shapes_root: Path) -> SegmentationDataset:
    return voc_layout(shapes_root, "train", SHAPES_CLASSES, "shapes")


@pytest.fixture(scope="module")
def evaluation(dataset: SegmentationDataset) -> Evaluation:
    return scored(dataset)


def right_ones(dataset: SegmentationDataset) -> list[Sample]:
    """Those that are not refused."""
    return [sample for sample in (dataset[at] for at in range(len(dataset))) if not sample.id.endswith("1")]


def test_counts_are_those_of_a_slow_loop(dataset: SegmentationDataset, evaluation: Evaluation) -> None:
    samples = right_ones(dataset)
    assert len(samples) < len(dataset) == len(samples) + len(evaluation.problems)
    intersection, union = np.zeros(len(dataset.classes)), np.zeros(len(dataset.classes))
    for sample in samples:
        truth, prediction = sample.label, guess(sample)
        assert truth is not None
        for index in range(len(dataset.classes)):
            intersection[index] += ((truth == index) & (prediction == index)).sum()
            union[index] += (((truth == index) | (prediction == index)) & (truth != 255)).sum()
    assert evaluation.scores.miou == pytest.approx(np.mean(intersection[union > 0] / union[union > 0]), abs=1e-12)

    details = evaluation.details
    assert details is not None
    assert list(details.ids) == [sample.id for sample in samples]
    assert np.array_equal(details.areas[:, 0].sum(0), intersection)
    pairs = [(sample.label, guess(sample)) for sample in samples]
    boundary = [count_boundaries(*pair, len(dataset.classes), widths=WIDTHS) for pair in pairs]  # type: ignore[arg-type]
    assert np.array_equal(details.counts.boundary.trimap, sum(each.trimap for each in boundary))
    assert details.counts.boundary.f_scores == pytest.approx(sum(each.f_scores for each in boundary), abs=1e-8)
    components = [count_components(*pair, len(dataset.classes)) for pair in pairs]  # type: ignore[arg-type]
    assert np.array_equal(details.counts.components.united, sum(each.united for each in components))


def test_shared_among_processes_it_is_the_same(dataset: SegmentationDataset, evaluation: Evaluation) -> None:
    barrier, shared = threading.Barrier(3), dict[int, Any]()
    with ThreadPoolExecutor(3) as pool:
        several = list(pool.map(lambda rank: scored(dataset, Thread(rank, 3, 0, shared, barrier)), range(3)))
    expected = json.dumps(metrics(evaluation, CONFIG))
    for each in several:
        assert json.dumps(metrics(each, CONFIG)) == expected
    assert [example.id for example in several[0].examples] == [example.id for example in evaluation.examples]
    assert not several[1].examples


def test_more_processes_than_images(dataset: SegmentationDataset, evaluation: Evaluation) -> None:
    size = len(dataset) + 2
    barrier, shared = threading.Barrier(size), dict[int, Any]()
    with ThreadPoolExecutor(size) as pool:
        several = list(pool.map(lambda rank: scored(dataset, Thread(rank, size, 0, shared, barrier)), range(size)))
    assert json.dumps(metrics(several[-1], CONFIG)) == json.dumps(metrics(evaluation, CONFIG))


def test_measures_by_class_equal_torchmetrics(dataset: SegmentationDataset, evaluation: Evaluation) -> None:
    samples = right_ones(dataset)
    truth = torch.from_numpy(np.stack([sample.label for sample in samples if sample.label is not None])).long()
    predictions = torch.from_numpy(np.stack([guess(sample) for sample in samples])).long()
    values = metrics(evaluation, CONFIG)
    number = len(dataset.classes)
    for key, measure in (
        ("accuracy", multiclass_recall),
        ("precision", multiclass_precision),
        ("dice", multiclass_f1_score),
    ):
        expected = measure(predictions, truth, number, average="none", ignore_index=255).numpy()
        counted = list(values[f"per_class_{key}"].values())
        assert [value or 0 for value in counted] == pytest.approx(expected.tolist(), abs=1e-6)
    for key in ("dice", "precision"):
        known = [value for value in values[f"per_class_{key}"].values() if value is not None]
        assert values[f"mean_{key}"] == pytest.approx(np.mean(known))


def test_the_worst_image_of_a_class_has_most_wrong_pixels(
    dataset: SegmentationDataset, evaluation: Evaluation
) -> None:
    ious = evaluation.scores.per_class_iou
    assert list(evaluation.worst) == [dataset.classes[index] for index in np.argsort(ious)[: len(evaluation.worst)]]
    assert 0 < len(evaluation.worst) <= CONFIG.examples
    for name, example in evaluation.worst.items():
        index = dataset.classes.index(name)
        wrong = {
            sample.id: int((((sample.label == index) != (guess(sample) == index)) & (sample.label != 255)).sum())
            for sample in right_ones(dataset)
        }
        assert wrong[example.id] == max(wrong.values())


def test_a_plain_evaluation_counts_pixels_alone(dataset: SegmentationDataset, evaluation: Evaluation) -> None:
    plain = evaluate(dataset, label, protocol="moved", config=CONFIG.plain, workers=0)
    assert plain.details is None
    assert not plain.examples
    assert not plain.worst
    assert np.array_equal(plain.scores.confusion_matrix, evaluation.scores.confusion_matrix)
    assert "trimap" not in metrics(plain, CONFIG.plain)


def test_files(dataset: SegmentationDataset, evaluation: Evaluation, tmp_path: Path) -> None:
    write_results(tmp_path, evaluation, CONFIG, title="shapes", source={})
    values = json.loads((tmp_path / "metrics.json").read_text())
    with (tmp_path / "per_class.csv").open() as file:
        classes = list(csv.DictReader(file))
    assert [row["class"] for row in classes] == list(dataset.classes)
    for row in classes:
        for key, text in row.items():
            if key != "class":
                expected = values[f"per_class_{key}"][row["class"]]
                assert text == ("" if expected is None else repr(expected))
    with (tmp_path / "per_image.csv").open() as file:
        images = list(csv.DictReader(file))
    for row, sample in zip(images, right_ones(dataset), strict=True):
        truth = sample.label
        assert truth is not None
        assert row["id"] == sample.id
        assert int(row["pixels"]) == (truth != 255).sum()
        assert float(row["pixel_accuracy"]) == pytest.approx((truth == guess(sample))[truth != 255].mean())
    text = (tmp_path / "results.md").read_text()
    assert "Protocol: moved." in text
    assert f"{100 * values['miou']:.2f}" in text
    low, high = values["miou_interval"]["low"], values["miou_interval"]["high"]
    assert low <= values["miou"] <= high
    assert f"{100 * low:.2f} to {100 * high:.2f}" in text


def test_widths_out_of_order_are_refused() -> None:
    with pytest.raises(ValidationError, match="widths rise"):
        EvalConfig(batch_size=1, classes=None, examples=0, detailed=True, trimap_widths=(4, 2))


def test_a_failure_while_counting_is_told(dataset: SegmentationDataset) -> None:
    def wrong_size(samples: Sequence[Sample]) -> list[Prediction | UserError]:
        return [Prediction(torch.zeros(64, 64, dtype=torch.int64)) for _ in samples]  # OpenCV takes no int64

    with pytest.raises(Exception, match="OpenCV|type"):
        evaluate(dataset, wrong_size, protocol="", config=CONFIG, workers=0)


def test_every_key_is_documented(evaluation: Evaluation) -> None:
    text = (CONF.parent / "docs" / "metrics.md").read_text()
    values = metrics(evaluation, CONFIG.model_copy(update={"classes": ("disc",)}))
    for key in values | values["components"] | values["trimap"] | values["miou_interval"]:
        assert f"`{key}`" in text, key


def test_page_shows_the_details(evaluation: Evaluation, tmp_path: Path) -> None:
    write_results(tmp_path, evaluation, CONFIG, title="shapes", source={})
    page = (tmp_path / "report.html").read_text()
    values = metrics(evaluation, CONFIG)
    for figure in (values["miou_interval"]["low"], values["boundary_iou"], values["boundary_f"]):
        assert f"{figure:.4f}" in page
    for width, miou in zip(values["trimap"]["widths"], values["trimap"]["miou"], strict=True):
        assert f"<title>{width}: {miou:.4g}</title>" in page
    for number, iou in zip(values["components"]["number"], values["components"]["iou"], strict=True):
        assert not number or f'<td class="number">{number}</td><td class="number">{iou:.2%}</td>' in page
    for name, example in evaluation.worst.items():
        assert f"{name}: {example.id}" in page


def test_examples_of_large_images_are_reduced(tmp_path: Path) -> None:
    """And their figures are those of the images as they are."""
    make_shapes(tmp_path / "set", train=1, val=1, height=600, width=1200, seed=0)
    large = voc_layout(tmp_path / "set", "val", SHAPES_CLASSES, "large")
    labelled: list[str] = []

    def once(samples: Sequence[Sample]) -> list[Prediction | UserError]:
        labelled.extend(sample.id for sample in samples)
        return [Prediction(torch.from_numpy(guess(sample))) for sample in samples]

    scored_large = evaluate(large, once, protocol="", config=CONFIG, workers=0)
    assert len(labelled) == 2, "once to count, and once to show, whatever it is an example of"
    assert len(scored_large.worst) == 3
    for example in (*scored_large.examples, *scored_large.worst.values()):
        assert example.image.shape == (512, 1024, 3)
        assert example.truth.shape == example.prediction.shape == (512, 1024)
        assert example.per_class_iou == pytest.approx(scored_large.scores.per_class_iou, nan_ok=True)
        assert example.miou == pytest.approx(scored_large.scores.miou)
        assert example.image.mean() == pytest.approx(large[0].image.mean(), abs=1)
        assert set(np.unique(example.truth)) <= {*range(len(large.classes)), 255}
