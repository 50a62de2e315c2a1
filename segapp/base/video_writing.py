"""Writes videos through PyAV: whole or not at all, and playable wherever they end."""

import errno
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from segapp.base.errors import UserError
from segapp.base.files import atomic_write

if TYPE_CHECKING:
    from av.packet import Packet

Array = npt.NDArray[np.uint8]

SOUND_OF_MP4 = frozenset({"aac", "ac3", "alac", "eac3", "flac", "mp3", "opus"})
"""What players take in an MP4."""
REPRODUCIBLE = {"fflags": "+bitexact"}
"""No random numbers in the file: what is written again is the same."""
BT709, LIMITED, FULL = 1, 1, 2
"""Colours in ITU-T H.273's numbers, and FFmpeg's ranges of values."""


class Coding(NamedTuple):
    """How pictures are stored: a codec's name, its pixel format, and its options."""

    codec: str
    format: Literal["yuv420p", "gray"]
    options: dict[str, str]


PICTURES = Coding("libx264", "yuv420p", {"preset": "veryfast", "crf": "18"})
"""H.264 as every player takes it; a picture of odd sides gets its last row or column twice."""
INDICES = Coding("ffv1", "gray", {"level": "3", "slicecrc": "1"})
"""Lossless: grey values are what they were."""


class VideoWriter:
    """One video with its sound.

    Args:
        container: PyAV's, open for writing.
        coding: of pictures.
        size: height and width of the pictures.
        aspect: a pixel's width to its height.
        rate: frames a second, about; each has its own time.
        time_base: of the times.
        sound: PyAV's streams of the source, whose packets are copied as they are.
    """

    def __init__(
        self,
        container: Any,
        coding: Coding,
        size: tuple[int, int],
        aspect: Fraction,
        rate: Fraction,
        time_base: Fraction,
        sound: Sequence[Any],
    ) -> None:
        self._container, self._coding, self._time_base = container, coding, time_base
        # A Fraction of large numbers is no rate of H.264's.
        stream = container.add_stream(
            coding.codec, rate=Fraction(rate).limit_denominator(1001), options=coding.options
        )
        self._stream: Any = stream
        self._stream.pix_fmt = coding.format
        context = self._stream.codec_context
        context.time_base = time_base
        context.sample_aspect_ratio = aspect
        context.color_range = FULL if coding.format == "gray" else LIMITED
        if coding.format != "gray":
            context.colorspace = context.color_primaries = context.color_trc = BT709
        even = coding.format != "gray"
        self._stream.height, self._stream.width = (side + side % 2 * even for side in size)
        self._sound = {each: container.add_stream_from_template(each) for each in sound}

    def write(self, image: Array, pts: int) -> None:
        """H x W x 3 uint8 RGB, or H x W uint8 as they are; each later than the one before."""
        import av

        if self._coding.format != "gray":
            height, width = image.shape[:2]
            image = np.pad(image, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._coding.format == "gray":
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="gray")
        else:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame = frame.reformat(format=self._coding.format, dst_colorspace="ITU709")
        frame.pts, frame.time_base = pts, self._time_base
        self._container.mux(self._stream.encode(frame))

    def copy(self, packet: "Packet[Any]") -> None:
        """A packet of sound; one that cannot stand where it comes is left out."""
        import av

        packet.stream = self._sound[packet.stream]
        with suppress(av.FFmpegError, ValueError):
            self._container.mux(packet)

    def finish(self) -> None:
        self._container.mux(self._stream.encode())


@contextmanager
def video_writer(
    path: Path,
    coding: Coding,
    size: tuple[int, int],
    aspect: Fraction,
    rate: Fraction,
    time_base: Fraction,
    sound: Sequence[Any] = (),
) -> Iterator[VideoWriter]:
    """Raises:
    UserError: this PyAV cannot write it.
    """
    import av

    with atomic_write(path) as temporary:
        try:
            with av.open(f"file:{temporary}", "w", options=REPRODUCIBLE) as container:
                writer = VideoWriter(container, coding, size, aspect, rate, time_base, sound)
                yield writer
                writer.finish()
        except (av.FFmpegError, av.codec.codec.UnknownCodecError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                raise  # it would for every file
            raise UserError(f"{path.name} cannot be written in {coding.codec} ({error})") from None
