"""What the page shows and gives of a picture: what `segapp predict` writes."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Download, Page, expect

from segapp.base.classes import voc_palette
from segapp.base.images import read_image
from segapp.cli import run_tool
from segapp.data.formats.shapes import SHAPES_CLASSES
from segapp.models.classifier import ClassifierConfig
from segapp.models.encoders.interface import INCEPTION
from segapp.serving.page import SAMPLES, sample
from segapp.weights.checkpoint import CheckpointInfo, save_checkpoint
from tests.browser.conftest import Open
from tests.browser.service.conftest import Array, serving
from tests.browser.service.page import answered, choose, drawn, encoded, hand_over
from tests.browser.test_looks import look
from tests.commands.tools import run_predict
from tests.networks import randomise, small

pytestmark = pytest.mark.browser


def downloaded(page: Page, button: str) -> tuple[str, bytes]:
    with page.expect_download() as info:
        page.get_by_role("button", name=button, exact=True).click()
    download: Download = info.value
    return download.suggested_filename, Path(download.path()).read_bytes()


@pytest.fixture(scope="module")
def predicted(checkpoint: Path, picture: Array, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what `segapp predict` makes of the picture."""
    folder = tmp_path_factory.mktemp("predicted")
    (folder / "img.png").write_bytes(encoded(picture))
    save = "save=[mask,json]"
    assert run_predict(folder / "img.png", f"checkpoint={checkpoint}", f"output={folder / 'out'}", save) == 0
    return folder / "out"


@pytest.fixture(scope="module")
def labels(predicted: Path) -> Array:
    labels = np.array(Image.open(predicted / "masks" / "img.png"))
    assert np.count_nonzero(np.bincount(labels.ravel()) > 100) >= 3
    return labels


def coloured(labels: Array, on: list[int]) -> Array:
    """What the mask's canvas holds: H x W x 4."""
    shown = np.isin(labels, on)[..., None]
    return np.where(shown, np.dstack([voc_palette()[labels], np.full(labels.shape, 255, np.uint8)]), 0)


@pytest.mark.parametrize("way", ["choose", "drop", "paste"])
def test_the_mask_is_that_of_predict_byte_for_byte(
    visit: Open, address: str, picture: Array, predicted: Path, labels: Array, way: str
) -> None:
    page, content = visit(address), encoded(picture)
    choose(page, content) if way == "choose" else hand_over(page, way, content)
    answered(page)
    assert downloaded(page, "Mask") == ("img-mask.png", (predicted / "masks" / "img.png").read_bytes())
    name, text = downloaded(page, "COCO JSON")
    ours, theirs = json.loads(text), json.loads((predicted / "json" / "img.json").read_text())
    assert name == "img-coco.json"
    assert ours.pop("image") == "img.png"
    assert ours == {key: value for key, value in theirs.items() if key != "image"}
    assert (drawn(page, "mask") == coloured(labels, sorted({*np.unique(labels).tolist()} - {0}))).all()
    assert (drawn(page, "picture")[..., :3] == picture).all()


def test_classes_are_switched_and_listed_with_their_shares(
    visit: Open, address: str, picture: Array, labels: Array
) -> None:
    page = visit(address)
    choose(page, encoded(picture))
    answered(page)
    counts = np.bincount(labels.ravel())
    order = [index for index in np.argsort(-counts, kind="stable").tolist() if counts[index]]
    names = [f"{SHAPES_CLASSES[index]} {100 * counts[index] / labels.size:.1f}%" for index in order]
    assert [" ".join(text.split()) for text in page.locator("#list li").all_inner_texts()] == names
    assert page.locator("#list input").evaluate_all("boxes => boxes.map(box => box.checked)") == [
        i != 0 for i in order
    ]
    first = page.get_by_role("checkbox", name=SHAPES_CLASSES[order[1]])
    first.uncheck()
    rest = [index for index in order if index not in (0, order[1])]
    assert (drawn(page, "mask") == coloured(labels, rest)).all()
    page.get_by_role("button", name="none").click()
    assert not drawn(page, "mask").any()
    page.get_by_role("button", name="all").click()
    assert (drawn(page, "mask") == coloured(labels, order)).all()

    page.get_by_label("Opacity").fill("25")
    name, content = downloaded(page, "Overlay")
    expected = picture + 0.25 * (voc_palette()[labels] - picture.astype(float))
    assert name == "img-overlay.png"
    assert np.abs(np.array(Image.open(io.BytesIO(content)).convert("RGB")) - expected).max() <= 2
    assert page.locator("#mask").evaluate("mask => getComputedStyle(mask).opacity") == "0.25"


def test_pointer_and_keys_read_classes_with_their_probabilities(
    visit: Open, address: str, picture: Array, checkpoint: Path, tmp_path: Path
) -> None:
    (tmp_path / "img.png").write_bytes(encoded(picture))
    save = ("save=[probabilities]", f"output={tmp_path / 'out'}")
    assert run_predict(tmp_path / "img.png", f"checkpoint={checkpoint}", *save) == 0
    with np.load(tmp_path / "out" / "probabilities" / "img.npz") as saved:
        probabilities = saved["probabilities"].astype(float)
    page = visit(address)
    choose(page, encoded(picture))
    answered(page)

    def check(text: str, x: int, y: int) -> None:
        match = re.fullmatch(r"(.+), probability (\d\.\d\d),? at (\d+), (\d+)", text)
        assert match is not None, text
        assert (int(match[3]), int(match[4])) == (x, y)
        best = probabilities[:, y, x].max()
        assert probabilities[SHAPES_CLASSES.index(match[1]), y, x] == best
        assert float(match[2]) == pytest.approx(best, abs=0.01)
        assert page.locator("#list li.at").inner_text().startswith(match[1])

    box = page.locator("#shown").bounding_box()
    assert box is not None
    for x, y in ((0, 0), (63, 47), (30, 40)):
        page.mouse.move(box["x"] + (x + 0.5) / 64 * box["width"], box["y"] + (y + 0.5) / 48 * box["height"])
        check(page.locator("#under").inner_text(), x, y)
    page.mouse.move(0, 0)
    expect(page.locator(".spot").last).to_be_hidden()
    page.locator("#shown").focus()
    for key, x, y in (("ArrowLeft", 29, 40), ("ArrowDown", 29, 41), ("Shift+ArrowRight", 30, 41), ("ArrowUp", 30, 40)):
        page.keyboard.press(key)
        check(page.get_by_role("status").inner_text(), x, y)
        check(page.locator("#under").inner_text(), x, y)
    for _ in range(40):
        page.keyboard.press("ArrowDown")
    check(page.get_by_role("status").inner_text(), 30, 47)


@pytest.mark.parametrize(
    ("kind", "orientation"), [("JPEG", 6), ("JPEG", 3), ("WEBP", 2), ("WEBP", 8), ("PNG", 7), ("TIFF", 1), ("GIF", 1)]
)
def test_pictures_stand_as_the_network_saw_them(
    visit: Open, address: str, picture: Array, tmp_path: Path, kind: str, orientation: int
) -> None:
    content = encoded(picture, kind, orientation)
    (tmp_path / "img").write_bytes(content)
    expected = read_image(tmp_path / "img")
    page = visit(address)
    choose(page, content, f"img.{kind.lower()}", f"image/{kind.lower()}")
    answered(page, f"img.{kind.lower()}")
    shown = drawn(page, "picture")[..., :3].astype(int)
    assert shown.shape == expected.shape == (*drawn(page, "mask").shape[:2], 3)
    assert np.abs(shown - expected).mean() < 8
    assert page.locator("#note").is_hidden()


def test_it_tells_which_network_answered_and_how_long_it_took(visit: Open, address: str, picture: Array) -> None:
    page = visit(address)
    with page.expect_response("**/v1/segment*") as response:
        choose(page, encoded(picture))
    answered(page)
    facts: dict[str, Any] = dict(
        page.locator("#how tr").evaluate_all("rows => rows.map(row => [...row.cells].map(cell => cell.innerText))")
    )
    assert facts["Checkpoint"] == "net.safetensors"
    assert facts["Protocol"] == response.value.header_value("X-Segapp-Protocol")
    stages = page.locator("#stages .pair").all_inner_texts()
    assert [stage.split("\n")[0] for stage in stages] == [
        "reading the picture",
        "waiting",
        "the network",
        "writing the answer",
        "there and back",
    ]
    spent = [float(stage.split("\n")[-1].removesuffix(" ms")) for stage in stages]
    assert sum(spent) == pytest.approx(float(facts["Time"].removesuffix(" ms")), abs=5)


def test_a_classifier_shows_its_likeliest_classes(visit: Open, picture: Array, tmp_path: Path) -> None:
    classes = tuple(f"kind {index}" for index in range(7))
    network = ClassifierConfig(encoder=small().encoder)
    model = network.build(len(classes))
    randomise(model)
    info = CheckpointInfo(network=network, classes=classes, normalization=INCEPTION, canvas=65, trained_on=())
    save_checkpoint(tmp_path / "net.safetensors", model, info)
    (tmp_path / "img.png").write_bytes(encoded(picture))
    words = [str(tmp_path / "img.png"), f"checkpoint={tmp_path / 'net.safetensors'}", f"output={tmp_path / 'out'}"]
    assert run_tool("predict", [*words, "device=cpu"]) == 0
    with (tmp_path / "out" / "classes.csv").open() as file:
        rows = list(csv.DictReader(file))
    with serving(tmp_path / "net.safetensors", "inference=trained", "inference.canvas=trained") as address:
        page = visit(address, 390)
        choose(page, encoded(picture))
        answered(page)
        texts = [" ".join(text.split()) for text in page.locator("#list li").all_inner_texts()]
    assert texts == [f"{row['class']} {100 * float(row['probability']):.1f}%" for row in rows]
    expect(page.locator(".segmented:visible")).to_have_count(0)
    assert look(page, "outside") == []


def test_the_samples_are_pictures(address: str) -> None:
    assert len(SAMPLES) == 2
    for name in SAMPLES:
        assert len(sample(name)) <= 80 * 1024
        assert Image.open(io.BytesIO(sample(name))).format == "JPEG"
