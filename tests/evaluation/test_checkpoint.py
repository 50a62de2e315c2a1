"""An evaluation that is broken off goes on where it was, and ends as one that was not."""

import json
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segapp.base.distributed import ALONE, Processes
from segapp.base.errors import UserError
from segapp.data.dataset import Sample, SegmentationDataset
from segapp.data.formats.shapes import SHAPES_CLASSES
from segapp.data.formats.voc import voc_layout
from segapp.evaluation import accumulate
from segapp.evaluation.checkpoint import EvaluationCheckpoint
from segapp.evaluation.config import EvalConfig
from segapp.evaluation.evaluate import Evaluation, evaluate
from segapp.evaluation.metrics import metrics
from segapp.inference.prediction import Prediction
from tests.evaluation.test_evaluate import Thread, label

CONFIG = EvalConfig(batch_size=2, classes=None, examples=0, detailed=True, trimap_widths=(1, 3))


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint is written after each batch."""
    monkeypatch.setattr(accumulate, "WRITE_EVERY", 0)
    monkeypatch.setattr(accumulate, "WRITE_FRACTION", 1e9)


@pytest.fixture(scope="module")
def dataset(shapes_root: Path) -> SegmentationDataset:
    return voc_layout(shapes_root, "train", SHAPES_CLASSES, "shapes")


class Labels:
    """Ends the program at the image after `until`."""

    def __init__(self, until: int = 1000) -> None:
        self.until = until
        self.seen: list[str] = []

    def __call__(self, samples: Sequence[Sample]) -> Sequence[Prediction | UserError]:
        if len(self.seen) >= self.until:
            raise KeyboardInterrupt
        self.seen += [sample.id for sample in samples]
        return label(samples)


def score(
    dataset: SegmentationDataset, labels: Labels, folder: Path | None, *, key: str = "a",
    processes: Processes = ALONE,
) -> Evaluation:  # fmt: skip
    checkpoint = (
        None
        if folder is None
        else EvaluationCheckpoint(folder, {"weights": key}, CONFIG, lambda index: [dataset.images[index]])
    )
    return evaluate(dataset, labels, protocol="", config=CONFIG, workers=0, processes=processes, checkpoint=checkpoint)


def told(evaluation: Evaluation) -> str:
    return json.dumps(metrics(evaluation, CONFIG))


@pytest.mark.parametrize("until", [2, 4, 6])
def test_it_ends_as_an_unbroken_one(until: int, dataset: SegmentationDataset, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        score(dataset, Labels(until), tmp_path)
    rest = Labels()
    resumed = score(dataset, rest, tmp_path)
    scored = [id for id in list(dataset.ids)[:until] if not id.endswith("1")]
    assert not set(rest.seen) & set(scored), "an image is scored twice"
    assert {*rest.seen, *scored} == set(dataset.ids)
    assert told(resumed) == told(score(dataset, Labels(), None))
    again = Labels()
    assert told(score(dataset, again, tmp_path)) == told(resumed)
    assert all(id.endswith("1") for id in again.seen), "nothing but what could not be scored is tried again"


def test_with_another_number_of_processes(dataset: SegmentationDataset, tmp_path: Path) -> None:
    def start(size: int, until: int) -> list[Evaluation | BaseException]:
        barrier, shared = threading.Barrier(size), dict[int, Any]()

        def run(rank: int) -> Evaluation | BaseException:
            try:
                return score(dataset, Labels(until), tmp_path, processes=Thread(rank, size, 0, shared, barrier))
            except (KeyboardInterrupt, threading.BrokenBarrierError) as error:
                barrier.abort()
                return error

        with ThreadPoolExecutor(size) as pool:
            return list(pool.map(run, range(size)))

    assert all(isinstance(each, BaseException) for each in start(2, until=2))
    assert len(list((tmp_path / "counts").iterdir())) == 2
    expected = told(score(dataset, Labels(), None))
    for each in start(3, until=1000):
        assert isinstance(each, Evaluation)
        assert told(each) == expected


def test_what_is_not_ones_own_is_refused(dataset: SegmentationDataset, tmp_path: Path) -> None:
    score(dataset, Labels(), tmp_path)
    with pytest.raises(UserError, match="weights there: a; here: b; name another output"):
        score(dataset, Labels(), tmp_path, key="b")
    (path,) = (tmp_path / "counts").iterdir()
    whole = path.read_bytes()
    at = whole.index(b"0.areas.npy") + 60  # within what is compressed
    flipped = whole[:at] + bytes(255 - byte for byte in whole[at : at + 9]) + whole[at + 9 :]
    for damaged in (whole[:-100], b"", b"PK\3\4 no", flipped, whole.replace(b"0.areas", b"0.arena")):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match="damaged .*; remove it, and its images are scored again"):
            score(dataset, Labels(), tmp_path)
    path.write_bytes(whole)
    path.with_name("0000003-0.npz").write_bytes(whole)
    with pytest.raises(UserError, match="counted twice"):
        score(dataset, Labels(), tmp_path)
    path.with_name("0000003-0.npz").unlink()
    with path.open("wb") as file:
        np.savez(file, key=np.array([{}], object))
    with pytest.raises(UserError, match="damaged .*allow_pickle"):
        score(dataset, Labels(), tmp_path)
