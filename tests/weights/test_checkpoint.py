"""Checkpoints: round trips, and files from elsewhere that are not to be trusted."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

import segapp
from segapp.base.errors import UserError
from segapp.base.paths import runs_folder
from segapp.data.formats.shapes import SHAPES_CLASSES
from segapp.weights.checkpoint import load_model, read_info, read_weights
from segapp.weights.find import find_checkpoint
from tests.networks import small

Make = Callable[..., Path]


def rewrite(path: Path, change: Callable[[dict[str, Any]], Any] | None = None, tensors: Any = None) -> Path:
    """The checkpoint with its description changed, or with other tensors."""
    with safe_open(path, "pt") as file:
        description = json.loads(file.metadata()["segapp"])
    if change is not None:
        change(description)
    save_file(tensors or load_file(path), path, {"segapp": json.dumps(description)})
    return path


def test_round_trip(make_checkpoint: Make) -> None:
    path = make_checkpoint()
    model, info = load_model(path)
    saved = load_file(path)
    assert model.state_dict().keys() == saved.keys()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())
    assert info.classes == SHAPES_CLASSES
    assert info.network == small()
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_at_another_output_stride(make_checkpoint: Make) -> None:
    model, info = load_model(make_checkpoint(), output_stride=8)
    assert info.network == small(output_stride=8)
    with torch.inference_mode():
        assert model.encoder(torch.zeros(1, 3, 65, 65))[-1].shape[2:] == (9, 9)


def test_library_in_three_lines(make_checkpoint: Make) -> None:
    image = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
    labels = segapp.load(make_checkpoint(), device="cpu")(image)
    assert labels.shape == (50, 70)
    assert labels.dtype == np.uint8
    assert labels.max() < len(SHAPES_CLASSES)
    whole = segapp.load(make_checkpoint(), device="cpu", canvas=None)
    assert whole(image).shape == (50, 70)
    assert whole.classes == SHAPES_CLASSES


def test_import_needs_no_hydra() -> None:
    code = "import sys, segapp; sys.exit('hydra' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_checkpoint_takes(make_checkpoint: Make, tmp_path: Path) -> None:
    path = make_checkpoint("somewhere/best.safetensors")
    assert find_checkpoint(str(path)) == path
    assert find_checkpoint(str(path.parent)) == path
    with pytest.raises(UserError, match="no checkpoint yet under"):
        find_checkpoint("latest")
    old = make_checkpoint("runs/train/a/best.safetensors")
    new = make_checkpoint("runs/train/b/best.safetensors")
    os.utime(old, (1, 1))
    assert tmp_path / "runs" == runs_folder()
    assert find_checkpoint("latest") == new
    with pytest.raises(UserError, match="no such checkpoint"):
        find_checkpoint(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"no best\.safetensors in this folder"):
        find_checkpoint(str(tmp_path))


def huge(path: Path) -> None:
    """A kilobyte that claims a tensor of 10 GB."""
    header = json.dumps({"logits.weight": {"dtype": "F32", "shape": [2500000000], "data_offsets": [0, 10000000000]}})
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.write_text("hello"), "no checkpoint, or a damaged one"),
        (lambda path: path.write_bytes(b""), "no checkpoint, or a damaged one"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "no checkpoint, or a damaged one"),
        (lambda path: path.write_bytes(b"\xff" * 64), "no checkpoint, or a damaged one"),
        (huge, "no checkpoint, or a damaged one"),
        (lambda path: torch.save({"state_dict": {}}, path), "no checkpoint, or a damaged one"),
        (lambda path: save_file(load_file(path), path), "not written by segapp"),
        (lambda path: rewrite(path, lambda d: d.update(classes=["one"])), "1 classes"),
        (lambda path: rewrite(path, lambda d: d["network"].update(builder="os.system")), "description is damaged"),
        (lambda path: rewrite(path, lambda d: d["network"]["encoder"].update(width=1e9)), "description is damaged"),
        (lambda path: rewrite(path, lambda d: d["classes"].append("more")), "another number of classes: logits"),
        (lambda path: rewrite(path, lambda d: d["network"]["encoder"].update(width=4.0)), "another architecture"),
        (
            lambda path: rewrite(path, lambda d: d["network"].update(decoder=None)),
            "another architecture: it also holds",
        ),
        (lambda path: rewrite(path, tensors={"x": torch.zeros(1)}), "another architecture: it lacks"),
    ],
)
def test_files_not_to_be_trusted(make_checkpoint: Make, damage: Callable[[Path], Any], message: str) -> None:
    path = make_checkpoint()
    damage(path)
    with pytest.raises(UserError, match=message) as caught:
        load_model(path)
    assert str(path) in str(caught.value)


def test_a_full_disk_is_one_line_and_leaves_nothing(
    tmp_path: Path, make_checkpoint: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = make_checkpoint()
    before = old.read_bytes()

    def full(tensors: object, path: Path, metadata: object) -> None:
        path.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("segapp.weights.checkpoint.save_file", full)
    with pytest.raises(UserError, match=r"net\.safetensors: cannot be written .*No space left"):
        make_checkpoint()
    assert old.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


def test_weights_for_another_network_name_the_tensor(make_checkpoint: Make) -> None:
    path = make_checkpoint()
    read_info(path)
    with pytest.raises(UserError, match=r"number of classes: logits\.weight is 7x16x1x1, 3x16x1x1 is needed"):
        read_weights(path, small().build(3).state_dict())
