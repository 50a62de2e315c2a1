"""A server on this machine that has the data sets' archives."""

import dataclasses
import hashlib
import http.server
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from segapp.base import download
from segapp.data.getting import coco, sbd, voc
from tests.data.getting.samples import TRAINAUG, make_sbd, make_voc


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small ones in the true layout. Read only."""
    folder = tmp_path_factory.mktemp("archives")
    make_voc(folder / "voc" / "VOCdevkit" / "VOC2012")
    shutil.make_archive(str(folder / "VOCtrainval_11-May-2012"), "tar", folder / "voc")
    make_sbd(folder / "sbd" / "benchmark_RELEASE" / "dataset")
    shutil.move(shutil.make_archive(str(folder / "benchmark"), "gztar", folder / "sbd"), folder / "benchmark.tgz")
    for name in ("train2017", "val2017", "annotations"):
        (folder / "coco" / name / name).mkdir(parents=True)
        (folder / "coco" / name / name / "1.txt").write_text(name)
    for name, file in (
        ("train2017", "zips/train2017"),
        ("val2017", "zips/val2017"),
        ("annotations", "annotations/annotations_trainval2017"),
    ):
        shutil.make_archive(str(folder / file), "zip", folder / "coco" / name)
    return folder


@pytest.fixture
def requests(archives: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What was asked of the server to which the data sets' addresses point."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

        def log_message(self, *arguments: object) -> None:
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "PAUSES", ())
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(archives)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    base = f"http://127.0.0.1:{server.server_port}/"
    for module, name, file in ((voc, "VOC2012", "VOCtrainval_11-May-2012.tar"), (sbd, "SBD", "benchmark.tgz")):
        md5 = hashlib.md5((archives / file).read_bytes()).hexdigest()
        there = dataclasses.replace(getattr(module, name), url=base + file, md5=md5, megabytes=1, unpacked=1)
        monkeypatch.setattr(module, name, there)
    zips = [
        dataclasses.replace(
            each, url=each.url.replace("http://images.cocodataset.org/", base), megabytes=1, unpacked=1
        )
        for each in coco.COCO
    ]
    monkeypatch.setattr(coco, "COCO", tuple(zips))
    monkeypatch.setattr(voc, "VOC_IMAGES", {"train": 2, "val": 2, "trainval": 4})
    monkeypatch.setattr("segapp.data.formats.voc.get_trainaug", partial(sbd.get_trainaug, images=len(TRAINAUG)))
    yield asked
    server.shutdown()
    server.server_close()
    thread.join()
