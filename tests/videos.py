"""Clips for tests, made with PyAV."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.uint8]
MILLISECONDS = Fraction(1, 1000)


class Decoded(NamedTuple):
    """What a file holds: pictures, their times in milliseconds, and how many packets of sound there are."""

    pictures: list[Array]
    times: list[int]
    sound: int


def picture(size: tuple[int, int], number: int = 0) -> Array:
    """Red above on the left, green above on the right, blue below; a little brighter with each number."""
    image = np.zeros((*size, 3), np.uint8)
    height, width = size
    image[: height // 2, : width // 2, 0] = 200 + number
    image[: height // 2, width // 2 :, 1] = 200 + number
    image[height // 2 :, :, 2] = 200 + number
    return image


def make_clip(
    path: Path,
    size: tuple[int, int] = (32, 48),
    times: Sequence[int] = range(0, 600, 100),
    *,
    codec: str = "libx264",
    sound: str | None = None,
    turned: int = 0,
    mirrored: bool = False,
    aspect: Fraction | None = None,
    options: dict[str, str] | None = None,
) -> Path:
    """Writes `picture`s; ffv1 and png keep them as they are.

    Args:
        times: of the pictures, in milliseconds.
        sound: the codec of as much silence as there are seconds, at least one.
        turned: degrees counter-clockwise by which it is to be shown.
        aspect: a pixel's width to its height.
        options: of the container.
    """
    with av.open(str(path), "w", options=options or {}) as container:
        stream: Any = container.add_stream(codec, rate=10)
        stream.height, stream.width = size
        stream.pix_fmt = {"ffv1": "bgr0", "png": "rgb24"}.get(codec, "yuv420p")
        stream.codec_context.time_base = MILLISECONDS
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if turned or mirrored:
            stream.set_display_rotation(turned, hflip=mirrored)
        if sound is not None:
            speech: Any = container.add_stream(sound, rate=48000)
            silence = av.AudioFrame.from_ndarray(
                np.zeros((1, 48000 * (1 + max(times) // 1000)), np.int16), format="s16", layout="mono"
            )
            silence.sample_rate = 48000
            container.mux([*speech.encode(silence), *speech.encode()])
        for number, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(picture(size, number), format="rgb24")
            frame.pts, frame.time_base = time, MILLISECONDS
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def decoded(path: Path, format: str = "rgb24") -> Decoded:
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
        times = [round(float(frame.time or 0) * 1000) for frame in frames]
        pictures = [np.asarray(frame.to_ndarray(format=format), np.uint8) for frame in frames]
    with av.open(str(path)) as container:
        sound = sum(packet.size > 0 for packet in container.demux(container.streams.audio))
    return Decoded(pictures, times, sound)


def spoil(path: Path, number: int) -> None:
    """Overwrites what one of a clip's packets of pictures holds."""
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]
    at, size = packets[number]
    data = bytearray(path.read_bytes())
    assert at is not None
    data[at + 16 : at + size] = bytes(size - 16)
    path.write_bytes(data)
