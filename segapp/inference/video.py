"""Labels videos frame by frame: one thread decodes, one draws and encodes, one stores masks, all in bounded memory."""

import csv
import math
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Semaphore, Thread
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from segapp.base.classes import voc_palette
from segapp.base.drawing import blend, steady_legend
from segapp.base.errors import Stopped, UserError
from segapp.base.files import atomic_write
from segapp.base.logs import progress_bar
from segapp.base.masks import write_mask
from segapp.base.video_writing import INDICES, PICTURES, SOUND_OF_MP4, video_writer
from segapp.base.videos import Frame, VideoSource
from segapp.inference.arrays import labels_of, moved, on_device
from segapp.inference.predictor import Predictor
from segapp.inference.saving import FOLDERS
from segapp.inference.summary import pixels_of, share_columns, shares

if TYPE_CHECKING:
    from av.packet import Packet

Array = npt.NDArray[np.uint8]
MaskFiles = Literal["ffv1", "png"]

KINDS = ("mask", "overlay")
"""What is saved of videos."""
FRAMES = "frames"
"""FRAMES/NAME.csv has a row for each frame."""
AHEAD = 4
"""So many frames are decoded ahead of the network, and encoded behind it: each is held in memory."""


@dataclass
class VideoResult:
    """What became of a video.

    Attributes:
        frames: that were labelled.
        missed: of a live source, frames that came while the network was busy.
        files: what was written.
        stopped: what ended it before its time: Ctrl-C or SIGTERM.
    """

    frames: int = 0
    missed: int = 0
    files: list[Path] = field(default_factory=list)
    stopped: KeyboardInterrupt | Stopped | None = None


def label_video(
    source: VideoSource,
    predictor: Predictor,
    folder: Path,
    name: str,
    kinds: Sequence[str],
    *,
    start: float = 0.0,
    smoothing: float = 0.0,
    mask_files: MaskFiles = "ffv1",
) -> VideoResult:
    """Writes masks and an overlay with the source's sound, and a table of class shares; each frame at its own time.

    Ctrl-C and SIGTERM end it, as the source's end does, with what is done so far.

    Args:
        name: of the files.
        kinds: of KINDS.
        start: of the source, for the table's times.
        smoothing: seconds of `Smoother`; 0: each frame by itself.
        mask_files: a lossless video, or a folder of pictures.

    Raises:
        UserError: no frame can be decoded, or this PyAV cannot write the videos.
    """
    result = VideoResult()
    smoother = Smoother(smoothing) if smoothing else None
    classes = predictor.classes
    with closing(read_ahead(source, result)) as items, ExitStack() as files:
        earlier: list[Packet[Any]] = []
        first = None
        for item in items:
            if isinstance(item, Frame):
                first = item
                break
            earlier.append(item)
        if first is None:
            why = f" ({source.ended})" if source.ended else f", or none from start={start:g} on" if start else ""
            raise UserError(f"{name}: none of its frames can be decoded{why}")
        writers = _Writers(source, predictor, folder, name, kinds, first, mask_files, files, result.files)
        with (
            ThreadPoolExecutor(1) as drawing,
            ThreadPoolExecutor(1) as storing,
            progress_bar(source.total, name, "frame") as progress,
        ):

            def take(item: "Frame | Packet[Any]", labels: Array | None) -> Future[None]:
                """In a thread, which Ctrl-C does not reach: a frame is in all files, or in none."""
                if not isinstance(item, Frame):
                    return drawing.submit(writers.copy, item)
                assert labels is not None
                seconds = start + float(item.pts * source.time_base)
                writers.table.writerow([item.number, f"{seconds:.6f}", *shares(pixels_of(labels), len(classes))])
                writers.store(item, labels)
                result.frames += 1
                return drawing.submit(writers.draw, item, labels)

            writing: deque[Future[Future[None]]] = deque()
            try:
                for item in chain(earlier, [first], items):
                    labels = None
                    if isinstance(item, Frame):
                        prediction = predictor.predict([item.image], probabilities=smoother is not None)[0]
                        labels = prediction.mask()
                        if smoother is not None and prediction.probabilities is not None:
                            probabilities = on_device(prediction.probabilities, predictor.runtime.device)
                            labels = smoother(probabilities, float(item.pts * source.time_base))
                        progress.update()
                    writing.append(storing.submit(take, item, labels))
                    while len(writing) > AHEAD:
                        writing.popleft().result().result()
            except (KeyboardInterrupt, Stopped) as stopped:
                result.stopped = stopped
            for each in writing:
                each.result().result()
        if result.stopped is not None and not result.frames:
            raise result.stopped
    return result


def read_ahead(source: VideoSource, result: VideoResult) -> "Generator[Frame | Packet[Any], None, None]":
    """What a source gives, read by a thread that holds no more than AHEAD frames.

    Those that a live source gives meanwhile are counted as missed.
    """
    read: SimpleQueue[Frame | Packet[Any] | BaseException | None] = SimpleQueue()
    room, stop = Semaphore(AHEAD), Event()

    def fill() -> None:
        try:
            for item in source.items():
                if isinstance(item, Frame) and not room.acquire(blocking=not source.live):
                    result.missed += 1
                    continue
                if stop.is_set():
                    return
                read.put(item)
            read.put(None)
        except BaseException as error:
            read.put(error)

    thread = Thread(target=fill, daemon=True)
    thread.start()
    try:
        while (item := read.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            if isinstance(item, Frame):
                room.release()
            yield item
    finally:
        stop.set()
        room.release()  # of a thread that waits for it
        thread.join()


class Smoother:
    """Class probabilities averaged over time: what lies t seconds back counts exp(-t / `seconds`) as much as now.

    So it does not depend on the frame rate, nor on its being even.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._mean: Any = None
        self._time = 0.0

    def __call__(self, probabilities: Any, time: float) -> Array:
        """The labels of a frame, H x W, from its K x H x W probabilities, a tensor or NumPy's, and its time in
        seconds."""
        past = 0.0 if self._mean is None else math.exp((self._time - time) / self._seconds)
        self._mean = moved(self._mean, probabilities, 1 - past)
        self._time = time
        return labels_of(self._mean)


class _Writers:
    """The files of one video. Each method is called by one thread alone."""

    def __init__(
        self,
        source: VideoSource,
        predictor: Predictor,
        folder: Path,
        name: str,
        kinds: Sequence[str],
        first: Frame,
        mask_files: MaskFiles,
        files: ExitStack,
        written: list[Path],
    ) -> None:
        spec = predictor.runtime.spec
        self._palette, self._background = voc_palette(), spec.background
        self._pictures: Path | None = None
        self._masks = self._overlay = None
        self._legend = steady_legend(first.image.shape[:2], spec.classes, self._palette)

        def target(kind: str, suffix: str) -> Path:
            path = folder / kind / f"{name}{suffix}"
            path.parent.mkdir(exist_ok=True)
            written.append(path)
            return path

        shown = source.aspect, source.rate, source.time_base
        size = first.image.shape[0], first.image.shape[1]
        whole = size[0] + len(self._legend), size[1]
        table = files.enter_context(atomic_write(target(FRAMES, ".csv")))
        self.table = csv.writer(
            files.enter_context(table.open("w", newline="", encoding="utf-8")), lineterminator="\n"
        )
        self.table.writerow(["frame", "seconds", *share_columns(spec.classes)])
        if "mask" in kinds and mask_files == "png":
            self._pictures = target(FOLDERS["mask"], "")
            self._pictures.mkdir(exist_ok=True)
        elif "mask" in kinds:
            self._masks = files.enter_context(video_writer(target(FOLDERS["mask"], ".mkv"), INDICES, size, *shown))
        if "overlay" in kinds:
            is_usual = {each.codec_context.name for each in source.sound} <= SOUND_OF_MP4
            path = target(FOLDERS["overlay"], ".mp4" if is_usual else ".mkv")
            self._overlay = files.enter_context(video_writer(path, PICTURES, whole, *shown, source.sound))

    def store(self, frame: Frame, labels: Array) -> None:
        if self._pictures is not None:
            write_mask(self._pictures / f"{frame.number:06}.png", labels, self._palette)
        if self._masks is not None:
            self._masks.write(labels, frame.pts)

    def draw(self, frame: Frame, labels: Array) -> None:
        if self._overlay is not None:
            shown = blend(frame.image, labels, self._palette, background=self._background)
            self._overlay.write(np.concatenate([shown, self._legend]), frame.pts)

    def copy(self, packet: "Packet[Any]") -> None:
        if self._overlay is not None:
            self._overlay.copy(packet)
