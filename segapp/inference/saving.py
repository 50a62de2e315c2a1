"""Labels image files and saves what is asked for of each: masks, overlays, probabilities, JSON."""

import errno
import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt

from segapp.base.classes import voc_palette
from segapp.base.devices import available_cores
from segapp.base.drawing import overlay
from segapp.base.errors import UserError, number_of
from segapp.base.files import atomic_write, write_json
from segapp.base.images import TooManyPixelsError, is_dim, read_image, write_image
from segapp.base.logs import progress_bar
from segapp.base.masks import write_mask
from segapp.inference.prediction import Prediction
from segapp.inference.predictor import BATCHES_AT_ONCE, Predictor
from segapp.inference.summary import ImageRow, Seconds, pixels_of

log = logging.getLogger(__name__)

Array = npt.NDArray[np.uint8]
T = TypeVar("T")
R = TypeVar("R")

FOLDERS = {"mask": "masks", "overlay": "overlays", "probabilities": "probabilities", "json": "json"}
"""Each kind of output has a folder of its own, so that no name of one image's file is another's."""
LONGEST_SIDE_OF_JPEG = 65500
THREADS = min(4, available_cores())
"""So many images are read ahead of the network and written behind it: each is held in memory."""


@dataclass
class _Image:
    """One image on its way."""

    at: int
    pixels: Array
    is_dim: bool
    read_seconds: float
    compute_seconds: float = 0.0
    prediction: Prediction | None = None

    @property
    def labels(self) -> Array:
        assert self.prediction is not None
        return self.prediction.mask()


def label_files(
    images: Sequence[Path],
    predictor: Predictor,
    folder: Path,
    kinds: Sequence[str],
    *,
    max_pixels: int,
    score: Callable[[Path, Array], None] | None = None,
    todo: Sequence[int] | None = None,
    batch_size: int = 1,
    record: Callable[[ImageRow], None] | None = None,
) -> tuple[int, list[str]]:
    """Labels and saves every image that can be read; others are read and written meanwhile, in threads.

    Args:
        kinds: of FOLDERS.
        max_pixels: images of more are refused.
        score: is called with each image and its labels, H x W, once they are saved.
        todo: which of the images, by their places, in order; None: all.
        batch_size: so many at once are shown to the network.
        record: is called with what became of each image, in order, once its files are there.

    Returns:
        How many images were saved, and a line for each that could not be read, saved or scored.
    """
    palette, spec, names = voc_palette(), predictor.runtime.spec, output_names(images)
    saved, dark, first_dark = 0, 0, Path()
    problems: list[str] = []
    computed = 0.0  # when the last batch was

    def read(at: int) -> _Image:
        begin, path = time.perf_counter(), images[at]
        pixels = read_image(path, max_pixels, predictor.decoding)
        return _Image(at, pixels, is_dim(path, predictor.decoding.white_level), time.perf_counter() - begin)

    def compute(batch: Sequence[_Image]) -> None:
        nonlocal computed
        begin = time.perf_counter()
        predictions = predictor.predict([image.pixels for image in batch], probabilities="probabilities" in kinds)
        end = time.perf_counter()
        for image, prediction in zip(batch, predictions, strict=True):
            image.prediction = prediction
            image.compute_seconds = max(0.0, end - max(begin, computed)) / len(batch)
        computed = end

    def labelled(group: Sequence[tuple[int, Future[_Image]]]) -> list[tuple[int, _Image | str]]:
        found = [(at, or_problem(reading.result, images[at])) for at, reading in group]
        batch = [image for _, image in found if not isinstance(image, str)]
        failed = or_problem(partial(compute, batch), images[group[0][0]]) if batch else None
        return [(at, image if failed is None or isinstance(image, str) else failed) for at, image in found]

    def write(image: _Image, labels: Array) -> ImageRow:
        assert image.prediction is not None
        begin, shown = time.perf_counter(), None
        if "overlay" in kinds:
            shown = overlay(image.pixels, labels, spec.classes, palette, background=spec.background)
        drawn, at = time.perf_counter(), image.at
        probabilities = image.prediction.probabilities
        save(folder, names[at], images[at], labels, shown, probabilities, kinds, spec.classes)
        seconds = Seconds(image.read_seconds, image.compute_seconds, drawn - begin, time.perf_counter() - drawn)
        return ImageRow(at, labels.shape, pixels_of(labels), seconds)

    def finish(at: int, labels: Array | None, written: Future[ImageRow] | str) -> None:
        nonlocal saved
        row = written if isinstance(written, str) else or_problem(written.result, images[at])
        problem: str | None = row if isinstance(row, str) else None
        if problem is None:
            saved += 1
            if score is not None and labels is not None:
                problem = or_problem(partial(score, images[at], labels), images[at])
        if problem is not None:
            problems.append(problem)
        if record is not None:
            record(ImageRow(at, error=row) if isinstance(row, str) else row)

    places = range(len(images)) if todo is None else todo
    most = max(THREADS, batch_size)
    writing: deque[tuple[int, Array | None, Future[ImageRow] | str]] = deque()
    with (
        ThreadPoolExecutor(THREADS) as pool,
        ThreadPoolExecutor(BATCHES_AT_ONCE) as network,
        _stopped_if_broken_off(predictor),
        progress_bar(len(places), "predicting", "image") as progress,
    ):
        reading = zip(places, ahead(pool, read, places, most), strict=True)
        groups = iter(lambda: list(islice(reading, batch_size)), [])
        for batch in ahead(network, labelled, groups, BATCHES_AT_ONCE - 1):
            for at, image in batch.result():
                if isinstance(image, str):
                    writing.append((at, None, image))
                    continue
                labels = image.labels
                writing.append((at, labels, pool.submit(write, image, labels)))
                if image.is_dim:
                    dark, first_dark = dark + 1, first_dark if dark else images[at]
            while len(writing) > most:
                finish(*writing.popleft())
            progress.update(len(batch.result()))
        while writing:
            finish(*writing.popleft())
    if dark:
        message = "%s of 16 bits nearly black, first %s; white_level says which value is white"
        log.warning(message, number_of(dark, "image"), first_dark)
    return saved, problems


@contextmanager
def _stopped_if_broken_off(predictor: Predictor) -> Iterator[None]:
    """For an error or Ctrl-C: nobody is to wait for large images of which nothing will be kept."""
    try:
        yield
    except BaseException:
        predictor.stop()
        raise


def or_problem(function: Callable[[], R], image: Path) -> R | str:
    """What the function gives, or in one line why one image cannot be done."""
    try:
        return function()
    except TooManyPixelsError as error:
        return f"{error}, or raise max_pixels"
    except UserError as error:
        return str(error)
    except OSError as error:
        if error.errno not in (None, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ):
            raise  # a full or a failing disk would fail for every image
        return f"{image}: its results cannot be written ({error.strerror or error})"


def ahead(pool: Executor, function: Callable[[T], R], items: Iterable[T], number: int) -> Iterator[Future[R]]:
    """What the function gives of each item, in order; so many are begun before they are asked for."""
    begun: deque[Future[R]] = deque()
    for item in items:
        begun.append(pool.submit(function, item))
        if len(begun) > number:
            yield begun.popleft()
    yield from begun


def output_names(images: Iterable[Path]) -> list[str]:
    """A name for each image's outputs: its stem, with a number where another image has the same one."""
    last: dict[str, int] = {}  # the number of each name so far; some file systems see no difference of case

    def unused(stem: str) -> str:
        name, number = stem, last.get(stem.lower(), 0) + 1
        while number > 1 and (name := f"{stem}-{number}").lower() in last:
            number += 1
        last[stem.lower()] = number
        last.setdefault(name.lower(), 1)
        return name

    return [unused(path.stem) for path in images]


def save(
    folder: Path,
    name: str,
    source: Path,
    labels: Array,
    shown: Array | None,
    probabilities: npt.NDArray[np.float16] | None,
    kinds: Sequence[str],
    classes: tuple[str, ...],
) -> None:
    """Writes one image's outputs, each file whole or not at all.

    Args:
        source: the image's file.
        labels: H x W class indices.
        shown: the overlay, H x W x 3 RGB, if it is among the kinds.
        probabilities: K x H x W, if they are among the kinds.
    """
    for kind in kinds:
        files = folder / FOLDERS[kind]
        files.mkdir(exist_ok=True)
        if kind == "mask":
            write_mask(files / f"{name}.png", labels, voc_palette())
        elif kind == "json":
            write_json(files / f"{name}.json", describe(source, labels, classes))
        elif kind == "overlay" and shown is not None:
            write_image(files / f"{name}{overlay_suffix(shown)}", shown)
        elif probabilities is not None:
            with atomic_write(files / f"{name}.npz") as temporary:
                save_probabilities(temporary, probabilities, classes)


def overlay_suffix(shown: Array) -> str:
    return ".jpg" if max(shown.shape) < LONGEST_SIDE_OF_JPEG else ".png"


def save_probabilities(
    file: Path | BinaryIO, probabilities: npt.NDArray[np.float16], classes: tuple[str, ...]
) -> None:
    """Writes K x H x W as .npz."""
    np.savez_compressed(file, probabilities=probabilities, classes=np.array(classes))


def describe(source: Path | str, labels: Array, classes: tuple[str, ...]) -> dict[str, Any]:
    """The classes present, largest first: pixels, share in [0, 1], box [x, y, width, height], COCO run-length mask."""
    from pycocotools import mask as coco_mask  # needed for JSON alone

    present = []
    pixels = np.bincount(labels.ravel(), minlength=len(classes))
    for index in np.argsort(-pixels, kind="stable").tolist():
        if pixels[index]:
            encoded = coco_mask.encode(np.asfortranarray(labels == index, np.uint8))
            present.append(
                {
                    "index": index,
                    "name": classes[index],
                    "pixels": int(pixels[index]),
                    "share": float(pixels[index] / labels.size),
                    "box": coco_mask.toBbox(encoded).tolist(),
                    "segmentation": {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")},
                }
            )
    return {"image": str(source), "width": labels.shape[1], "height": labels.shape[0], "classes": present}
