"""Videos are read upright, each frame at its time, whatever is wrong with the file."""

from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest

from segapp.base.errors import UserError
from segapp.base.images import TooManyPixelsError
from segapp.base.videos import Cut, Frame, VideoSource, is_stream, is_video_file, open_video
from tests.videos import make_clip, picture, spoil

MANY = 10**6
WHOLE = Cut()


def frames_of(source: VideoSource) -> list[Frame]:
    with closing(source):
        return [item for item in source.items() if isinstance(item, Frame)]


def read(path: Path, cut: Cut = WHOLE) -> list[Frame]:
    return frames_of(open_video(str(path), cut, MANY))


def milliseconds(path: Path, cut: Cut = WHOLE) -> list[int]:
    source = open_video(str(path), cut, MANY)
    base = source.time_base
    return [round(frame.pts * base * 1000) for frame in frames_of(source)]


@pytest.mark.parametrize("name", ["clip.mkv", "clip.avi", "a:b %d.mkv"])
def test_pictures_are_what_they_were(tmp_path: Path, name: str) -> None:
    path = make_clip(tmp_path / "clip.mkv", (5, 7), codec="ffv1")
    if name.endswith("avi"):
        path = make_clip(tmp_path / name, (5, 7), codec="ffv1")
    frames = read(path.rename(tmp_path / name))
    assert [frame.number for frame in frames] == [*range(6)]
    for number, frame in enumerate(frames):
        assert np.array_equal(frame.image, picture((5, 7), number))


def test_times_are_kept(tmp_path: Path) -> None:
    uneven = [0, 40, 97, 171, 262, 1262, 1263]
    assert milliseconds(make_clip(tmp_path / "uneven.mkv", times=uneven, codec="ffv1")) == uneven
    assert milliseconds(make_clip(tmp_path / "uneven.mp4", times=uneven)) == uneven
    later = [time + 700 for time in uneven]
    assert milliseconds(make_clip(tmp_path / "later.mkv", times=later, codec="ffv1")) == uneven


@pytest.mark.parametrize(
    ("cut", "times"),
    [
        (Cut(every=3), [0, 300, 600, 900]),
        (Cut(start=0.45), [50, 150, 250, 350, 450]),
        (Cut(end=0.3), [0, 100, 200]),
        (Cut(every=2, start=0.2, end=0.7), [0, 200, 400]),
        (Cut(start=5), []),
        (Cut(end=50), [*range(0, 1000, 100)]),
    ],
)
def test_a_cut_begins_at_its_start(tmp_path: Path, cut: Cut, times: list[int]) -> None:
    clip = make_clip(tmp_path / "clip.mp4", times=range(0, 1000, 100), sound="aac")
    assert milliseconds(clip, cut) == times
    source = open_video(str(clip), cut, MANY)
    assert source.total is not None
    assert abs(source.total - len(times)) <= 1
    with closing(source):
        sound = [item for item in source.items() if not isinstance(item, Frame)]
    end = (cut.end or 1) - cut.start
    assert all(-0.03 <= packet.pts * packet.time_base <= end + 0.03 for packet in sound if packet.pts is not None)
    assert bool(sound) == (end > 0)


@pytest.mark.parametrize(("turned", "mirrored"), [(0, True), (90, False), (180, False), (-90, False), (90, True)])
def test_turned_videos_stand_upright(tmp_path: Path, turned: int, mirrored: bool) -> None:
    clip = make_clip(tmp_path / "clip.mp4", (32, 48), turned=turned, mirrored=mirrored)
    expected = np.rot90(picture((32, 48)), turned // 90)
    if mirrored:
        expected = expected[:, ::-1]
    image = read(clip)[0].image
    assert image.shape == expected.shape
    assert np.abs(image.astype(int) - expected).mean() < 12  # what H.264 changes


def test_a_broken_frame_is_counted_and_passed_over(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mov", codec="png")
    spoil(clip, 2)
    source = open_video(str(clip), Cut(), MANY)
    frames = frames_of(source)
    assert [round(frame.pts * source.time_base * 10) for frame in frames] == [0, 1, 3, 4, 5]
    assert (source.broken, source.ended) == (1, "")
    assert np.array_equal(frames[-1].image, picture((32, 48), 5))


@pytest.mark.parametrize(("name", "codec"), [("clip.mkv", "ffv1"), ("clip.mov", "png")])
def test_a_cut_file_gives_what_it_has(tmp_path: Path, name: str, codec: str) -> None:
    options = {"movflags": "faststart"} if codec == "png" else {}
    clip = make_clip(tmp_path / name, times=range(0, 9000, 300), codec=codec, options=options)
    content = clip.read_bytes()
    clip.write_bytes(content[: len(content) // 2])
    source = open_video(str(clip), Cut(), MANY)
    assert 10 < len(frames_of(source)) < 20
    assert source.ended


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.random.default_rng(0).bytes(5000), "no video, of an unknown format"),
        (b"", "no video, of an unknown format"),
        (b"hello", "no video, of an unknown format"),
        (None, "cannot be opened (No such file or directory)"),
    ],
)
def test_what_is_no_video_is_told_in_a_line(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "x.mp4").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read(tmp_path / "x.mp4")
    assert str(caught.value).startswith(f"{tmp_path / 'x.mp4'}: {message}")


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=48000)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 48000), np.int16), format="s16", layout="mono")
        silence.sample_rate = 48000
        container.mux([*stream.encode(silence), *stream.encode()])
    with pytest.raises(UserError, match="sound.mp4: no video in it, only sound"):
        read(tmp_path / "sound.mp4")


def test_pixels_are_bounded(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", (32, 48))
    with pytest.raises(TooManyPixelsError, match="48 x 32 pixels are more than the bound of 1535"):
        open_video(str(clip), Cut(), 32 * 48 - 1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("camera:93", "there is no such camera"),
        ("camera:front", "a camera is named by its number"),
        ("rtsp://127.0.0.1:9/x", "cannot be opened"),
        ("http://127.0.0.1:9/x.mp4", "cannot be opened"),
    ],
)
def test_what_cannot_be_opened_is_told_at_once(name: str, message: str) -> None:
    with pytest.raises(UserError, match=f"{name}: {message}"):
        open_video(name, Cut(), MANY)


def test_names() -> None:
    assert all(map(is_stream, ("camera:0", "rtsp://host/x?a=b", "http://x")))
    assert not any(map(is_stream, ("x.mp4", "save=rtsp://x", "C:/x", "/x://y")))
    assert is_video_file("a.b.MP4")
    assert not is_video_file("mp4")
