"""Published weights by name: fetched once, converted, found again; and what training starts from."""

import dataclasses
import http.server
import logging
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from segapp.base import download
from segapp.base.cache import cache_folder
from segapp.base.classes import VOC_CLASSES
from segapp.base.compose import read_config
from segapp.base.errors import UserError
from segapp.cli import run_tool
from segapp.data.checks.splits import overlapping
from segapp.data.formats.shapes import SHAPES_CLASSES
from segapp.models.classifier import ClassifierConfig
from segapp.models.encoders.interface import INCEPTION
from segapp.models.encoders.mobilenet_v2 import MobileNetV2Config
from segapp.models.layers import resize
from segapp.training.config import TrainConfig
from segapp.training.trainer import train
from segapp.weights.checkpoint import (
    CheckpointInfo,
    load_model,
    read_info,
    read_network_info,
    start_encoder_from,
    start_from,
    write_weights,
)
from segapp.weights.find import CONVERTER, find_checkpoint, find_encoder, find_weights
from segapp.weights.zoo import ZOO
from tests.bundles import write_bundle
from tests.networks import config, small
from tests.tensorflow.weights import classifier_variables
from tests.training.test_training import TINY
from tests.weights.test_import import archive, bundle_members, fast

NAME = "xception41_imagenet"
Make = Callable[..., Path]


class Counting(http.server.SimpleHTTPRequestHandler):
    requests: list[str]

    def do_GET(self) -> None:
        self.requests.append(self.path)
        super().do_GET()

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive of the ImageNet weights of Xception-41, as published. Read only."""
    folder = tmp_path_factory.mktemp("served")
    write_bundle(folder / "x", classifier_variables("xception_41"), fast)
    path = archive(folder / "xception_41_2018_05_09.tar.gz", *bundle_members(folder / "x", "xception_41/model.ckpt"))
    for made in folder.glob("x.*"):
        made.unlink()
    return path


@pytest.fixture
def requests(served: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What was asked of a server on this machine, to which the catalogue points."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSES", (0.0,))
    asked: list[str] = []
    handler = type("Handler", (Counting,), {"requests": asked})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(served.parent)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    url = f"http://127.0.0.1:{server.server_port}/{served.name}"
    monkeypatch.setitem(ZOO, NAME, dataclasses.replace(ZOO[NAME], url=url, megabytes=1))
    yield asked
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.mark.network
def test_a_name_is_fetched_once_and_converted(requests: list[str], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        path = find_weights(NAME)
    info = read_info(path)
    assert isinstance(info, CheckpointInfo)
    assert (info.network.encoder.name, info.trained_on) == ("xception41", ("imagenet",))
    assert info.source is not None
    assert info.source.address == ZOO[NAME].url
    assert info.source.sha256 in caplog.text, "the checksum of a file first seen is told"
    assert len(requests) == 1
    assert find_weights(NAME, offline=True) == path
    assert len(requests) == 1
    left = {each.name for each in cache_folder().rglob("*") if each.is_file() and each.suffix != ".lock"}
    assert left == {f"{NAME}.safetensors", "checksums.json"}, "neither the archive nor anything unpacked"


@pytest.mark.network
def test_two_at_once_fetch_once(requests: list[str], caplog: pytest.LogCaptureFixture) -> None:
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(find_weights(NAME))) for _ in range(2)]
    with caplog.at_level(logging.INFO):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(found) == 2
    assert len(requests) == 1
    assert f"another process is preparing {NAME}; waiting" in caplog.text


@pytest.mark.slow
def test_a_file_put_by_hand_is_taken_and_stays(served: Path) -> None:
    """The address in the catalogue is not asked: offline."""
    with pytest.raises(UserError) as caught:
        find_weights(NAME, offline=True)
    message = str(caught.value)
    place = cache_folder() / "downloads" / NAME / served.name
    for part in ("offline=true", ZOO[NAME].url, str(place), "encoder_weights=null"):
        assert part in message
    place.parent.mkdir(parents=True)
    place.write_bytes(served.read_bytes())
    find_weights(NAME, offline=True)
    assert place.exists()


def test_no_network_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSES", ())
    name = "xception65_voc_coco_trainaug"
    entry = dataclasses.replace(ZOO[name], url="http://127.0.0.1:9/voc.tar.gz")
    monkeypatch.setitem(ZOO, name, entry)
    assert run_tool("import_weights", [name]) == 2
    (error,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    for part in ("http://127.0.0.1:9/voc.tar.gz", str(cache_folder() / "downloads" / name), "checkpoint=latest"):
        assert part in error


@pytest.mark.network
def test_a_damaged_archive_leaves_nothing_that_would_be_taken(
    requests: list[str], served: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    place = cache_folder() / "downloads" / NAME / served.name
    place.parent.mkdir(parents=True)
    place.write_bytes(served.read_bytes()[:100_000])
    with pytest.raises(UserError, match="xception_41_2018_05_09.tar.gz"):
        find_weights(NAME)
    assert not (cache_folder() / f"weights-{CONVERTER}" / f"{NAME}.safetensors").exists()
    place.unlink()
    find_weights(NAME)


@pytest.mark.network
def test_what_a_killed_process_left_is_cleared(requests: list[str]) -> None:
    left = cache_folder() / f"weights-{CONVERTER}" / f"{NAME}.unpacking" / "x"
    left.parent.mkdir(parents=True)
    left.write_text("half")
    find_weights(NAME)
    assert not left.parent.exists()


@pytest.mark.network
def test_a_damaged_file_in_the_cache_is_made_anew(requests: list[str], caplog: pytest.LogCaptureFixture) -> None:
    path = find_weights(NAME)
    content = path.read_bytes()
    path.write_bytes(content[:1000])
    assert find_weights(NAME) == path
    assert path.read_bytes() == content
    assert "it is made anew" in caplog.text


@pytest.mark.network
def test_a_bad_first_download_does_not_stand_in_the_way(
    requests: list[str], served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As from a proxy that gives something else under the file's name: nothing of it is trusted."""
    good = served.read_bytes()
    served.write_bytes(good[:-20_000])
    try:
        with pytest.raises(UserError, match="damaged one"):
            find_weights(NAME)
    finally:
        served.write_bytes(good)
    (cache_folder() / "downloads" / NAME / served.name).unlink()
    assert isinstance(read_info(find_weights(NAME)), CheckpointInfo)


@pytest.mark.network
def test_what_cannot_fit_is_told_before_a_download(requests: list[str]) -> None:
    with pytest.raises(UserError, match=r"is an encoder alone; .* encoder_weights=xception41_imagenet"):
        find_checkpoint(NAME)
    for encoder in (small().encoder, config().encoder):
        with pytest.raises(UserError, match=r"is not for xception\d\d of width"):
            find_encoder(NAME, encoder)
    with pytest.raises(UserError, match="xception41_imagenet is not for xception41 of width"):
        find_encoder("auto", small().encoder)
    assert not requests
    fits = config(encoder__name="xception41").encoder
    assert find_encoder(NAME, fits) == find_encoder("auto", fits)


def test_weights_are_of_the_encoder_they_name_not_of_one_whose_name_begins_alike() -> None:
    """An encoder named "xceptio" would take xception65's by its first letters."""
    for name in ("xceptio", "xception6", "xception655"):
        other = config().encoder.model_copy(update={"name": name})
        with pytest.raises(UserError, match=f"xception65_imagenet is not for {name} of width 1"):
            find_encoder("xception65_imagenet", other)
        with pytest.raises(UserError, match=f"none are published for {name}"):
            find_encoder("auto", other)
    mobilenet = MobileNetV2Config(name="mobilenet_v2")
    with pytest.raises(UserError, match="none are published for mobilenet_v2; null starts from scratch"):
        find_encoder("auto", mobilenet)
    with pytest.raises(UserError, match="xception65_imagenet is not for mobilenet_v2 of width 1"):
        find_encoder("xception65_imagenet", mobilenet)


def encoder_file(path: Path) -> Path:
    """A narrow encoder's weights, all of them 0.5."""
    encoder = small().encoder.build(32)
    weights = {name: torch.full_like(tensor, 0.5) for name, tensor in encoder.state_dict().items()}
    network = ClassifierConfig(encoder=small().encoder)
    info = CheckpointInfo(network=network, classes=(), normalization=INCEPTION, trained_on=("imagenet",))
    write_weights(path, weights, info.as_metadata())
    return path


def test_an_encoder_starts_from_an_encoder_or_a_network(make_checkpoint: Make, tmp_path: Path) -> None:
    encoder = small().encoder.build(32)
    start_encoder_from(encoder_file(tmp_path / "encoder.safetensors"), encoder)
    assert all((tensor == 0.5).all() for tensor in encoder.state_dict().values() if tensor.is_floating_point())
    network = make_checkpoint()
    start_encoder_from(network, encoder)
    saved = load_file(network)
    assert all(torch.equal(saved[f"encoder.{name}"], tensor) for name, tensor in encoder.state_dict().items())


def test_another_encoder_is_refused(tmp_path: Path) -> None:
    path = encoder_file(tmp_path / "encoder.safetensors")
    wide = small(encoder__width=0.25).encoder.build(32)
    wrong = r"stem\.1\.conv\.weight is 8x8x3x3, .*of width 0\.125; .*encoder_weights .*null"
    with pytest.raises(UserError, match=wrong):
        start_encoder_from(path, wide)
    longer = small(encoder__name="xception65").encoder.build(32)
    with pytest.raises(UserError, match=r"lacks blocks\.13\."):
        start_encoder_from(path, longer)


def test_other_classes_get_a_new_logits_layer_and_all_else_is_loaded(make_checkpoint: Make) -> None:
    path = make_checkpoint()
    saved = load_file(path)
    model = small().build(3)
    before = model.logits.weight.clone()
    info, remark = start_from(path, model, ("background", "cat", "dog"))
    assert info.classes == SHAPES_CLASSES
    assert remark is not None
    assert "for 7 classes there, is initialised anew for 3 classes" in remark
    assert torch.equal(model.logits.weight, before)
    for name, tensor in model.state_dict().items():
        assert name.startswith("logits.") or torch.equal(tensor, saved[name]), name

    model = small().build(7)
    assert start_from(path, model, SHAPES_CLASSES)[1] is None
    assert torch.equal(model.logits.weight, saved["logits.weight"])
    remark = start_from(path, model, ("other", *SHAPES_CLASSES[1:]))[1]
    assert remark is not None
    assert "class names differ" in remark


@pytest.mark.parametrize("separable", [True, False])
def test_a_network_without_a_decoder_computes_what_it_did_with_one(make_checkpoint: Make, separable: bool) -> None:
    path = make_checkpoint(network=small(decoder=None))
    plain, _ = load_model(path)
    model = small(decoder__separable=separable).build(7)
    assert start_from(path, model, SHAPES_CLASSES)[1] == "the decoder, missing there, starts as the identity"
    images = torch.randn(2, 3, 65, 49)
    with torch.no_grad():
        found, expected = model.eval()(images), resize(plain(images), (17, 13))
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5 * expected.abs().max().item())

    loss = model(images).square().mean()
    loss.backward()
    assert model.decoder is not None
    assert all(each.grad is not None for each in model.decoder.parameters())
    fewer = small().build(3)
    remark = start_from(path, fewer, ("background", "cat", "dog"))[1]
    assert remark is not None
    assert "starts as the identity; the logits layer, for 7 classes there, is initialised anew" in remark
    with pytest.raises(UserError, match=r"model\.decoder\.channels=24.*model\.aspp\.channels=16"):
        start_from(path, small(decoder__channels=24).build(7), SHAPES_CLASSES)


def test_all_but_the_logits_stays_strict(make_checkpoint: Make) -> None:
    with pytest.raises(UserError, match=r"decoder.*16.*is needed"):
        start_from(make_checkpoint(), small(decoder__channels=24).build(3), ("a", "b", "c"))
    with pytest.raises(UserError, match="also holds decoder"):
        start_from(make_checkpoint(), small(decoder=None).build(3), ("a", "b", "c"))


def run(tmp_path: Path, *more: str) -> Path:
    output = tmp_path / "run"
    output.mkdir()
    overrides = [*TINY, f"data.root={tmp_path / 'data'}", "iterations=1", "validate_every=1", *more]
    train(read_config("train", overrides, TrainConfig), output)
    return output


@pytest.mark.slow
def test_training_starts_from_an_encoder_and_says_so(tmp_path: Path) -> None:
    path = encoder_file(tmp_path / "encoder.safetensors")
    output = run(tmp_path, f"encoder_weights={path}", "optimizer.lr=1e-30", "bn_momentum=1e-9")
    assert f"starting from {path}: encoder xception41 trained on imagenet" in (output / "log.txt").read_text()
    info = read_network_info(output / "best.safetensors")
    assert info.trained_on == ("imagenet", "shapes train"), "oldest first"
    assert "weights" not in info.network.encoder.model_dump(), "a choice of training, not of the network"
    weights = load_file(output / "best.safetensors")
    assert (weights["encoder.stem.0.conv.weight"] - 0.5).abs().max() < 1e-6


@pytest.mark.slow
def test_a_whole_network_goes_before_the_encoders_weights(make_checkpoint: Make, tmp_path: Path) -> None:
    """So the default encoder is not fetched when training starts from a checkpoint."""
    path = make_checkpoint(classes=("a", "b", "c"))
    output = run(
        tmp_path,
        f"checkpoint={path}",
        "model.decoder.low_level_channels=8",
        "encoder_weights=xception41_imagenet",
        "offline=true",
    )
    log = (output / "log.txt").read_text()
    assert f"starting from {path}" in log
    assert "is initialised anew for 7 classes" in log


@pytest.mark.slow
def test_from_scratch_is_said(tmp_path: Path) -> None:
    assert "starting from scratch" in (run(tmp_path) / "log.txt").read_text()


@pytest.mark.parametrize(
    ("split", "seen", "shared"),
    [
        ("voc2012 val", ["imagenet", "coco", "voc2012 trainaug"], []),
        ("voc2012 val", ["imagenet", "voc2012 trainaug", "voc2012 trainval"], ["voc2012 trainval"]),
        ("voc2012 train", ["voc2012 trainaug"], ["voc2012 trainaug"]),
        ("voc2012 trainaug", ["voc2012 trainval"], ["voc2012 trainval"]),
        ("coco val", ["imagenet", "coco", "voc2012 trainaug"], ["coco"]),
        ("coco train", ["coco"], ["coco"]),
        ("coco val", ["imagenet", "coco train"], []),
        ("mine val", ["mine train"], []),
        ("mine val", ["mine val"], ["mine val"]),
    ],
)
def test_splits_that_share_images(split: str, seen: list[str], shared: list[str]) -> None:
    assert overlapping(split, seen) == shared


def test_eval_warns_of_a_split_that_was_trained_on(
    shapes_root: Path, make_checkpoint: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["data=voc2012", f"data.root={shapes_root}", "device=cpu", "workers=0", "eval.examples=0"]
    warning = "these weights were trained on voc2012 trainval: their figures on voc2012 val say little"
    for splits, warns in ((("voc2012 trainval",), True), (("voc2012 trainaug",), False)):
        path = make_checkpoint(f"{warns}.safetensors", VOC_CLASSES, splits)
        assert run_tool("eval", [*options, f"checkpoint={path}"]) == 0
        assert (warning in capsys.readouterr().err) == warns
