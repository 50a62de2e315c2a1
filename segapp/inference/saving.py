"""Labels image files and saves what is asked for of each: masks, overlays, probabilities, JSON."""

import errno
import logging
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from segapp.base.classes import voc_palette
from segapp.base.devices import available_cores
from segapp.base.drawing import overlay
from segapp.base.errors import UserError, number_of
from segapp.base.files import atomic_write, write_json
from segapp.base.images import TooManyPixelsError, is_dim, read_image, write_image
from segapp.base.logs import progress_bar
from segapp.base.masks import write_mask
from segapp.inference.predictor import Predictor
from segapp.runtimes.interface import RuntimeSpec

log = logging.getLogger(__name__)

Array = npt.NDArray[np.uint8]
T = TypeVar("T")
R = TypeVar("R")

FOLDERS = {"mask": "masks", "overlay": "overlays", "probabilities": "probabilities", "json": "json"}
"""Each kind of output has a folder of its own, so that no name of one image's file is another's."""
LONGEST_SIDE_OF_JPEG = 65500
THREADS = min(4, available_cores())
"""So many images are read ahead of the network and written behind it: each is held in memory."""


def label_files(
    images: Sequence[Path],
    predictor: Predictor,
    folder: Path,
    kinds: Sequence[str],
    *,
    max_pixels: int,
    score: Callable[[Path, Array], None] | None = None,
) -> tuple[int, list[str]]:
    """Labels and saves every image that can be read; others are read and written meanwhile, in threads.

    Args:
        kinds: of FOLDERS.
        max_pixels: images of more are refused.
        score: is called with each image and its labels, H x W, once they are saved.

    Returns:
        How many images were saved, and a line for each that could not be read, saved or scored.
    """
    saved, dim = 0, []
    problems: dict[int, str] = {}

    @contextmanager
    def told(at: int) -> Iterator[None]:
        """What is wrong with one image is kept for the end."""
        try:
            yield
        except TooManyPixelsError as error:
            problems[at] = f"{error}, or raise max_pixels"
        except UserError as error:
            problems[at] = str(error)
        except OSError as error:
            if error.errno not in (None, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ):
                raise  # a full or a failing disk would fail for every image
            problems[at] = f"{images[at]}: its results cannot be written ({error.strerror or error})"

    def read(path: Path) -> tuple[Array, bool]:
        return read_image(path, max_pixels, predictor.decoding), is_dim(path, predictor.decoding.white_level)

    names = output_names(images)
    writing: deque[tuple[int, Array, Future[None]]] = deque()

    def finish(most: int) -> None:
        """Waits until no more than `most` images are being written."""
        nonlocal saved
        while len(writing) > most:
            at, labels, written = writing.popleft()
            with told(at):
                written.result()
                saved += 1
                if score is not None:
                    score(images[at], labels)

    with ThreadPoolExecutor(THREADS) as pool, progress_bar(len(images), "predicting", "image") as progress:
        for at, reading in enumerate(ahead(pool, read, images, THREADS)):
            with told(at):
                image, is_too_dark = reading.result()
                prediction = predictor.predict([image], probabilities="probabilities" in kinds)[0]
                labels = prediction.labels.cpu().numpy()
                output = (image, labels, prediction.probabilities, kinds, predictor.runtime.spec)
                writing.append((at, labels, pool.submit(save, folder, names[at], images[at], *output)))
                if is_too_dark:
                    dim.append(images[at])
            finish(THREADS)
            progress.update()
        finish(0)
    if dim:
        number = number_of(len(dim), "image")
        log.warning("%s of 16 bits nearly black, first %s; white_level says which value is white", number, dim[0])
    return saved, [problems[at] for at in sorted(problems)]


def ahead(pool: Executor, function: Callable[[T], R], items: Iterable[T], number: int) -> Iterator[Future[R]]:
    """What the function gives of each item, in order; so many are begun before they are asked for."""
    begun: deque[Future[R]] = deque()
    for item in items:
        begun.append(pool.submit(function, item))
        if len(begun) > number:
            yield begun.popleft()
    yield from begun


def output_names(images: Sequence[Path]) -> list[str]:
    """A name for each image's outputs: its stem, with a number where another image has the same one."""
    taken: set[str] = set()
    names = []
    for path in images:
        name, number = path.stem, 2
        while name.lower() in taken:  # some file systems see no difference
            name, number = f"{path.stem}-{number}", number + 1
        taken.add(name.lower())
        names.append(name)
    return names


def save(
    folder: Path,
    name: str,
    source: Path,
    image: Array,
    labels: Array,
    probabilities: npt.NDArray[np.float16] | None,
    kinds: Sequence[str],
    spec: RuntimeSpec,
) -> None:
    """Writes one image's outputs, each file whole or not at all.

    Args:
        source: the image's file.
        image: H x W x 3 RGB.
        labels: H x W class indices.
        probabilities: K x H x W, if they are among the kinds.
        spec: of the network.
    """
    palette, classes = voc_palette(), spec.classes
    for kind in kinds:
        files = folder / FOLDERS[kind]
        files.mkdir(exist_ok=True)
        if kind == "mask":
            write_mask(files / f"{name}.png", labels, palette)
        elif kind == "overlay":
            picture = overlay(image, labels, classes, palette, background=spec.background)
            suffix = ".jpg" if max(picture.shape) < LONGEST_SIDE_OF_JPEG else ".png"
            write_image(files / f"{name}{suffix}", picture)
        elif kind == "json":
            write_json(files / f"{name}.json", describe(source, labels, classes))
        elif probabilities is not None:
            with atomic_write(files / f"{name}.npz") as temporary:
                np.savez_compressed(temporary, probabilities=probabilities, classes=np.array(classes))


def describe(source: Path, labels: Array, classes: tuple[str, ...]) -> dict[str, Any]:
    """The classes present, largest first: pixels, share in [0, 1], box [x, y, width, height], COCO run-length mask."""
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
