"""Reads videos: files and network streams through PyAV, cameras through OpenCV."""

import posixpath
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from segapp.base.errors import UserError
from segapp.base.extras import require
from segapp.base.images import TooManyPixelsError

if TYPE_CHECKING:
    from av.packet import Packet
    from av.video.frame import VideoFrame

Array = npt.NDArray[np.uint8]

# fmt: off
VIDEO_SUFFIXES = frozenset([
    ".3gp", ".avi", ".flv", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".ts",
    ".vob", ".webm", ".wmv", ".y4m",
])
# fmt: on
CAMERA = "camera:"
TIMEOUT = 10.0
"""Seconds that a network stream may take to open, or to give its next frame."""
MICROSECONDS = Fraction(1, 1_000_000)


@dataclass(frozen=True)
class Frame:
    """One picture of a video.

    Attributes:
        number: counted from the first one that is not before `start`.
        pts: when it is shown, in the source's `time_base` from there.
        image: H x W x 3 uint8 RGB, upright; H and W are those of the source's first frame.
    """

    number: int
    pts: int
    image: Array


class VideoSource(Protocol):
    """What frames come from, with their sound.

    Attributes:
        live: it does not wait for whoever reads it.
        rate: frames a second, about.
        aspect: a pixel's width to its height, as frames are given; known with the first one.
        total: how many frames there will be, about; None: nobody knows.
        sound: PyAV's streams of it.
        broken: frames that could not be decoded, so far.
        ended: why it ended before its time; empty where it did not.
    """

    live: bool
    time_base: Fraction
    rate: Fraction
    aspect: Fraction
    total: int | None
    sound: list[Any]
    broken: int
    ended: str

    def items(self) -> Iterator["Frame | Packet[Any]"]:
        """Frames in order and, between them, packets of sound, their times beginning at `start`, too."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Cut:
    """Which frames are read: every so many, of those from `start` until before `end`, in seconds."""

    every: int = 1
    start: float = 0.0
    end: float | None = None


def is_stream(name: str) -> bool:
    """Whether it names a camera or a network stream, and no file."""
    return name.startswith(CAMERA) or re.match(r"[a-z][a-z0-9+.]*://", name) is not None


def is_video_file(name: str) -> bool:
    """By its suffix."""
    return posixpath.splitext(name)[1].lower() in VIDEO_SUFFIXES


def open_video(name: str, cut: Cut, max_pixels: int) -> VideoSource:
    """A file, `camera:NUMBER` or a network stream.

    Raises:
        UserError: it cannot be opened, holds no video, or has more pixels; PyAV is missing.
        TooManyPixelsError: more pixels a frame than that.
    """
    require("video", name)
    if name.startswith(CAMERA):
        return Camera(name, cut, max_pixels)
    return VideoFile(name, cut, max_pixels)


class VideoFile:
    """A file or a network stream; see `VideoSource`."""

    def __init__(self, name: str, cut: Cut, max_pixels: int) -> None:
        import av

        av.logging.set_level(None)
        self.name = name
        self.live = is_stream(name) and not name.startswith("http")
        options = {"rtsp_transport": "tcp"} if name.startswith("rtsp") else {}
        try:
            address = name if is_stream(name) else f"file:{name}"
            self._container = av.open(address, timeout=TIMEOUT if is_stream(name) else None, options=options)
        except av.InvalidDataError:
            raise UserError(
                f"{name}: no video, of an unknown format, or cut off before its index was written"
            ) from None
        except (av.FFmpegError, OSError) as error:
            raise UserError(f"{name}: cannot be opened ({_reason(error)})") from None
        except ValueError as error:  # of a null character
            raise UserError(f"{name}: cannot be opened ({error})") from None
        try:
            self._prepare(cut, max_pixels)
        except BaseException:
            self._container.close()
            raise

    def _prepare(self, cut: Cut, max_pixels: int) -> None:
        import av

        covers = av.stream.Disposition.attached_pic
        videos: list[Any] = [each for each in self._container.streams.video if not each.disposition & covers]
        if not videos:
            held = "only sound" if self._container.streams.audio else "nothing that can be shown"
            raise UserError(f"{self.name}: no video in it, {held}")
        stream = videos[0]
        if stream.codec_context is None:
            raise UserError(f"{self.name}: its video is in a format that is not decoded here")
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > max_pixels:
            raise TooManyPixelsError(
                f"{self.name}: {width} x {height} pixels are more than the bound of {max_pixels}; scale it down"
            )
        stream.thread_type = "AUTO"
        self._stream = stream
        self._cut, self._max_pixels = cut, max_pixels
        self.sound = [each for each in self._container.streams.audio if each.codec_context is not None]
        self.time_base = stream.time_base or MICROSECONDS
        self.rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        self.aspect = stream.sample_aspect_ratio or Fraction(1)
        self.broken, self.ended = 0, ""
        begin = self._container.start_time
        self._begin: Fraction | None = None
        if begin is not None:
            self._begin = Fraction(begin, av.time_base) + Fraction(cut.start)
        self._length = None if self._container.duration is None else self._container.duration / av.time_base
        self.total = self._count()
        self._last = -1
        self._size: tuple[int, int] | None = None

    def _count(self) -> int | None:
        if self._length is None or self.live:
            return None
        length = max(0.0, min(self._length, self._cut.end or self._length) - self._cut.start)
        return -(-round(length * self.rate) // self._cut.every)

    def items(self) -> Iterator["Frame | Packet[Any]"]:
        """See `VideoSource`."""
        if self._cut.start and self._begin is not None and not self.live:
            self._seek()
        number, going, end = 0, {self._stream, *self.sound}, self._cut.end
        for packet in self._packets():
            if packet is not None and packet.stream in self.sound:
                if packet.stream in going and self._shifted(packet):
                    if end is not None and (packet.pts or 0) * packet.time_base >= end - self._cut.start:
                        going.discard(packet.stream)
                    else:
                        yield packet
            elif self._stream in going:
                for frame in self._decode(packet):
                    pts = self._pts(frame)
                    if pts < 0:
                        continue
                    if end is not None and pts * self.time_base >= end - self._cut.start:
                        going.discard(self._stream)
                        break
                    self._last = pts
                    if number % self._cut.every == 0 and (image := self._image(frame)) is not None:
                        yield Frame(number, pts, image)
                    number += 1
            if not going:
                return
        self._tell_of_a_cut()

    def close(self) -> None:
        self._container.close()

    def _seek(self) -> None:
        import av

        assert self._begin is not None
        with suppress(av.FFmpegError):  # then it is read from its beginning
            self._container.seek(int(self._begin / self.time_base), stream=self._stream)

    def _packets(self) -> Iterator["Packet[Any] | None"]:
        """None: what the decoder still holds is due, for no more can be read."""
        import av

        try:
            yield from self._container.demux(self._stream, *self.sound)
        except (av.FFmpegError, OSError) as error:
            self.ended = _reason(error)
            yield None

    def _decode(self, packet: "Packet[Any] | None") -> Iterator["VideoFrame"]:
        import av

        try:
            frames = self._stream.decode(packet)
        except av.FFmpegError:
            self.broken += 1
            return
        for frame in frames:
            if frame.is_corrupt or frame.width * frame.height > self._max_pixels:
                self.broken += 1
            else:
                yield frame

    def _pts(self, frame: Any) -> int:
        """From `start` on, always later than the one before."""
        step: int = max(1, round(1 / (self.rate * self.time_base)))
        if frame.pts is None:
            return self._last + step
        if self._begin is None:
            self._begin = frame.pts * self.time_base + Fraction(self._cut.start)
        pts: int = frame.pts - round(self._begin / self.time_base)
        return pts if pts < 0 and self._last < 0 else max(pts, self._last + 1)

    def _shifted(self, packet: "Packet[Any]") -> bool:
        """Counts the time of a packet of sound from `start` on; False: it lies before, or has no time."""
        if packet.pts is None or packet.dts is None or self._begin is None:
            return False
        begin = round(self._begin / packet.time_base)
        if packet.pts < begin and self._cut.start:
            return False
        packet.pts, packet.dts = packet.pts - begin, packet.dts - begin
        return True

    def _image(self, frame: "VideoFrame") -> Array | None:
        """Upright, of the first frame's size."""
        import av

        matrix = _matrix(frame)
        try:
            image = upright(np.asarray(frame.to_ndarray(format="rgb24"), np.uint8), matrix)
        except (av.FFmpegError, ValueError):
            self.broken += 1
            return None
        if self._size is None:
            self._size = image.shape[0], image.shape[1]
            if matrix is not None and abs(matrix[1]) > abs(matrix[0]):  # its sides are exchanged
                self.aspect = 1 / self.aspect
        if image.shape[:2] != self._size:
            image = cv2.resize(image, self._size[::-1], interpolation=cv2.INTER_AREA)  # type: ignore[assignment]
        return image

    def _tell_of_a_cut(self) -> None:
        """A file that announces more than it holds has been cut off, whatever reading it said."""
        reached = self._cut.start + float(self._last * self.time_base)
        expected = min(self._length or 0.0, self._cut.end or self._length or 0.0)
        if not self.ended and expected - reached > 1 + 2 / self.rate:
            self.ended = f"cut off after {reached:.1f} of {expected:.1f} seconds"


class Camera:
    """A camera of this machine by its number, the first one 0; see `VideoSource`."""

    live = True
    time_base = MICROSECONDS
    aspect = Fraction(1)

    def __init__(self, name: str, cut: Cut, max_pixels: int) -> None:
        number = name.removeprefix(CAMERA)
        if not number.isdecimal():
            raise UserError(f"{name}: a camera is named by its number, as in camera:0")
        level = cv2.utils.logging.getLogLevel()
        cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        try:
            self._capture = cv2.VideoCapture(int(number))
        except cv2.error:
            self._capture = cv2.VideoCapture()
        finally:
            cv2.utils.logging.setLogLevel(level)
        if not self._capture.isOpened():
            raise UserError(f"{name}: there is no such camera, or another program has it")
        self.rate = Fraction(self._capture.get(cv2.CAP_PROP_FPS) or 25).limit_denominator(1001)
        self.total: int | None = None
        self.sound: list[Any] = []
        self.broken, self.ended = 0, ""
        self._name, self._cut, self._max_pixels = name, cut, max_pixels

    def items(self) -> Iterator["Frame | Packet[Any]"]:
        """See `VideoSource`."""
        begin, number, last = time.monotonic(), 0, -1
        while True:
            is_sound, picture = self._capture.read()
            seconds = time.monotonic() - begin - self._cut.start
            if not is_sound:
                self.ended = "the camera gives no more pictures"
                return
            if self._cut.end is not None and seconds >= self._cut.end - self._cut.start:
                return
            if seconds < 0:
                continue
            last = max(last + 1, round(seconds / MICROSECONDS))
            if picture.shape[0] * picture.shape[1] > self._max_pixels:
                raise TooManyPixelsError(f"{self._name}: more pixels than the bound of {self._max_pixels}")
            if number % self._cut.every == 0:
                yield Frame(number, last, np.ascontiguousarray(picture[:, :, ::-1], np.uint8))
            number += 1

    def close(self) -> None:
        self._capture.release()


def upright(image: Array, matrix: npt.NDArray[np.int32] | None) -> Array:
    """H x W x 3 turned and mirrored as a display matrix says: x' = a x + c y, y' = b x + d y, for quarters of a turn.

    Args:
        matrix: a, b, u, c, d, v, x, y, w (ISO/IEC 14496-12, section 8.3.2); None: it stands.
    """
    if matrix is None:
        return image
    a, b, _, c, d = matrix[:5].tolist()
    across, down = (a, d) if abs(a) >= abs(b) else (c, b)
    if abs(b) > abs(a):
        image = image.swapaxes(0, 1)
    if across < 0:
        image = image[:, ::-1]
    if down < 0:
        image = image[::-1]
    return np.ascontiguousarray(image)


def _matrix(frame: "VideoFrame") -> npt.NDArray[np.int32] | None:
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    return None if data is None else np.frombuffer(data, np.int32)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
