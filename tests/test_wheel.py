"""The wheel, installed outside the clone: it carries conf/, runs by its console script, and writes where one works."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest

from segapp import __version__
from segapp.base.images import write_image
from segapp.base.paths import CONF
from tests.training.test_training import TINY

pytestmark = [pytest.mark.slow, pytest.mark.skipif(shutil.which("uv") is None, reason="uv builds the wheel")]

CLONE = CONF.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(["uv", "build", "--quiet", "--wheel", "--out-dir", folder, CLONE], check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment's folder of programs: the wheel in its own place, the packages that it needs from this one."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run(["uv", "venv", "--quiet", "--python", sys.executable, folder], check=True)
    programs = folder / ("Scripts" if os.name == "nt" else "bin")
    python = programs / "python"
    subprocess.run(["uv", "pip", "install", "--quiet", "--no-deps", "--python", python, wheel], check=True)
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    own = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    (Path(own) / "needed.pth").write_text(sysconfig.get_paths()["purelib"])
    return programs


def files(folder: Path) -> dict[Path, int]:
    """When each was written, but for what Python compiles."""
    return {
        path: path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_its_content(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    ours = {f"segapp/conf/{path.relative_to(CONF).as_posix()}" for path in CONF.rglob("*.yaml")}
    assert ours <= names
    assert "segapp/py.typed" in names
    assert {"segapp/weights/embedded/mobilenetv2_voc.safetensors", "segapp/weights/embedded/README.md"} <= names
    assert {f"segapp/serving/page/{name}" for name in ("index.html.j2", "page.css", "page.js", "chelsea.jpg")} <= names
    assert wheel.name.startswith(f"segapp-{__version__}-")
    assert not {name for name in names if name.startswith(("tests/", "tools/", "conf/", "docs/"))}


def test_it_trains_predicts_and_evaluates_outside_the_clone(installed: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in ("SEGAPP_RUNS", "PYTHONPATH")}
    before = files(installed.parent)

    def run(*arguments: str, program: str = "segapp") -> subprocess.CompletedProcess[str]:
        command = [str(installed / program), *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    own = tmp_path / "own" / "optimizer"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text("defaults: [sgd]\nmomentum: 0.5\n")
    mine = ("--config-dir", "own", "optimizer=mine")
    trained = run("train", *TINY, "data.root=shapes", "iterations=2", "validate_every=2", *mine)
    assert trained.returncode == 0, trained.stderr
    (folder,) = (tmp_path / "runs" / "train").iterdir()
    assert "next: segment a picture     segapp predict IMAGE checkpoint=" in trained.stdout
    assert "tools/" not in trained.stdout
    assert "momentum: 0.5" in (folder / "config.yaml").read_text()

    write_image(tmp_path / "img.png", np.zeros((40, 50, 3), np.uint8))
    predicted = run("predict", "img.png", f"checkpoint={folder / 'best.safetensors'}", "device=cpu", "runtime=torch")
    assert predicted.returncode == 0, predicted.stderr
    assert len(list((tmp_path / "runs" / "predict").glob("*_img/masks/img.png"))) == 1

    options = [word for word in TINY if word.startswith(("data.", "device", "workers"))]
    evaluated = run(
        "-m",
        "segapp",
        "eval",
        "data=shapes",
        "data.root=shapes",
        *options,
        "checkpoint=latest",
        "runtime=torch",
        program="python",
    )
    assert evaluated.returncode == 0, evaluated.stderr
    assert evaluated.stdout.splitlines()[-1].startswith("mIoU 0.")

    shown = run("train", "--help", "--config-dir", "own")
    assert "  optimizer=adamw|mine|rmsprop|sgd\n" in shown.stdout
    assert "segapp train experiment=demo" in shown.stdout
    assert "tools/" not in shown.stdout
    wrong = run("import_weights")
    assert wrong.stderr.startswith("error: name a source first: segapp import_weights SOURCE output=FILE")
    assert run("--version").stdout == f"{__version__}\n"
    assert run("trian").stderr == "error: trian is no tool of segapp; did you mean train?\n"

    assert {path.name for path in tmp_path.iterdir()} == {"cache", "img.png", "own", "runs", "shapes"}
    assert files(installed.parent) == before, "nothing is written beside the program"
