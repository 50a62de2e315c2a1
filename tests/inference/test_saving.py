"""The pipeline around the network: reading ahead, writing behind, in order and in bounds."""

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import segapp
from segapp.base.errors import UserError
from segapp.base.images import write_image
from segapp.inference import saving
from segapp.inference.options import Sliding
from segapp.inference.prediction import Prediction
from segapp.inference.predictor import Predictor
from segapp.inference.saving import ahead, label_files


def test_no_more_is_begun_than_asked_for() -> None:
    begun: list[int] = []
    with ThreadPoolExecutor(2) as pool:
        results = ahead(pool, lambda item: begun.append(item) or item * item, itertools.count(), 3)  # type: ignore[func-returns-value]
        assert [next(results).result() for _ in range(5)] == [0, 1, 4, 9, 16]
    assert len(begun) <= 5 + 3


def test_order_is_kept_and_problems_are_told_in_it(
    make_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What takes longest to write comes first, and the third cannot be written."""
    random = np.random.default_rng(0)
    images = [tmp_path / f"{number}.png" for number in range(9)]
    for path in images:
        write_image(path, random.integers(0, 256, (20, 30, 3), np.uint8))
    images[6].write_bytes(b"no picture")
    predictor = segapp.load(make_checkpoint(), device="cpu")
    write, slow, threads = saving.save, threading.Event(), set()

    def late(folder: Path, name: str, *rest: object) -> None:
        threads.add(threading.current_thread())
        if name == "0":
            slow.wait(5)
        elif name == "1":
            slow.set()
        elif name == "2":
            raise UserError("2 cannot be written")
        write(folder, name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(saving, "save", late)
    monkeypatch.setattr(saving, "THREADS", 2)
    scored: list[tuple[Path, int]] = []
    saved, problems = label_files(
        images,
        predictor,
        tmp_path,
        ["mask"],
        max_pixels=10**6,
        score=lambda path, mask: scored.append((path, mask.size)),
    )
    assert saved == 7
    assert [problem.split()[0] for problem in problems] == ["2", f"{images[6]}:"]
    assert scored == [(path, 600) for path in images if path not in (images[2], images[6])]
    assert threading.main_thread() not in threads


def test_what_is_computed_for_nothing_ends_at_the_next_window(
    make_checkpoint: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C comes while a large image is computed."""
    images = [tmp_path / f"{number}.png" for number in range(2)]
    for path, side in zip(images, (20, 400), strict=True):
        write_image(path, np.zeros((side, side, 3), np.uint8))
    runtime = segapp.load(make_checkpoint(), device="cpu").runtime
    predictor = Predictor(runtime, Sliding(window=33, overlap=0, scales=(1,), flip=False))
    begun, calls = threading.Event(), itertools.count()
    compute, logits = predictor.predict, predictor._logits

    def interrupted(arrays: Sequence[npt.NDArray[np.uint8]], **options: bool) -> list[Prediction]:
        if arrays[0].shape[0] == 20:
            assert begun.wait(10)
            raise KeyboardInterrupt
        return compute(arrays, **options)

    def slow(*arguments: Any) -> Any:
        next(calls)
        begun.set()
        time.sleep(0.1)
        return logits(*arguments)

    monkeypatch.setattr(predictor, "predict", interrupted)
    monkeypatch.setattr(predictor, "_logits", slow)
    with pytest.raises(KeyboardInterrupt):
        label_files(images, predictor, tmp_path, ["mask"], max_pixels=10**6)
    assert next(calls) <= 3  # of 13 rows of windows
