"""The service's page in a browser: a picture comes in and its classes come back, as `segapp predict` writes them."""

import base64
import csv
import io
import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, Download, Page, Request, Route, expect

from segapp.base.classes import voc_palette
from segapp.base.compose import read_config
from segapp.base.images import EXIF_ORIENTATION, read_image
from segapp.cli import run_tool
from segapp.data.formats.shapes import SHAPES_CLASSES
from segapp.models.classifier import ClassifierConfig
from segapp.models.encoders.interface import INCEPTION
from segapp.weights.checkpoint import CheckpointInfo, save_checkpoint
from tests.browser.conftest import Open
from tests.browser.test_looks import GRAPHICS, TEXT, look
from tests.commands.tools import PREDICT, run_predict
from tests.networks import randomise, small

uvicorn = pytest.importorskip("uvicorn")

from segapp.serving.app import make_app  # noqa: E402
from segapp.serving.config import ServeConfig  # noqa: E402
from segapp.serving.networks import open_network  # noqa: E402
from segapp.serving.page import SAMPLES, sample  # noqa: E402
from segapp.serving.service import Service  # noqa: E402

pytestmark = pytest.mark.browser

Array = npt.NDArray[np.uint8]


@contextmanager
def serving(checkpoint: Path, *overrides: str) -> Iterator[str]:
    """The address of a service in a thread."""
    config = read_config("serve", [f"checkpoint={checkpoint}", "port=0", "device=cpu", *overrides], ServeConfig)
    app = make_app(Service(open_network(config, checkpoint), config), checkpoint.name)
    server = uvicorn.Server(uvicorn.Config(app, port=config.port, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            thread.join(0.01)
            assert thread.is_alive()
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def checkpoint(browser: Browser, picture: Array, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a network that finds all classes in the picture, about as often."""
    model = small().build(len(SHAPES_CLASSES)).eval()
    randomise(model)
    with torch.no_grad():
        logits = model(torch.from_numpy(picture).permute(2, 0, 1)[None] / 127.5 - 1)
        last = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)][-1]
        assert last.bias is not None
        last.weight /= logits.std((0, 2, 3))[:, None, None, None]
        last.bias.sub_(logits.mean((0, 2, 3))).div_(logits.std((0, 2, 3)))
    info = CheckpointInfo(
        network=small(), classes=SHAPES_CLASSES, background=0, normalization=INCEPTION, canvas=65, trained_on=()
    )
    path = tmp_path_factory.mktemp("checkpoint") / "net.safetensors"
    save_checkpoint(path, model, info)
    return path


@pytest.fixture(scope="module")
def address(checkpoint: Path) -> Iterator[str]:
    with serving(checkpoint, "inference.canvas=65") as address:
        yield address


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    """Opens a service's page; fails if it asks for anything from elsewhere, or has an exception or a message but that
    an answer was an error."""
    seen: list[str] = []
    context = browser.new_context(accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(10000)
    expect.set_options(10000)

    def visit(address: str, width: int = 1280, scheme: Literal["light", "dark"] = "light") -> Page:
        def on_request(request: Request) -> None:
            if not request.url.startswith((address, f"blob:{address}", "data:")):
                seen.append(f"asks for {request.url}")

        page.on("request", on_request)
        page.on("console", lambda message: "Failed to load resource" in message.text or seen.append(message.text))
        page.on("pageerror", lambda error: seen.append(f"exception: {error}"))
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        page.goto(address)
        return page

    yield visit
    context.close()
    assert not seen


@pytest.fixture(scope="module")
def picture() -> Array:
    """48 x 64."""
    y, x = np.mgrid[:48, :64]
    areas = np.stack([(x > 32) * 220, (y > 24) * 200, (x + y > 64) * 180], 2)
    return np.clip(areas + np.random.default_rng(0).integers(0, 30, (48, 64, 3)), 0, 255).astype(np.uint8)


def encoded(pixels: Array, kind: str = "PNG", orientation: int = 1) -> bytes:
    file, exif = io.BytesIO(), Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    Image.fromarray(pixels).save(file, kind, exif=exif)
    return file.getvalue()


def choose(page: Page, content: bytes, name: str = "img.png", kind: str = "image/png") -> None:
    page.locator("#file").set_input_files({"name": name, "mimeType": kind, "buffer": content})


def hand_over(page: Page, event: str, content: bytes | None) -> None:
    """Drops or pastes a file, or without content a text."""
    script = """([event, content]) => {
      const data = new DataTransfer();
      if (content === null) data.setData("text/plain", "hello");
      else data.items.add(new File([Uint8Array.from(atob(content), each => each.charCodeAt(0))], "img.png", { type: "image/png" }));
      const more = { bubbles: true, cancelable: true };
      document.body.dispatchEvent(event === "drop"
        ? new DragEvent("drop", { dataTransfer: data, ...more }) : new ClipboardEvent("paste", { clipboardData: data, ...more }));
    }"""
    page.evaluate(script, [event, None if content is None else base64.b64encode(content).decode()])


def answered(page: Page, name: str = "img.png") -> None:
    expect(page.locator("#how")).to_contain_text(f"{name}, ")


def drawn(page: Page, canvas: str) -> Array:
    """H x W x 4."""
    url: str = page.evaluate(f"document.querySelector('#{canvas}').toDataURL()")
    return np.array(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGBA"))


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
    assert np.count_nonzero(np.bincount(labels.ravel()) > 100) >= 4
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
    assert page.locator("#list input").evaluate_all("boxes => boxes.map(box => box.checked)") == [i != 0 for i in order]
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


def test_views(visit: Open, address: str, picture: Array) -> None:
    page = visit(address)
    choose(page, encoded(picture))
    answered(page)
    clip = "getComputedStyle(document.querySelector('#mask')).clipPath"
    assert page.evaluate(clip) == "none"
    assert not page.locator("#plain").is_visible()
    page.get_by_role("radio", name="Wipe").check()
    page.get_by_role("slider", name="Wipe").fill("30")
    assert "30%" in page.evaluate(clip)
    box = page.locator("#shown").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.5 * box["width"], box["y"] + 50)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], box["y"] + 60)
    page.mouse.up()
    assert page.get_by_role("slider", name="Wipe").input_value() == "80"
    page.get_by_role("radio", name="Side by side").check()
    assert page.evaluate(clip) == "none"
    left, right = page.locator("#plain").bounding_box(), page.locator("#shown").bounding_box()
    assert left is not None
    assert right is not None
    assert left["x"] + left["width"] < right["x"]
    assert left["height"] == pytest.approx(right["height"], abs=1)


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


def test_all_is_reached_by_keys_in_order(visit: Open, address: str) -> None:
    page = visit(address)
    focus = "document.activeElement.id || document.activeElement.dataset.name || document.activeElement.type || ''"
    page.keyboard.press("Tab")
    assert page.evaluate(focus) == "choose"
    for name in sorted(SAMPLES, reverse=True):
        page.keyboard.press("Tab")
        assert page.evaluate(focus) == name
    page.keyboard.press("Enter")
    answered(page, "astronaut.jpg")
    order = []
    for _ in range(20):
        page.keyboard.press("Tab")
        if not (reached := page.evaluate(focus)):
            break
        assert page.evaluate("getComputedStyle(document.activeElement.closest('.choice') ?? document.activeElement).outlineStyle") != "none"
        if reached not in order[-1:]:
            order.append(reached)
    assert order == ["radio", "opacity", "shown", "on", "off", "checkbox", "mask-file", "overlay-file", "coco-file"]
    page.get_by_role("checkbox").first.focus()
    before = page.get_by_role("checkbox").first.is_checked()
    page.keyboard.press("Space")
    assert page.get_by_role("checkbox").first.is_checked() != before


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


@pytest.mark.parametrize("width", [1280, 390, 320])
def test_it_fits_its_width(visit: Open, address: str, picture: Array, width: int) -> None:
    page = visit(address, width)
    for view in (None, "over", "wipe", "side"):
        if view == "over":
            choose(page, encoded(picture), 5 * "unbroken_" + ".png")
            answered(page, 5 * "unbroken_" + ".png")
        if view:
            page.locator(f"[value={view}]").check()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert look(page, "scrollingSideways") == []
        assert look(page, "outside") == []
        assert look(page, "overlapping") == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out(visit: Open, address: str, picture: Array, scheme: Literal["light", "dark"]) -> None:
    page = visit(address, scheme=scheme)
    hand_over(page, "paste", None)
    expect(page.locator("#problem p")).to_have_text("There is no picture in what was pasted.")
    assert look(page, "faintTexts", TEXT) == {}
    choose(page, encoded(picture))
    answered(page)
    page.locator("#shown").focus()
    page.keyboard.press("ArrowUp")
    assert look(page, "faintTexts", TEXT) == {}
    paper = look(page, "luminance", "[getComputedStyle(document.body).backgroundColor]")
    assert paper < 0.05 if scheme == "dark" else paper > 0.8
    line = "getComputedStyle(document.querySelector('#input')).borderTopColor"
    assert look(page, "contrast", "document.querySelector('#input')", line) >= GRAPHICS


def test_what_is_no_picture_is_refused_in_a_sentence(visit: Open, address: str, picture: Array) -> None:
    page, alert, content = visit(address), "[role=alert]", encoded(picture)
    for event, told in (("drop", "What was dropped is no file"), ("paste", "There is no picture")):
        hand_over(page, event, None)
        expect(page.locator(alert)).to_contain_text(told)
    choose(page, b"hello", "<b>text</b>.jpg", "image/jpeg")
    expect(page.locator(alert)).to_contain_text("not an image")
    assert not page.locator("#result").is_visible()
    choose(page, content)
    answered(page)
    assert not page.locator("#problem").is_visible()
    choose(page, content[: len(content) // 2], "half.png")
    expect(page.locator("#problem")).to_be_visible()
    assert not page.locator("#result").is_visible()
    assert page.locator("#problem p b").count() == 0


def test_a_picture_of_too_many_bytes_is_not_sent(visit: Open, checkpoint: Path, picture: Array) -> None:
    with serving(checkpoint, "inference.canvas=65", "limits.bytes=100") as address:
        page, sent = visit(address), []
        page.on("request", lambda request: sent.append(request.url))
        choose(page, encoded(picture))
        expect(page.get_by_role("alert")).to_contain_text("more than the 100 that this service takes")
        assert not [url for url in sent if "segment" in url]


def test_a_service_that_goes_away_and_comes_back(visit: Open, checkpoint: Path, picture: Array) -> None:
    with serving(checkpoint, "inference.canvas=65") as address:
        page = visit(address)
        expect(page.locator("#network")).to_contain_text("net.safetensors")
    choose(page, encoded(picture))
    expect(page.get_by_role("alert")).to_contain_text("The service does not answer.")
    assert not page.locator("#result").is_visible()
    port = address.rpartition(":")[2]
    with serving(checkpoint, "inference.canvas=65", f"port={port}"):
        page.get_by_role("button", name="Try again").click()
        answered(page)
        assert not page.locator("#problem").is_visible()


def test_a_second_picture_ends_the_request_for_the_first(visit: Open, address: str, picture: Array) -> None:
    page = visit(address)
    held: list[Route] = []
    ended: list[str | None] = []

    def hold(route: Route) -> None:
        held.append(route) if not held else route.continue_()

    page.route("**/v1/segment*", hold)
    page.on("requestfailed", lambda request: ended.append(request.failure))
    choose(page, encoded(picture), "first.png")
    expect(page.locator("#busy")).to_be_visible()
    page.wait_for_function("document.querySelector('#result').ariaBusy === 'true'")
    choose(page, encoded(picture[:, ::-1]), "second.png")
    answered(page, "second.png")
    assert len(held) == 1
    assert ended == ["net::ERR_ABORTED"]
    assert not page.locator("#busy").is_visible()
    assert not page.locator("#problem").is_visible()


def test_a_token_is_asked_for_where_one_is_needed(visit: Open, checkpoint: Path, picture: Array) -> None:
    with serving(checkpoint, "inference.canvas=65", "token=open.sesame") as address:
        page = visit(address)
        field = page.get_by_label("This service asks for a token")
        expect(field).to_be_visible()
        choose(page, encoded(picture))
        expect(page.get_by_role("alert")).to_contain_text("token")
        field.fill("another")
        page.get_by_role("button", name="Use it").click()
        expect(field).to_be_focused()
        field.fill(" open.sesame ")
        page.keyboard.press("Enter")
        answered(page)
        assert not field.is_visible()
        assert not page.locator("#problem").is_visible()


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
        "to and fro",
    ]
    spent = [float(stage.split("\n")[-1].removesuffix(" ms")) for stage in stages]
    assert sum(spent) == pytest.approx(float(facts["Time"].removesuffix(" ms")), abs=5)


def test_a_classifier_shows_its_likeliest_classes(visit: Open, browser: Browser, picture: Array, tmp_path: Path) -> None:
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
    with serving(tmp_path / "net.safetensors") as address:
        page = visit(address, 390)
        choose(page, encoded(picture))
        answered(page)
        texts = [" ".join(text.split()) for text in page.locator("#list li").all_inner_texts()]
    assert texts == [f"{row['class']} {100 * float(row['probability']):.1f}%" for row in rows]
    assert not page.locator("#downloads").is_visible()
    assert not page.locator("#view").is_visible()
    assert look(page, "outside") == []


def test_the_samples_are_pictures(address: str) -> None:
    assert len(SAMPLES) == 2
    for name in SAMPLES:
        assert len(sample(name)) <= 80 * 1024
        assert Image.open(io.BytesIO(sample(name))).format == "JPEG"
