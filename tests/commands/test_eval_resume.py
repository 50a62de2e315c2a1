"""The evaluation tool broken off, and how it goes on."""

import json
import os
import signal as signals
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from segapp.base.classes import VOC_CLASSES
from segapp.cli import run_tool
from segapp.data.formats.shapes import make_shapes
from segapp.evaluation import accumulate
from segapp.inference.predictor import Predictor

Capture = pytest.CaptureFixture[str]
Make = Callable[..., Path]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint is written after each batch."""
    monkeypatch.setattr(accumulate, "WRITE_EVERY", 0)
    monkeypatch.setattr(accumulate, "WRITE_FRACTION", 1e9)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Callable[[int | None], list[int]]:
    """Makes networks fail after so many batches; gives the numbers of images that they see."""
    original = Predictor.predict_many

    def broken(after: int | None) -> list[int]:
        seen: list[int] = []

        def predict_many(self: Predictor, images: Any, settings: Any, **options: Any) -> Any:
            if len(seen) == after:
                raise KeyboardInterrupt
            seen.append(len(images))
            return original(self, images, settings, **options)

        monkeypatch.setattr(Predictor, "predict_many", predict_many)
        return seen

    return broken


def run(output: Path, *overrides: str) -> int:
    return run_tool("eval", [f"output={output}", *overrides])


def options(root: Path, checkpoint: Path) -> list[str]:
    return ["data=voc2012", f"data.root={root}", f"checkpoint={checkpoint}", "device=cpu", "workers=0",
            "eval.batch_size=1", "eval.examples=0"]  # fmt: skip


@pytest.mark.slow
def test_the_tool_goes_on(
    shapes_root: Path, make_checkpoint: Make, broken: Callable[[int | None], list[int]], tmp_path: Path,
    capsys: Capture,
) -> None:  # fmt: skip
    given, out = options(shapes_root, make_checkpoint(classes=VOC_CLASSES)), tmp_path / "out"
    assert run(tmp_path / "whole", *given) == 0
    broken(0)
    assert run(out, *given) == 130
    assert not out.exists(), "nothing was counted"
    broken(2)
    assert run(out, *given) == 130
    assert f"what was counted is kept; resume={out} goes on" in capsys.readouterr().err
    assert not (out / "metrics.json").exists()
    seen = broken(None)
    assert run_tool("eval", [f"resume={out}"]) == 0
    assert seen == [1, 1]
    assert "going on after 2 of 4 images" in capsys.readouterr().err
    expected = json.loads((tmp_path / "whole" / "metrics.json").read_text())
    assert json.loads((out / "metrics.json").read_text()) == expected
    assert (out / "per_image.csv").read_bytes() == (tmp_path / "whole" / "per_image.csv").read_bytes()

    seen.clear()
    (out / "against.json").touch()
    assert run_tool("eval", [f"resume={out}", "eval.examples=1"]) == 0
    assert sum(seen) <= 2, "those to show"
    assert (out / "pictures.png").is_file()
    assert run_tool("eval", [f"resume={out}"]) == 0
    assert not (out / "pictures.png").exists(), "of a report that was made anew"
    assert not (out / "against.json").exists()
    seen.clear()
    assert run(out, *given) == 2
    assert f"is the folder of an evaluation; resume={out} goes on with it" in capsys.readouterr().err
    assert not seen
    assert (out / "counts" / "0000000-0.npz").is_file(), "hours of work, for all we know"
    assert run(out, *given, "resume=auto") == 0
    for mistake, words in (
        ("inference.flip=true", "inference.flip is False there and True here"),
        ("eval.detailed=false", "eval.detailed is True there"),
    ):
        assert run(out, *given, "resume=auto", mistake) == 2
        assert words in capsys.readouterr().err
    assert run(out, *given, f"checkpoint={make_checkpoint('b', VOC_CLASSES, seed=1)}", "resume=auto") == 2
    assert "name another output folder" in capsys.readouterr().err
    assert run_tool("eval", [f"resume={out}", "eval.detailed=false"]) == 2
    assert "a resumed run keeps its config" in capsys.readouterr().err
    assert run_tool("eval", [*given, "resume=auto"]) == 2
    assert "resume=auto needs output=DIR" in capsys.readouterr().err


def test_a_changed_label_is_not_reported_from_what_was_counted(
    make_checkpoint: Make, tmp_path: Path, capsys: Capture
) -> None:
    root, out = tmp_path / "data", tmp_path / "out"
    make_shapes(root, train=1, val=3, height=64, width=64, seed=0)
    assert run(out, *options(root, make_checkpoint(classes=VOC_CLASSES))) == 0
    for mask in (root / "SegmentationClass").iterdir():
        os.utime(mask, (0, 0))
    capsys.readouterr()
    assert run_tool("eval", [f"resume={out}"]) == 2
    assert f"has changed since it was scored in {out}; name another output folder" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("signal", ["SIGTERM", "SIGINT"])
def test_signals_say_how_it_goes_on(
    signal: str, shapes_root: Path, make_checkpoint: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    capsys: Capture,
) -> None:  # fmt: skip
    original, seen = Predictor.predict_many, []

    def predict_many(self: Predictor, images: Any, settings: Any, **wanted: Any) -> Any:
        seen.append(len(images))
        if len(seen) == 3:
            os.kill(os.getpid(), getattr(signals, signal))
            time.sleep(5)
        return original(self, images, settings, **wanted)

    monkeypatch.setattr(Predictor, "predict_many", predict_many)
    signals.signal(signals.SIGINT, signals.default_int_handler)  # not ignored, as in the background of a shell
    before = signals.getsignal(signals.SIGTERM)
    given = options(shapes_root, make_checkpoint(classes=VOC_CLASSES))
    assert run(tmp_path / "out", *given) == 128 + getattr(signals, signal)
    assert f"what was counted is kept; resume={tmp_path / 'out'} goes on" in capsys.readouterr().err
    assert signals.getsignal(signals.SIGTERM) == before


def test_folders_of_other_work_are_left_alone(
    shapes_root: Path, make_checkpoint: Make, tmp_path: Path, capsys: Capture
) -> None:
    given, trained = options(shapes_root, make_checkpoint(classes=VOC_CLASSES)), tmp_path / "trained"
    trained.mkdir()
    (trained / "config.yaml").write_text("name: mine")
    (trained / "metrics.jsonl").touch()
    image = next((shapes_root / "JPEGImages").iterdir())
    refused = f"output={trained} is the folder of a training run; name another one"
    assert run(trained, *given) == 2
    assert refused in capsys.readouterr().err
    assert run_tool("predict", [str(image), f"output={trained}", given[2]]) == 2
    assert refused in capsys.readouterr().err
    assert (trained / "config.yaml").read_text() == "name: mine"
    assert run_tool("eval", [f"resume={trained}"]) == 2
    assert f"a training run and no evaluation; checkpoint={trained} scores it" in capsys.readouterr().err
    (trained / "metrics.jsonl").unlink()
    assert run_tool("eval", [f"resume={trained}"]) == 2
    assert "of another tool or version, or damaged" in capsys.readouterr().err
    assert run_tool("eval", [f"resume={tmp_path / 'nowhere'}"]) == 2
    assert "no run to resume there" in capsys.readouterr().err


@pytest.mark.slow
def test_table5_goes_on(
    shapes_root: Path, make_checkpoint: Make, broken: Callable[[int | None], list[int]], tmp_path: Path
) -> None:
    given = [*options(shapes_root, make_checkpoint(classes=VOC_CLASSES)), "table5=true"]
    assert run(tmp_path / "whole", *given) == 0
    broken(6)
    assert run(tmp_path / "out", *given) == 130
    seen = broken(None)
    assert run_tool("eval", [f"resume={tmp_path / 'out'}"]) == 0
    assert seen == [1, 1], "those at output stride 16 are all there"
    assert (tmp_path / "out" / "table5.json").read_bytes() == (tmp_path / "whole" / "table5.json").read_bytes()


def test_a_mended_image_is_scored_after_all(make_checkpoint: Make, tmp_path: Path) -> None:
    root = tmp_path / "data"
    make_shapes(root, train=1, val=3, height=64, width=64, seed=0)
    given = options(root, make_checkpoint(classes=VOC_CLASSES))
    assert run(tmp_path / "whole", *given) == 0
    id = (root / "ImageSets" / "Segmentation" / "val.txt").read_text().split()[1]
    image = root / "JPEGImages" / f"{id}.jpg"
    content = image.read_bytes()
    image.write_bytes(content[:300])
    assert run(tmp_path / "out", *given) == 1
    values = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert (values["images"], values["complete"]) == (2, False)
    image.write_bytes(content)
    assert run_tool("eval", [f"resume={tmp_path / 'out'}"]) == 0
    values = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert values == json.loads((tmp_path / "whole" / "metrics.json").read_text())
