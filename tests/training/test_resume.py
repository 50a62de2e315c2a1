"""A run that is killed, stopped or out of room goes on to the bits of one that was not."""

import errno
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from segapp.base.errors import UserError
from segapp.cli import run_tool
from segapp.runs.layout import checkpoint_folders
from segapp.runs.metric_logger import MetricLogger
from segapp.training import checkpoints
from segapp.training.checkpoints import newest_checkpoint
from segapp.training.step import TrainStep
from segapp.weights import checkpoint as weight_files
from tests.forked import process
from tests.training.test_training import TINY, weights

RUN = ["iterations=30", "validate_every=8", "save_every=3", "ema=0.9", "optimizer.clip_norm=1"]


def run(data: Path, output: Path, *options: str) -> int:
    """As a user would, with whatever is in `output` continued."""
    arguments = [*TINY, f"data.root={data}", f"output={output}", "resume=auto", *RUN, *options]
    return run_tool("train", arguments)


def records(output: Path) -> list[dict[str, Any]]:
    """The journal, without what differs from run to run: times and speeds."""
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    varying = ("time", "images_per_second", "data_wait", "flop_utilisation")
    return [{name: value for name, value in line.items() if name not in varying} for line in lines]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The data, and the run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("unbroken")
    assert run(folder / "data", folder / "run") == 0
    return folder / "data", folder / "run"


def assert_same(output: Path, expected: Path) -> None:
    assert records(output) == records(expected), "no gap, no double"
    assert [each["iteration"] for each in records(output) if "loss" in each] == list(range(1, 31))
    found, wanted = weights(output), weights(expected)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert (output / "best.safetensors").read_bytes() == (expected / "best.safetensors").read_bytes()
    averaged = checkpoint_folders(output)[-1] / "averaged.safetensors"
    assert averaged.read_bytes() == (expected / "checkpoints" / "0000030" / "averaged.safetensors").read_bytes()
    assert sorted(each.name for each in (output / "checkpoints").iterdir()) == ["0000027", "0000030"]


def _run_silently(data: Path, output: Path) -> None:
    os.environ["TQDM_DISABLE"] = "1"
    sys.exit(run(data, output))


@pytest.mark.slow
def test_killed_ten_times_at_random_it_ends_with_the_same_bits(unbroken: tuple[Path, Path], tmp_path: Path) -> None:
    data, expected = unbroken
    moments = random.Random(0)
    kills, seen = 0, set()
    while kills < 10:
        job = process(_run_silently, data, tmp_path / "run")
        job.start()
        job.join(moments.uniform(0.3, 1.5))
        if job.exitcode is not None:
            break  # done before it could be killed
        job.kill()
        job.join()
        kills += 1
        seen.add(len(losses_if_any(tmp_path / "run")))
    assert kills >= 3
    assert run(data, tmp_path / "run") == 0
    assert_same(tmp_path / "run", expected)


def losses_if_any(output: Path) -> list[str]:
    path = output / "metrics.jsonl"
    return path.read_text().splitlines() if path.exists() else []


class Killed(BaseException):
    pass


@pytest.mark.slow
@pytest.mark.parametrize("where", ["between the journal and the checkpoint", "while the checkpoint is renamed"])
def test_killed_at_the_worst_moments(
    unbroken: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    data, expected = unbroken
    with monkeypatch.context() as patch:
        if where.startswith("between"):
            real = MetricLogger.show

            def show(self: MetricLogger, iteration: int, pictures: Any) -> None:
                real(self, iteration, pictures)
                if iteration == 16:
                    raise Killed

            patch.setattr(MetricLogger, "show", show)
        else:

            def replace(self: Path, target: Path) -> Path:
                if target.name == "0000016":
                    raise Killed
                return real_replace(self, target)

            real_replace = Path.replace
            patch.setattr(Path, "replace", replace)
        with pytest.raises(Killed):
            run(data, tmp_path / "run")
    assert run(data, tmp_path / "run") == 0
    assert_same(tmp_path / "run", expected)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("moment", ["update", "validation"])
def test_a_signal_saves_first(
    unbroken: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    number: signal.Signals,
    status: int,
    moment: str,
) -> None:
    data, expected = unbroken
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        if moment == "update":
            update = TrainStep.__call__

            def call(self: TrainStep, iteration: int, parts: Any) -> None:
                if iteration == 11:
                    os.kill(os.getpid(), number)
                update(self, iteration, parts)

            patch.setattr(TrainStep, "__call__", call)
        else:
            finite, looks = TrainStep.weights_are_finite, list[int]()

            def look(self: TrainStep) -> bool:
                looks.append(number)
                if len(looks) == 7:  # after iterations 3, 6, 8, 9, 12, 15 and 16
                    os.kill(os.getpid(), number)
                return finite(self)

            patch.setattr(TrainStep, "weights_are_finite", look)
        assert run(data, tmp_path / "run") == status
    at = 11 if moment == "update" else 16
    assert f"continues after iteration {at}" in capsys.readouterr().err
    assert newest_iteration(tmp_path / "run") == at
    assert signal.getsignal(number) == before
    assert run(data, tmp_path / "run") == 0
    lines = records(tmp_path / "run")
    assert lines == records(expected)
    found, wanted = weights(tmp_path / "run"), weights(expected)
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def newest_iteration(output: Path) -> int:
    found = newest_checkpoint(output)
    assert found is not None
    return found[1].iteration


@pytest.mark.slow
def test_auto_starts_continues_and_refuses(
    unbroken: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, finished = unbroken
    before = (finished / "metrics.jsonl").read_bytes()
    assert run(data, finished) == 0, "a finished run is scored again"
    assert (finished / "metrics.jsonl").read_bytes() == before
    assert run(data, finished, "optimizer.lr=0.5") == 2
    assert "optimizer.lr is 0.07 there and 0.5 here" in capsys.readouterr().err
    assert run(data, finished, "loss=dice") == 2
    assert "loss.dice is 0.0 there and 1.0 here" in capsys.readouterr().err
    assert run_tool("train", [*TINY, f"output={finished}"]) == 2
    assert "holds files already" in capsys.readouterr().err
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    assert run(data, tmp_path / "mine") == 2
    assert "holds files, but no run" in capsys.readouterr().err
    assert os.listdir(tmp_path / "mine") == ["thesis.txt"]  # noqa: PTH208


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over(
    unbroken: tuple[Path, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    data, expected = unbroken

    def cut(file: Path) -> None:
        file.write_bytes(file.read_bytes()[:-100])

    options = ["iterations=30"]
    stopped_after(data, tmp_path / "stopped", 20)
    for damaged in ("state.pt", "weights.safetensors", "averaged.safetensors"):
        output = tmp_path / damaged
        shutil.copytree(tmp_path / "stopped", output)
        cut(checkpoint_folders(output)[-1] / damaged)
        assert run(data, output, *options) == 0
        assert "0000020: damaged" in capsys.readouterr().err
        assert_same(output, expected)
    output = tmp_path / "all"
    shutil.copytree(tmp_path / "stopped", output)
    for folder in checkpoint_folders(output):
        cut(folder / "state.pt")
    assert run(data, output) == 2
    assert "every checkpoint is damaged" in capsys.readouterr().err


def stopped_after(data: Path, output: Path, iteration: int) -> None:
    update = TrainStep.__call__

    def call(self: TrainStep, now: int, parts: Any) -> None:
        if now == iteration:
            os.kill(os.getpid(), signal.SIGTERM)
        update(self, now, parts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainStep, "__call__", call)
        assert run(data, output) == 143


def test_state_runs_no_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Callable[..., object], tuple[Path]]:
            return Path.touch, (tmp_path / "pwned",)

    (tmp_path / "checkpoints" / "0000003").mkdir(parents=True)
    torch.save({"progress": Evil()}, tmp_path / "checkpoints" / "0000003" / "state.pt")
    with pytest.raises(UserError, match="every checkpoint is damaged"):
        newest_checkpoint(tmp_path)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "at", "kept"), [("state.pt", 16, 15), ("weights.safetensors", 16, 15), ("best.safetensors", 8, 6)]
)
def test_a_full_disk_is_told_and_the_last_checkpoint_stays(
    unbroken: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    file: str,
    at: int,
    kept: int,
) -> None:
    data, expected = unbroken
    with monkeypatch.context() as patch:
        if file == "state.pt":
            save = checkpoints._save

            def full(path: Path, state: Any) -> None:
                if state["progress"]["iteration"] == at:
                    path.write_bytes(b"half")
                    raise OSError(errno.ENOSPC, "No space left on device", str(path))
                save(path, state)

            patch.setattr(checkpoints, "_save", full)
        else:
            write = weight_files.write_weights

            def full_disk(path: Path, tensors: Any, metadata: dict[str, str]) -> None:
                if path.name == file and f'"iteration":{at}' in metadata["segapp"]:
                    path.write_bytes(b"half")
                    path.unlink()
                    raise UserError(f"{path}: cannot be written (No space left on device)")
                write(path, tensors, metadata)

            patch.setattr(checkpoints, "write_weights", full_disk)
        assert run(data, tmp_path / "run") == 2
    told = capsys.readouterr().err
    assert "No space left on device" in told
    assert f"continues after iteration {kept}" in told
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))
    assert run(data, tmp_path / "run") == 0
    assert_same(tmp_path / "run", expected)


@pytest.mark.slow
def test_a_killed_loading_process_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def kill() -> None:
        children = Path(f"/proc/self/task/{threading.main_thread().native_id}/children")
        for _ in range(600):
            time.sleep(0.1)
            found = [int(each) for each in children.read_text().split()]
            workers = [each for each in found if "resource_tracker" not in Path(f"/proc/{each}/cmdline").read_text()]
            if checkpoint_folders(tmp_path / "run") and workers:
                os.kill(workers[-1], signal.SIGKILL)
                return

    if not Path("/proc/self/task").exists():
        pytest.skip("the system does not list a process's children")
    killer = threading.Thread(target=kill)
    killer.start()
    options = ["workers=1", "iterations=3000", "save_every=1", "keep=1"]
    status = run(tmp_path / "data", tmp_path / "run", *options)
    killer.join()
    assert status == 2
    told = capsys.readouterr().err
    assert "a loading process was killed" in told
    assert f"resume={tmp_path / 'run'}" in told
    assert checkpoint_folders(tmp_path / "run")


def test_a_folder_that_cannot_be_written_is_told_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run(tmp_path / "data", tmp_path / "file" / "run") == 2
    assert "cannot write to" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_stopped_at_its_end_is_finished_like_the_unbroken_one(tmp_path: Path) -> None:
    """Statistics that were recomputed are saved, though the iteration was saved before."""
    options = ["iterations=4", "validate_every=null", "recompute_bn=2", "batch_size=4"]
    assert run(tmp_path / "data", tmp_path / "whole", *options) == 0
    update = TrainStep.__call__

    def call(self: TrainStep, now: int, parts: Any) -> None:
        if now == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        update(self, now, parts)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainStep, "__call__", call)
        assert run(tmp_path / "data", tmp_path / "stopped", *options) == 143
    stopped = weights(tmp_path / "stopped")
    assert run(tmp_path / "data", tmp_path / "stopped", *options) == 0
    found, wanted = weights(tmp_path / "stopped"), weights(tmp_path / "whole")
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert any(not torch.equal(stopped[name], wanted[name]) for name in wanted if "running" in name)


def test_leftovers_of_killed_writes_go_and_a_checkpoint_set_aside_comes_back(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / ".0000007").mkdir(parents=True)
    (tmp_path / "checkpoints" / ".0000005-old").mkdir()
    (tmp_path / "checkpoints" / ".0000005-old" / "state.pt").write_bytes(b"damaged")
    (tmp_path / ".0123456789ab.safetensors").write_bytes(b"half")
    with pytest.raises(UserError, match="every checkpoint is damaged"):
        newest_checkpoint(tmp_path)
    assert [each.name for each in (tmp_path / "checkpoints").iterdir()] == ["0000005"]
    assert not (tmp_path / ".0123456789ab.safetensors").exists()
