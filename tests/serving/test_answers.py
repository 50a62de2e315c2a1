"""What is answered is what predict writes."""

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from fastapi.testclient import TestClient
from PIL import Image

from segapp.base.classes import voc_palette
from segapp.base.images import read_image
from segapp.cli import run_tool
from segapp.data.formats.shapes import SHAPES_CLASSES
from segapp.serving.answers import format_of
from segapp.serving.app import make_app
from tests.serving.conftest import Open
from tests.serving.hostile import picture

FOLDERS = {"mask": "masks", "overlay": "overlays", "coco": "json", "probabilities": "probabilities"}


def predicted(checkpoint: Path, folder: Path, image: bytes, *overrides: str) -> dict[str, Path]:
    """The files that predict writes, by what a request calls them."""
    (folder / "image").write_bytes(image)
    words = [
        f"checkpoint={checkpoint}",
        "device=cpu",
        "save=[mask,overlay,json,probabilities]",
        f"output={folder}/out",
    ]
    assert run_tool("predict", [str(folder / "image"), *words, *overrides]) == 0
    return {name: next((folder / "out" / each).iterdir()) for name, each in FOLDERS.items()}


def turned_jpeg() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture("JPEG", exif=exif)


@pytest.mark.parametrize(
    "image",
    [picture("JPEG"), turned_jpeg(), picture("PNG", 1, 1), picture("WEBP", 200, 20)],
    ids=["JPEG", "turned", "a pixel", "larger than the canvas"],
)
def test_files_are_those_of_predict(client: TestClient, checkpoint: Path, tmp_path: Path, image: bytes) -> None:
    files = predicted(checkpoint, tmp_path, image)
    for name in ("mask", "overlay"):
        answer = client.post("/v1/segment", params={"format": name}, content=image)
        assert answer.content == files[name].read_bytes()
    assert answer.headers["content-type"] == "image/jpeg"
    coco = client.post("/v1/segment?format=coco", files={"image": ("a.jpg", image)}).json()
    assert coco == json.loads(files["coco"].read_text()) | {"image": "a.jpg"}
    answer = client.post("/v1/segment?format=probabilities", content=image)
    with np.load(io.BytesIO(answer.content)) as ours, np.load(files["probabilities"]) as theirs:
        assert ours["probabilities"].tobytes() == theirs["probabilities"].tobytes()
        assert ours["classes"].tolist() == list(SHAPES_CLASSES)


def test_a_form_and_a_body_are_answered_alike(client: TestClient) -> None:
    image = picture("JPEG")
    as_body = client.post("/v1/segment", content=image, headers={"Content-Type": "image/jpeg"})
    as_form = client.post("/v1/segment", files={"image": ("a.jpg", image)}, data={"more": "text"})
    in_pieces = client.post("/v1/segment", content=(image[at : at + 1000] for at in range(0, len(image), 1000)))
    assert as_body.content == as_form.content == in_pieces.content
    assert as_body.headers["content-type"] == "image/png"
    assert as_body.headers["x-segapp-protocol"] == client.get("/v1/model").json()["protocol"]
    stages = [each.partition(";")[0] for each in as_body.headers["server-timing"].split(", ")]
    assert stages == ["decode", "wait", "network", "encode"]


def test_all_at_once(client: TestClient) -> None:
    image = picture("PNG", 60, 50)
    answer = client.post("/v1/segment?format=all", content=image).json()
    mask = client.post("/v1/segment", content=image).content
    assert base64.b64decode(answer["mask"]) == mask
    labels = np.array(Image.open(io.BytesIO(mask)))
    assert (answer["width"], answer["height"]) == (60, 50) == labels.shape[::-1]
    assert {each["index"]: each["share"] for each in answer["classes"]} == {
        index: (labels == index).mean() for index in np.unique(labels).tolist()
    }
    shares = [each["share"] for each in answer["classes"]]
    assert shares == sorted(shares, reverse=True)
    certain = np.array(Image.open(io.BytesIO(base64.b64decode(answer["confidence"]))))
    npz = client.post("/v1/segment?format=probabilities", content=image).content
    with np.load(io.BytesIO(npz)) as file:
        assert np.abs(certain / 255 - file["probabilities"].astype(float).max(0)).max() < 0.5 / 255 + 1e-3
    assert answer["coco"] == client.post("/v1/segment?format=coco", content=image).json()
    assert answer["milliseconds"] > 0


def test_of_a_picture_larger_than_the_canvas_the_confidence_is_as_the_network_was_shown_it(client: TestClient) -> None:
    answer = client.post("/v1/segment?format=all", content=picture("PNG", 130, 100)).json()
    mask, certain = (Image.open(io.BytesIO(base64.b64decode(answer[key]))) for key in ("mask", "confidence"))
    assert (mask.size, certain.size) == ((130, 100), (65, 50))


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        ("*/*", "mask"),
        ("image/png", "mask"),
        ("application/json", "coco"),
        ("application/octet-stream", "probabilities"),
        ("text/html, application/x-npz;q=0.5, image/png;q=0.4", "probabilities"),
        ("application/json;q=0.1, image/png", "mask"),
        ("application/json;q=0", "mask"),
        ("a;;=, ;q=x", "mask"),
    ],
)
def test_the_form_that_a_client_accepts(accept: str, form: str) -> None:
    assert format_of(accept) == form


@pytest.mark.parametrize(
    ("query", "overrides"),
    [
        ("inference=sliding", ["inference=sliding"]),
        ("scales=0.5,1.0&flip=true", ["inference.scales=[0.5,1.0]", "inference.flip=true"]),
        ("inference=resize&flip=true", ["inference=resize", "inference.flip=true"]),
    ],
)
def test_ways_that_a_request_chooses(
    client: TestClient, checkpoint: Path, tmp_path: Path, query: str, overrides: list[str]
) -> None:
    image = picture("JPEG", 150, 100)
    answer = client.post(f"/v1/segment?{query}", content=image)
    assert answer.content == predicted(checkpoint, tmp_path, image, *overrides)["mask"].read_bytes()
    assert answer.headers["x-segapp-protocol"] != client.get("/v1/model").json()["protocol"]


def test_many_at_once_are_answered_as_each_alone(open_service: Open) -> None:
    images = [picture("JPEG", 60 + 2 * at, 40 + at) for at in range(12)]
    with TestClient(make_app(open_service("batch_size=4", "wait=50"))) as client, ThreadPoolExecutor(12) as threads:
        alone = [client.post("/v1/segment", content=each).content for each in images]
        together = list(threads.map(lambda each: client.post("/v1/segment", content=each).content, images))
        metrics = client.get("/metrics").text
    assert together == alone
    batches = next(line for line in metrics.splitlines() if line.startswith("segapp_batch_size_count"))
    assert float(batches.split()[1]) < 12 + 12
    assert 'segapp_requests_total{path="/v1/segment",status="200"} 24.0' in metrics


def test_the_model(client: TestClient) -> None:
    model = client.get("/v1/model").json()
    assert model["task"] == "segmentation"
    assert [each["name"] for each in model["classes"]] == list(SHAPES_CLASSES)
    assert [each["color"] for each in model["classes"]] == voc_palette()[: len(SHAPES_CLASSES)].tolist()
    assert model["background"] == 0
    assert model["limits"]["inference"] == ["trained", "resize", "sliding", "multi_scale"]
    assert model["limits"]["pixels"] == 50_000_000


def test_a_classifier(open_service: Open, classifier: Path, tmp_path: Path) -> None:
    image = picture("PNG", 70, 50)
    (tmp_path / "a.png").write_bytes(image)
    words = [f"checkpoint={classifier}", "device=cpu", "save=[json]", f"output={tmp_path}/out"]
    assert run_tool("predict", [str(tmp_path / "a.png"), *words]) == 0
    expected = json.loads((tmp_path / "out" / "json" / "a.json").read_text())["classes"]
    with TestClient(make_app(open_service(path=classifier))) as client:
        answer = client.post("/v1/classify", content=image).json()
        found = [{key: each[key] for key in ("name", "probability")} for each in answer["classes"]]
        assert found == expected
        assert (answer["width"], answer["height"]) == (70, 50)
        assert len(client.post("/v1/classify?top=1", content=image).json()["classes"]) == 1
        assert client.get("/v1/model").json()["task"] == "classification"
        refused = client.post("/v1/segment", content=image)
    assert (refused.status_code, refused.json()) == (404, {"error": "a classifier answers here, at /v1/classify"})


def test_bytes_are_read_as_their_file_is(tmp_path: Path) -> None:
    deep = np.random.default_rng(0).integers(0, 65536, (40, 50, 3), np.uint16)
    files = [picture(kind) for kind in ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "TGA")]
    files += [
        turned_jpeg(),
        cv2.imencode(".png", deep)[1].tobytes(),
        cv2.imencode(".tiff", deep[:, :, 0])[1].tobytes(),
    ]
    for content in files:
        (tmp_path / "a").write_bytes(content)
        assert np.array_equal(read_image(tmp_path / "a"), read_image(content))
