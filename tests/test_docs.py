"""The pages that people read: their links, which the site does not follow outside docs/, and their examples."""

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from segapp.base.errors import UserError
from segapp.data.pairs import Unpaired
from segapp.models.encoders.interface import INCEPTION
from segapp.runs.layout import BEST
from segapp.weights.checkpoint import CheckpointInfo, save_checkpoint
from tests.networks import predictor_of, randomise, small, whole

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "data" / "README.md"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    files = [link for link in links if not link.startswith("https:")]
    assert [file for file in files if not (page.parent / file).exists()] == []


def test_no_paragraph_of_the_readme_is_over_five_lines() -> None:
    text = re.sub(r"```.*?```", "", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.DOTALL)
    paragraphs = [each.strip().splitlines() for each in text.split("\n\n")]
    assert [lines for lines in paragraphs if len(lines) > 5 and not lines[0].startswith("|")] == []


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL)


@torch.inference_mode()
def test_the_encoder_of_its_page() -> None:
    names: dict[str, Any] = {"__name__": "example"}
    exec(blocks("adding-an-encoder.md", "python")[0], names)
    config = names["PlainConfig"].model_validate(yaml.safe_load(blocks("adding-an-encoder.md", "yaml")[0]))
    assert config.is_as_published
    for output_stride in (8, 16, 32):
        encoder = config.model_copy(update={"width": 0.25}).build(output_stride).eval()
        outputs = encoder(torch.zeros(2, 3, 65, 97))
        assert [feature.stride for feature in encoder.features] == [
            min(2**depth, output_stride) for depth in range(1, 6)
        ]
        for output, (channels, stride) in zip(outputs, encoder.features, strict=True):
            assert output.shape == (2, channels, -(-65 // stride), -(-97 // stride))


@pytest.mark.slow
def test_the_runtime_of_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SEGAPP_RUNS", str(tmp_path))
    model = small().build(3)
    randomise(model)
    info = CheckpointInfo(network=small(), classes=("a", "b", "c"), normalization=INCEPTION, trained_on=())
    save_checkpoint(tmp_path / BEST, model, info)
    image = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8)
    Image.fromarray(image).save("img.jpg")
    names: dict[str, Any] = {"__name__": "example"}
    for block in blocks("adding-a-runtime.md", "python"):
        exec(block, names)
    ours = predictor_of(model, info.classes, whole(161))
    assert (names["labels"] == ours("img.jpg")).mean() > 0.999
    assert len(np.unique(names["labels"])) > 1
    images = torch.rand(3, 3, 161, 161).to(memory_format=torch.channels_last)
    assert torch.allclose(names["runtime"](images), ours.runtime(images), atol=1e-4)
    assert names["predictor"].protocol != ours.protocol


def test_the_data_set_of_its_page(tmp_path: Path) -> None:
    names: dict[str, Any] = {"__name__": "example"}
    exec(blocks("adding-a-data-set.md", "python")[0], names)
    values = yaml.safe_load(blocks("adding-a-data-set.md", "yaml")[0])
    config = names["TableConfig"].model_validate(values | {"root": tmp_path})
    with pytest.raises(UserError, match=r"index\.csv: no such table; name its folder with data\.root=DIR"):
        config.dataset("train")
    lines = ["image,mask,split", "a.png,a_.png,train", "b.png,b_.png,val", "c.png,c_.png,val", "d.png,d_.png,val"]
    (tmp_path / "index.csv").write_text("\n".join(lines))
    for name in ("a", "b", "c"):
        Image.new("RGB", (4, 3)).save(tmp_path / f"{name}.png")
    for name in ("a_", "b_", "d_"):
        Image.fromarray(np.array([[0, 1, 255, 0]] * 3, np.uint8)).save(tmp_path / f"{name}.png")
    train = config.dataset("train")
    assert (train.classes, train.background, train.ids[:]) == (("background", "thing"), 0, ["a.png"])
    assert train[0].label is not None
    assert train[0].label[0].tolist() == [0, 1, 255, 0]
    with pytest.raises(UserError, match=r"c\.png \(and 1 more\): no c_\.png"):
        config.dataset("val")
    told: list[Unpaired] = []
    assert config.dataset("val", told.extend).ids[:] == ["b.png"]
    assert [(each.kind, each.file) for each in told] == [("image_without_mask", "c.png"), ("absent_image", "d.png")]


@pytest.mark.slow
def test_the_page_of_what_ails_data_says_what_check_says(tmp_path: Path) -> None:
    specification = importlib.util.spec_from_file_location("data_kinds", ROOT / "docs" / "data_kinds.py")
    assert specification is not None
    assert specification.loader is not None
    data_kinds = importlib.util.module_from_spec(specification)
    sys.modules["data_kinds"] = data_kinds  # where dataclasses look for it
    specification.loader.exec_module(data_kinds)
    page = (ROOT / "docs" / "is-my-data-right.md").read_text(encoding="utf-8")
    for name, case in data_kinds.CASES.items():
        (tmp_path / name).mkdir()
        found, shown = data_kinds.finding(case, tmp_path / name)
        assert data_kinds.words(found) in page, f"{name}: run docs/data_kinds.py"
        assert not shown or f"is-my-data-right/{name}.png" in page
