"""Commands of the pages that people read, and of --help: they name tools, keys, choices and values that are.

Each is read by its own tool, up to where it would begin.
"""

import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from segapp.base.classes import voc_palette
from segapp.base.hydra_flags import Shown
from segapp.base.images import write_image
from segapp.base.masks import write_mask
from segapp.base.paths import CONF
from segapp.cli import TOOLS, main

ROOT = CONF.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "data" / "README.md", *sorted(ROOT.glob("docs/*.md"))]

BEGIN = re.compile(r"(?:tools/(?P<script>[a-z_]+)\.py|\bsegapp (?P<tool>[a-z][a-z_]+))(?= |$)(?P<words>.*)")
REMARK = re.compile(r"\s{2,}.*|\s+[#(&].*")
EITHER = re.compile(r"\[([^\]|]*) \| ([^\]]*)\]")

Command = tuple[str, ...]


def commands(text: str) -> Iterator[Command]:
    """Each line's, from the tool's name on; a choice [a | b] makes two."""
    for line in text.splitlines():
        if begun := BEGIN.search(line):
            words = REMARK.sub("", begun["words"])
            for number in (1, 2) if EITHER.search(words) else (0,):
                chosen = EITHER.sub(rf"\{number}", words) if number else words
                yield begun["script"] or begun["tool"], *shlex.split(chosen)


def of_page(page: Path) -> Iterator[Command]:
    """In blocks without a language or of a shell, and in code amid text, where a tool's name alone is no command."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^```(?:bash)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        yield from commands(re.sub(r"\s*\\\n\s*", " ", block))
    paragraphs = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for code in re.findall(r"`([^`]+)`", paragraphs):
        yield from (each for each in commands(" ".join(code.split())) if len(each) > 1)


def every() -> list[Command]:
    found = {each for page in PAGES for each in of_page(page)}
    for tool in TOOLS:
        found |= set(commands(importlib.import_module(f"segapp.commands.{tool}").__doc__ or ""))
    return sorted(found)


@pytest.mark.slow
def test_each_command_is_one_that_its_tool_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder "mine" is as docs/sweeps.md has it. Runs of a sweep are checked each, as before its first."""

    def begin(*_: object) -> NoReturn:
        raise Shown

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("segapp.base.compose.show", begin)
    monkeypatch.setattr("segapp.sweeps.sweep.output_folder", begin)
    for group, text in (("experiment", "# @package _global_\nbatch_size: 3"), ("data", "defaults: [folder]")):
        (tmp_path / "mine" / group).mkdir(parents=True)
        (tmp_path / "mine" / group / "street.yaml").write_text(text)
    wrong = []
    for tool, *words in every():
        if tool == "zoo":
            continue  # it has no config
        goes_on = any(each.startswith("resume=") and each != "resume=auto" for each in words)
        status = main([tool, *words, *([] if "-m" in words else ["--cfg", "job"])])
        said = capsys.readouterr().err
        fine = "takes the config of that run" in said if goes_on else status == 0 and "error" not in said
        if not fine:
            wrong.append(f"{shlex.join([tool, *words])}: {said}")
    assert not wrong, "\n".join(wrong)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"], "nothing was begun"


@pytest.mark.slow
def test_cheap_ones_do_what_the_pages_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    write_image(tmp_path / "img.jpg", random.integers(0, 256, (96, 128, 3), np.uint8))
    for folder in ("images", "masks"):
        (tmp_path / "mine" / folder).mkdir(parents=True)
    for number in range(4):  # as docs/finetune.md has them
        pixels = random.integers(0, 256, (96, 128, 3), np.uint8)
        write_image(tmp_path / "mine" / "images" / f"photo{number}.jpg", pixels)
        write_mask(tmp_path / "mine" / "masks" / f"photo{number}.png", pixels[..., 0] % 3, voc_palette())
    (tmp_path / "mine" / "classes.yaml").write_text("- background\n- cup\n- spoon\n")
    cheap = {
        ("predict", "img.jpg", "checkpoint=embedded"): "1 of 1 images\nmask ",
        ("prepare_data", "check", "data=folder", "data.root=mine"): "audit.html",
        ("zoo", "list"): "Weights of encoders, for encoder_weights=:",
        ("zoo", "show", "xception"): "1610.02357",
    }
    assert cheap.keys() <= set(every())
    for command, said in cheap.items():
        assert main([*command]) == 0, command
        assert said in capsys.readouterr().out
