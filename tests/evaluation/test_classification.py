"""A classifier's scores beside slow counts, and what the reports make of them."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from segapp.data.dataset import ClassificationDataset, Sample
from segapp.data.packed_strings import PackedPaths, PackedStrings
from segapp.evaluation.classification import Classification, classify
from segapp.evaluation.config import EvalOptions
from segapp.reports.classification import print_classification, write_classification
from tests.images import draw

K = 7
NAMES = tuple(f"class <{index}>" for index in range(K))


@pytest.fixture
def dataset(tmp_path: Path) -> ClassificationDataset:
    root = draw(tmp_path / "data", ("all",), number=20)
    (root / "all" / "3.jpg").write_bytes(b"no picture")
    ids = PackedStrings(f"all/{index}.jpg" for index in range(20))
    labels = np.arange(20) % (K - 1)  # the last class has no image
    return ClassificationDataset("data val", NAMES, ids, PackedPaths(root, ids), labels)


def probabilities(id: str) -> Tensor:
    index = int(Path(id).stem)
    return torch.from_numpy(np.random.default_rng(index).dirichlet(np.full(K, 0.5))).float()


def predict(samples: Sequence[Sample]) -> Tensor:
    return torch.stack([probabilities(sample.id) for sample in samples])


def scored(dataset: ClassificationDataset, batch_size: int = 3) -> Classification:
    config = EvalOptions(batch_size=batch_size, examples=4)
    return classify(dataset, predict, protocol="as is", config=config, workers=0)


def test_scores_are_those_of_a_slow_count(dataset: ClassificationDataset) -> None:
    found = scored(dataset)
    kept = [index for index in range(20) if index != 3]
    top1, top5, matrix, gaps = 0, 0, np.zeros((K, K), int), np.zeros(20)
    hits = np.zeros((K, 3))
    for index in kept:
        p, truth = probabilities(f"{index}.jpg").tolist(), int(dataset.labels[index])
        order = sorted(range(K), key=lambda each: -p[each])
        top1 += order[0] == truth
        top5 += truth in order[:5]
        matrix[truth, order[0]] += 1
        hits[truth] += (order[0] == truth, truth in order[:5], 1)
        gaps[min(19, int(p[order[0]] * 20))] += (order[0] == truth) - p[order[0]]
    assert found.ids == tuple(f"all/{index}.jpg" for index in kept)
    assert (found.top1, found.top5) == pytest.approx((top1 / 19, top5 / 19))
    assert found.scores.confusion_matrix.tolist() == matrix.tolist()
    seen = hits[:-1]
    assert found.scores.per_class_accuracy[:-1] == pytest.approx(seen[:, 0] / seen[:, 2])
    assert found.per_class_top5[:-1] == pytest.approx(seen[:, 1] / seen[:, 2])
    assert np.isnan(found.per_class_top5[-1])
    assert found.mean_top1 == pytest.approx((seen[:, 0] / seen[:, 2]).mean())
    assert found.reliability.ece == pytest.approx(np.abs(gaps).sum() / 19, abs=1e-6)
    assert len(found.problems) == 1
    assert "3.jpg" in found.problems[0]


def test_batches_change_nothing(dataset: ClassificationDataset) -> None:
    one, other = scored(dataset, 1), scored(dataset, 20)
    assert one.ids == other.ids
    assert one.choices.classes.tolist() == other.choices.classes.tolist()


def test_the_worst_are_wrong_and_given_least(dataset: ClassificationDataset) -> None:
    found = scored(dataset)
    given = [
        (float(p[dataset.labels[index]]), f"all/{index}.jpg")
        for index in range(20)
        if index != 3 and (p := probabilities(f"{index}.jpg")).argmax() != dataset.labels[index]
    ]
    assert [each.id for each in found.worst] == [id for _, id in sorted(given)[:4]]
    assert [each.of_truth for each in found.worst] == pytest.approx([p for p, _ in sorted(given)[:4]])
    assert all(len(each.choices) == 5 for each in found.worst)
    pairs = found.confusions(3)
    assert [number for _, _, number in pairs] == sorted((number for _, _, number in pairs), reverse=True)
    assert all(truth != taken for truth, taken, _ in pairs)


def test_files(dataset: ClassificationDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, out = scored(dataset), tmp_path / "out"
    out.mkdir()
    write_classification(out, found, title="a <b>", source={"checkpoint": "x"})
    values = json.loads((out / "metrics.json").read_text())
    assert (values["top1"], values["top5"], values["images"]) == (found.top1, found.top5, 19)
    assert values["per_class_top1"][NAMES[-1]] is None
    assert not values["complete"]
    with (out / "per_image.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(row["truth"] == row["prediction"] for row in rows) / 19 == pytest.approx(found.top1)
    page = (out / "report.html").read_text()
    assert "class &lt;0&gt;" in page
    assert "class <0>" not in page
    assert "mIoU" not in page
    assert page.count("data:image/jpeg") == 4
    assert "incomplete" in page.lower()
    print_classification(found)
    assert capsys.readouterr().out.splitlines()[-1] == f"top-1 {found.top1:.4f} (incomplete: 1 not scored)"
