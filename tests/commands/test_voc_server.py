"""The archive for the VOC evaluation server: what is in it, and what is refused."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segapp.api import load
from segapp.base.classes import VOC_CLASSES, voc_palette
from segapp.base.images import write_image
from segapp.base.masks import write_mask
from segapp.cli import run_tool

Make = Callable[..., Path]
Capture = pytest.CaptureFixture[str]

IDS = ("2008_000006", "2008_000011", "2008_000012")
INSIDE = "results/VOC2012/Segmentation/comp6_test_cls"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three test images, of different sizes, without masks."""
    root = tmp_path / "VOC2012"
    for folder in ("JPEGImages", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, id in enumerate(IDS):
        write_image(root / "JPEGImages" / f"{id}.jpg", rng.integers(0, 256, (30 + number, 40, 3), np.uint8))
    (root / "ImageSets/Segmentation/test.txt").write_text("".join(f"{id}\n" for id in IDS))
    return root


@pytest.fixture
def masks(tmp_path: Path, root: Path) -> Path:
    """Sound masks for them, grey and not in VOC's colours."""
    folder = tmp_path / "masks"
    folder.mkdir()
    for number, id in enumerate(IDS):
        Image.fromarray(np.full((30 + number, 40), number * 10, np.uint8)).save(folder / f"{id}.png")
    return folder


def pack(root: Path, output: Path, *overrides: str) -> int:
    fixed = ["device=cpu", "inference.canvas=65", f"data.root={root}", f"output={output}"]
    return run_tool("voc_server", [*fixed, *overrides])


def packed(archive: Path) -> dict[str, Image.Image]:
    with tarfile.open(archive) as tar:
        return {each.name: Image.open(io.BytesIO(tar.extractfile(each).read())) for each in tar}  # type: ignore[union-attr]


@pytest.mark.slow
def test_a_network_labels_packs_and_goes_on(
    root: Path, make_checkpoint: Make, tmp_path: Path, capsys: Capture
) -> None:
    checkpoint, output = make_checkpoint("voc.safetensors", VOC_CLASSES), tmp_path / "out"
    assert pack(root, output, f"checkpoint={checkpoint}") == 0
    assert f"archive  {output / 'results.tgz'}" in capsys.readouterr().out
    first = (output / "results.tgz").read_bytes()
    found = packed(output / "results.tgz")
    assert list(found) == [f"{INSIDE}/{id}.png" for id in IDS]
    predictor = load(checkpoint, device="cpu", canvas=65)
    for id in IDS:
        mask = found[f"{INSIDE}/{id}.png"]
        assert mask.mode == "P"
        assert mask.getpalette() == voc_palette().ravel().tolist()
        assert np.array_equal(np.array(mask), predictor(root / "JPEGImages" / f"{id}.jpg"))

    kept, cut, lost = (output / INSIDE / f"{id}.png" for id in IDS)
    cut.write_bytes(cut.read_bytes()[:50])
    lost.unlink()
    before = kept.stat().st_mtime_ns
    assert pack(root, output, f"checkpoint={checkpoint}") == 0
    assert "1 of 3 masks are there already" in capsys.readouterr().err
    assert kept.stat().st_mtime_ns == before
    assert (output / "results.tgz").read_bytes() == first

    other = make_checkpoint("other.safetensors", VOC_CLASSES, trained_on=("coco",))
    assert pack(root, output, f"checkpoint={other}") == 2
    assert "holds masks of another checkpoint" in capsys.readouterr().err
    assert pack(root, output, f"checkpoint={other}", "competition=comp5") == 0
    assert "these weights were trained on coco, too" in capsys.readouterr().err
    assert next(iter(packed(output / "results.tgz"))).startswith("results/VOC2012/Segmentation/comp5_test_cls/")
    assert pack(root, output, f"checkpoint={other}") == 2, "comp6's masks are still the first checkpoint's"


def test_masks_that_are_there_are_packed(root: Path, masks: Path, make_checkpoint: Make, tmp_path: Path) -> None:
    output = tmp_path / "out"
    assert pack(root, output, f"predictions={masks}") == 0
    found = packed(output / "results.tgz")
    assert [int(np.array(mask).max()) for mask in found.values()] == [0, 10, 20]
    assert {mask.mode for mask in found.values()} == {"P"}
    checkpoint = make_checkpoint("voc.safetensors", VOC_CLASSES)
    assert pack(root, output, f"checkpoint={checkpoint}") == 2, "they are not the network's"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / f"{IDS[1]}.png").unlink(), "2008_000011.png: no such mask"),
        (lambda folder: (folder / "2007_1.png").touch(), "2007_1.png: voc2012 test has no such image; remove it"),
        (lambda folder: (folder / f"{IDS[0]}.png").write_bytes(b"png"), "2008_000006.png: not an image"),
        (
            lambda folder: write_mask(folder / f"{IDS[0]}.png", np.zeros((40, 30), np.uint8), voc_palette()),
            "the mask is 30 x 40, its image 40 x 30",
        ),
        (
            lambda folder: write_mask(folder / f"{IDS[0]}.png", np.full((30, 40), 255, np.uint8), voc_palette()),
            "value 255; the server takes 0 to 20 alone",
        ),
    ],
)
def test_unsound_masks_are_refused(
    root: Path, masks: Path, tmp_path: Path, capsys: Capture, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(masks)
    assert pack(root, tmp_path / "out", f"predictions={masks}") == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("error: ")
    assert message in errors[0]
    assert not (tmp_path / "out").exists(), "nothing is left behind"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["split=tset"], "tset.txt: no such list; there are: test"),
        (["competition=comp7"], "competition=comp7"),
        (["predictions=nowhere"], "nowhere: no such folder of masks"),
        (["checkpoint=net.safetensors"], "knows 7 classes, voc2012 test has 21"),
        (["data=folder"], "data.name=folder: Input should be 'voc2012'"),
    ],
)
def test_mistakes(
    root: Path,
    make_checkpoint: Make,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Capture,
    overrides: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    make_checkpoint()
    assert pack(root, tmp_path / "out", *overrides) == 2
    assert message in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_the_test_list_is_asked_for_by_name(root: Path, tmp_path: Path, capsys: Capture) -> None:
    lists = root / "ImageSets/Segmentation/test.txt"
    lists.write_text("../JPEGImages/2008_000006\n")
    assert pack(root, tmp_path / "out") == 2
    assert "../JPEGImages/2008_000006: no such image" in capsys.readouterr().err
    lists.unlink()
    assert pack(root, tmp_path / "out") == 2
    assert "VOC2012test.tar" in capsys.readouterr().err
