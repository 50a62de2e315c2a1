"""Predict on many files: lists, a summary, going on where it was broken off, several processes, videos."""

import csv
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

from segapp.base.images import write_image
from segapp.base.masks import read_mask
from segapp.cli import run_tool
from segapp.commands.inputs import find_inputs
from segapp.data.formats.shapes import SHAPES_CLASSES
from segapp.inference.predictor import Predictor
from segapp.inference.saving import output_names
from segapp.inference.summary import read_rows
from tests.commands.tools import PREDICT, run_predict
from tests.forked import run_job, tool_process
from tests.videos import decoded, make_clip

Make = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


def make_photos(folder: Path, number: int) -> Path:
    """Small ones of several sizes."""
    random = np.random.default_rng(0)
    folder.mkdir()
    for at in range(number):
        write_image(folder / f"{at:03}.png", random.integers(0, 256, (20 + at % 3, 30 - at % 2, 3), np.uint8))
    return folder


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for kind in ("masks", "overlays")
        for path in (folder / kind).iterdir()
    }


def summary(folder: Path) -> list[dict[str, str]]:
    with (folder / "summary.csv").open() as file:
        return list(csv.DictReader(file))


def without_seconds(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return [{key: value for key, value in row.items() if not key.endswith("seconds")} for row in rows]


def test_a_summary_tells_of_every_image(make_checkpoint: Make, tmp_path: Path) -> None:
    photos, out = make_photos(tmp_path / "photos", 4), tmp_path / "out"
    (photos / "002.png").write_text("no picture")
    assert run_predict(photos, f"checkpoint={make_checkpoint()}", f"output={out}", "summary=[csv,parquet]") == 1
    rows = summary(out)
    assert [row["name"] for row in rows] == [str(photos / f"{at:03}.png") for at in range(4)]
    for at, row in enumerate(rows):
        shares = [row[f"share {name}"] for name in SHAPES_CLASSES]
        if at == 2:
            assert "not an image" in row["error"]
            assert set(shares) == {row["width"]} == {""}
            continue
        mask = read_mask(out / "masks" / f"{at:03}.png")
        assert (int(row["height"]), int(row["width"])) == mask.shape
        expected = np.bincount(mask.ravel(), minlength=len(SHAPES_CLASSES)) / mask.size
        assert [float(each) for each in shares] == pytest.approx(expected, rel=1e-5)
        assert float(row["compute seconds"]) > 0
        assert row["error"] == ""
    table = pyarrow.parquet.read_table(out / "summary.parquet")
    assert table.column_names == list(rows[0])
    for row, other in zip(rows, table.to_pylist(), strict=True):
        for key, value in other.items():
            assert row[key] == "" if value is None else row[key] == str(value)


def test_broken_off_and_gone_on_with_it_is_what_it_had_been(
    make_checkpoint: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    photos, checkpoint = make_photos(tmp_path / "photos", 9), f"checkpoint={make_checkpoint()}"
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    options = [checkpoint, "batch_size=2"]
    assert run_predict(photos, *options, f"output={whole}") == 0
    predict, calls = Predictor.predict, iter(range(100))

    def interrupted(self: Predictor, *arguments: object, **named: object) -> object:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return predict(self, *arguments, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Predictor, "predict", interrupted)
        assert run_predict(photos, *options, f"output={parts}", "resume=auto") == 130
    assert f"what was done is kept; resume={parts} goes on" in capsys.readouterr().err
    done = {row.at for row in read_rows(parts)}
    assert 0 < len(done) < 9
    journal = next((parts / "progress").glob("0-0.jsonl"))
    journal.write_text(journal.read_text()[:-20])  # as a process leaves it that is killed while it writes
    times = {path: path.stat().st_mtime_ns for path in (parts / "masks").iterdir()}
    shutil.copytree(parts, tmp_path / "other")
    assert run_tool("predict", [f"resume={parts}"]) == 0
    assert "9 of 9 images" in capsys.readouterr().out
    assert files_of(parts) == files_of(whole)
    assert without_seconds(summary(parts)) == without_seconds(summary(whole))
    untouched = [path for path, time in times.items() if path.stat().st_mtime_ns == time]
    assert len(untouched) >= len(done) - 2, "only the last group is done anew"
    assert run_predict(photos, *options, f"output={tmp_path / 'other'}", "resume=auto") == 0
    assert files_of(tmp_path / "other") == files_of(whole)


def test_an_image_that_could_be_read_meanwhile_is_done(make_checkpoint: Make, tmp_path: Path) -> None:
    photos, out = make_photos(tmp_path / "photos", 3), tmp_path / "out"
    good = (photos / "001.png").read_bytes()
    (photos / "001.png").write_bytes(good[:50])
    assert run_predict(photos, f"checkpoint={make_checkpoint()}", f"output={out}") == 1
    (photos / "001.png").write_bytes(good)
    before = (out / "masks" / "000.png").stat().st_mtime_ns
    assert run_tool("predict", [f"resume={out}"]) == 0
    assert [row["error"] for row in summary(out)] == ["", "", ""]
    assert (out / "masks" / "000.png").stat().st_mtime_ns == before


def test_results_do_not_depend_on_the_batch(make_checkpoint: Make, tmp_path: Path) -> None:
    photos, checkpoint = make_photos(tmp_path / "photos", 5), f"checkpoint={make_checkpoint()}"
    for size in (1, 3):
        assert run_predict(photos, checkpoint, f"batch_size={size}", f"output={tmp_path / str(size)}") == 0
    assert files_of(tmp_path / "1") == files_of(tmp_path / "3")


def test_a_list_names_images_and_videos(
    make_checkpoint: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    make_photos(Path("photos"), 2)
    Path("list=.txt").write_text("photos/001.png\n\nnowhere.png\nphotos/000.png\nphotos/001.png\nclip.mp4\n")
    inputs = find_inputs(["@list=.txt", "photos/000.png"])
    assert [*inputs.images] == [Path("photos/001.png"), Path("nowhere.png"), Path("photos/000.png")]
    assert inputs.videos == ["clip.mp4"]
    make_clip(Path("clip.mp4"), times=[0, 100])
    assert run_predict("@list=.txt", f"checkpoint={make_checkpoint()}", "output=out") == 1
    assert "failed: nowhere.png: no such file" in capsys.readouterr().out
    assert sorted(path.name for path in Path("out/masks").iterdir()) == ["000.png", "001.png", "clip.mkv"]


def test_names_of_outputs_are_found_in_time_that_grows_with_their_number() -> None:
    """A thousand folders with the same names: looking for each free number from 2 on would take an hour."""
    names = output_names(Path(f"{folder}/{at}.png") for folder in range(1000) for at in range(100))
    assert len(set(names)) == 100_000
    assert names[:2] == ["0", "1"]
    assert names[-1] == "99-1000"
    assert output_names(map(Path, ("a-2.png", "a.png", "A.png", "a.jpg"))) == ["a-2", "a", "A-3", "a-4"]


@pytest.mark.slow
def test_two_processes_share_a_folder(make_checkpoint: Make, tmp_path: Path) -> None:
    photos, checkpoint = make_photos(tmp_path / "photos", 5), f"checkpoint={make_checkpoint()}"
    (photos / "003.png").write_text("no picture")
    clips = [make_clip(tmp_path / f"{name}.mp4", times=[0, 100]) for name in "ab"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert run_predict(photos, *clips, checkpoint, f"output={one}") == 1
    words = [str(photos), *map(str, clips), checkpoint, *PREDICT, f"output={two}"]
    told = run_job(2, "predict", *words, told=tmp_path / "told", expected=1)
    assert told.count("4 of 5 images") == 1
    assert told.count("failed: ") == 1
    assert files_of(one) == files_of(two)
    assert without_seconds(summary(one)) == without_seconds(summary(two))
    shares = [(two / "progress" / f"0-{rank}.jsonl").read_text().splitlines() for rank in (0, 1)]
    assert [len(each) for each in shares] == [3, 2]


@pytest.mark.slow
def test_killed_and_gone_on_with_it_is_the_same(make_checkpoint: Make, tmp_path: Path) -> None:
    photos, checkpoint = make_photos(tmp_path / "photos", 20), f"checkpoint={make_checkpoint()}"
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run_predict(photos, checkpoint, f"output={whole}") == 0
    job = tool_process("predict", str(photos), checkpoint, *PREDICT, f"output={parts}", told=tmp_path / "told")
    job.start()
    while job.is_alive() and len(list(parts.glob("masks/*.png"))) < 3:
        time.sleep(0.001)
    job.kill()
    job.join()
    assert run_tool("predict", [f"resume={parts}"]) == 0
    assert files_of(parts) == files_of(whole)


def test_videos_lie_beside_images(make_checkpoint: Make, tmp_path: Path, capsys: Capture) -> None:
    """Those in a folder are told of, and named themselves."""
    photos, out = make_photos(tmp_path / "photos", 1), tmp_path / "out"
    make_clip(photos / "000.mp4", times=[0, 100, 200])
    assert run_predict(photos, f"checkpoint={make_checkpoint()}", f"output={out}") == 0
    assert "1 file not read: the ending is that of no picture (1 .mp4)" in capsys.readouterr().err
    assert run_predict(photos, photos / "*.mp4", f"checkpoint={make_checkpoint()}", f"output={out}") == 0
    assert "000.mp4: 3 frames" in capsys.readouterr().out
    assert sorted(path.name for path in (out / "masks").iterdir()) == ["000.mkv", "000.png"]
    assert decoded(out / "overlays" / "000.mp4").times == [0, 100, 200]
    done = (out / "masks" / "000.mkv").stat().st_mtime_ns
    assert run_tool("predict", [f"resume={out}"]) == 0
    assert (out / "masks" / "000.mkv").stat().st_mtime_ns == done


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clips"], "clips: no images in this folder"),
        (["clips/a.mp4", "save=[mask,json]"], "save=json is for images; of a video mask and overlay can be saved"),
        (["clips/a.mp4", "labels=clips"], "labels=clips is for images and one process; leave clips/a.mp4"),
        (["clips/a.mp4", "start=2", "end=1"], "end=1 does not lie behind start=2"),
        (["clips/a.mp4", "every=0"], "every"),
        (["clips/a.mp4", "summary=xlsx"], "xlsx is none of csv, parquet"),
        (["clips/a.mp4", "resume=auto", "output=null"], "resume=auto needs output=DIR"),
        (["@nowhere.txt"], "nowhere.txt: the list of images cannot be read (No such file or directory)"),
        (["resume=clips"], "resume=clips: no run to resume there"),
    ],
)
def test_mistakes_are_told_in_a_line_and_leave_nothing(
    make_checkpoint: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("clips").mkdir()
    Path("clips/a.mp4").write_bytes(b"never read")
    resumes = any(each.startswith("resume=clips") for each in arguments)
    others = [] if resumes else [f"checkpoint={make_checkpoint()}", "output=out", *PREDICT]
    assert run_tool("predict", [*others, *arguments]) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not Path("out").exists()


def test_a_run_of_other_images_is_not_gone_on_with(make_checkpoint: Make, tmp_path: Path, capsys: Capture) -> None:
    photos, out = make_photos(tmp_path / "photos", 2), tmp_path / "out"
    options = [f"checkpoint={make_checkpoint()}", f"output={out}", "resume=auto"]
    assert run_predict(photos / "000.png", *options) == 0
    assert run_predict(photos, *options) == 2
    assert f"output={out} holds a run of other images" in capsys.readouterr().err
    assert run_tool("predict", [f"resume={out}", f"checkpoint={make_checkpoint('b', trained_on=('b',))}"]) == 2
    assert f"{out} was begun with another network" in capsys.readouterr().err
    assert run_tool("predict", [str(photos), f"resume={out}"]) == 2
    assert "knows what it was given; name nothing" in capsys.readouterr().err


def test_videos_that_cannot_be_read_are_told_and_the_rest_is_done(
    make_checkpoint: Make, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(3000))
    clip = make_clip(tmp_path / "clip.mp4", times=[0, 100])
    names = [tmp_path / "noise.mp4", "camera:93", clip, "rtsp://127.0.0.1:9/x?a=b"]
    out = tmp_path / "out"
    assert run_predict(*names, f"checkpoint={make_checkpoint()}", f"output={out}") == 1
    told = capsys.readouterr().out
    assert told.count("failed: ") == 3
    assert [path.name for path in (out / "frames").iterdir()] == ["clip.csv"]
