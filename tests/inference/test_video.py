"""Videos are labelled frame by frame: what is written lines up with the source, however it ends."""

import csv
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from segapp.base.errors import UserError
from segapp.base.masks import read_mask
from segapp.base.videos import Cut, Frame, open_video
from segapp.inference.options import Whole
from segapp.inference.predictor import Predictor
from segapp.inference.video import AHEAD, Smoother, VideoResult, label_video, read_ahead
from segapp.models.encoders.interface import INCEPTION
from segapp.runtimes.interface import RuntimeSpec
from tests.videos import decoded, make_clip, picture

WHOLE = Cut()
CLASSES = ("red", "green", "blue")


class Colours:
    """A runtime whose logits are the picture's colours: the label is the brightest one."""

    spec = RuntimeSpec(CLASSES, None, INCEPTION, output_stride=8, logits_stride=1)
    device = torch.device("cpu")
    description = "colours"

    def __init__(self, interrupt_at: int | None = None) -> None:
        self.calls, self.interrupt_at = 0, interrupt_at

    def __call__(self, images: Tensor) -> Tensor:
        self.calls += 1
        if self.calls == self.interrupt_at:
            raise KeyboardInterrupt
        return images


def label(clip: Path, folder: Path, cut: Cut = WHOLE, runtime: Colours | None = None, **options: Any) -> VideoResult:
    predictor = Predictor(runtime or Colours(), Whole(canvas=None, scales=(1,), flip=False))
    with closing(open_video(str(clip), cut, 10**6)) as source:
        return label_video(source, predictor, folder, "x", ("mask", "overlay"), start=cut.start, **options)


def labels_of(image: Any) -> Any:
    return image.argmax(2)


@pytest.mark.parametrize("size", [(32, 48), (33, 47), (4, 4), (2, 2)])
def test_masks_are_the_networks_own_at_the_sources_times(tmp_path: Path, size: tuple[int, int]) -> None:
    times = [0, 40, 97, 171, 1262]
    result = label(make_clip(tmp_path / "clip.mkv", size, times, codec="ffv1"), tmp_path)
    assert (result.frames, result.missed, result.stopped) == (5, 0, None)
    masks = decoded(tmp_path / "masks" / "x.mkv", "gray")
    assert masks.times == times
    for number, mask in enumerate(masks.pictures):
        assert np.array_equal(mask, labels_of(picture(size, number)))
    overlay = decoded(tmp_path / "overlays" / "x.mp4")
    assert overlay.times == times
    height, width = overlay.pictures[0].shape[:2]
    assert width == size[1] + size[1] % 2, "H.264 takes even sides"
    assert height % 2 == 0
    with (tmp_path / "frames" / "x.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [round(float(row["seconds"]) * 1000) for row in rows] == times
    for number, row in enumerate(rows):
        expected = np.bincount(labels_of(picture(size, number)).ravel(), minlength=3) / np.prod(size)
        assert [float(row[f"share {name}"]) for name in CLASSES] == pytest.approx(expected, rel=1e-5)
    assert not list(tmp_path.rglob(".*")), "no temporary file is left"


def test_an_overlay_neither_flickers_nor_changes_its_size(tmp_path: Path) -> None:
    """Its legend is the same below every frame, whichever classes occur."""
    random = np.random.default_rng(0)
    frames = [random.integers(0, 2, (48, 64, 1), np.uint8) * colour for colour in np.eye(3) * 255]
    make_clip(tmp_path / "clip.mkv", (48, 64), range(0, 600, 100), codec="ffv1")
    predictor = Predictor(Colours(), Whole(canvas=None, scales=(1,), flip=False))
    source = Made([np.ascontiguousarray(frame.astype(np.uint8)) for frame in frames])
    label_video(source, predictor, tmp_path, "x", ("overlay",))
    legends = [image[56:].astype(int) for image in decoded(tmp_path / "overlays" / "x.mp4").pictures]
    assert legends[0].std() > 20, "something stands in it"
    assert all(np.abs(legend - legends[0]).mean() < 2 for legend in legends)


@pytest.mark.parametrize(("codec", "container", "kept_in"), [("aac", "mp4", "mp4"), ("pcm_s16le", "mkv", "mkv")])
def test_sound_is_copied(tmp_path: Path, codec: str, container: str, kept_in: str) -> None:
    clip = make_clip(tmp_path / f"clip.{container}", times=range(0, 2000, 100), sound=codec)
    label(clip, tmp_path, Cut(every=4))
    overlay = decoded(tmp_path / "overlays" / f"x.{kept_in}")
    assert overlay.times == [*range(0, 2000, 400)]
    assert overlay.sound == decoded(clip).sound > 0


def test_a_part_begins_at_nought_and_its_table_at_the_sources_time(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", times=range(0, 2000, 100), sound="aac")
    label(clip, tmp_path, Cut(every=2, start=0.5, end=1.2))
    assert decoded(tmp_path / "overlays" / "x.mp4").times == [0, 200, 400, 600]
    with (tmp_path / "frames" / "x.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["frame"] for row in rows] == ["0", "2", "4", "6"]
    assert [float(row["seconds"]) for row in rows] == pytest.approx([0.5, 0.7, 0.9, 1.1])


def test_masks_as_pictures(tmp_path: Path) -> None:
    label(make_clip(tmp_path / "clip.mkv", codec="ffv1"), tmp_path, Cut(every=3), mask_files="png")
    files = sorted((tmp_path / "masks" / "x").iterdir())
    assert [path.name for path in files] == ["000000.png", "000003.png"]
    assert np.array_equal(read_mask(files[1]), labels_of(picture((32, 48), 3)))


def test_ctrl_c_leaves_whole_files(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", times=range(0, 2000, 100), sound="aac")
    result = label(clip, tmp_path, runtime=Colours(interrupt_at=8))
    assert isinstance(result.stopped, KeyboardInterrupt)
    assert result.frames == 7
    for path in (tmp_path / "overlays" / "x.mp4", tmp_path / "masks" / "x.mkv"):
        assert decoded(path).times == [*range(0, 700, 100)]
    assert len((tmp_path / "frames" / "x.csv").read_text().splitlines()) == 8


def test_ctrl_c_before_the_first_frame_leaves_nothing(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4")
    with pytest.raises(KeyboardInterrupt):
        label(clip, tmp_path, runtime=Colours(interrupt_at=1))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [clip]


def test_pixels_that_are_not_square_stay_so(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", aspect=Fraction(4, 3), turned=90)
    label(clip, tmp_path)
    with av.open(str(tmp_path / "overlays" / "x.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(3, 4), "its sides are exchanged"


def test_a_failing_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    clip = make_clip(tmp_path / "clip.mp4", times=range(0, 3000, 100))
    monkeypatch.setattr("segapp.inference.video.blend", full)
    with pytest.raises(OSError, match="No space left"):
        label(clip, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [clip]


def test_a_video_without_a_frame_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="x: none of its frames can be decoded, or none from start=100 on"):
        label(make_clip(tmp_path / "clip.mp4"), tmp_path, Cut(start=100))


class Made:
    """Frames of a test, without end where none are given."""

    time_base, rate, aspect, broken, ended = Fraction(1, 10), Fraction(10), Fraction(1), 0, ""

    def __init__(self, images: Sequence[Any] = (), *, live: bool = False) -> None:
        self.total: int | None = None
        self.images, self.live, self.sound, self.given = images, live, list[Any](), 0

    def items(self) -> Iterator[Frame]:
        while not self.images or self.given < len(self.images):
            image = self.images[self.given] if self.images else np.zeros((2, 2, 3), np.uint8)
            yield Frame(self.given, self.given, image)
            self.given += 1

    def close(self) -> None: ...


def test_few_frames_are_held_and_a_live_source_is_not_kept_waiting() -> None:
    source, result = Made(), VideoResult()
    with closing(read_ahead(source, result)) as items:
        assert [item.number for item in (next(items), next(items)) if isinstance(item, Frame)] == [0, 1]
        for _ in range(50):
            threading.Event().wait(0.01)
            if source.given > AHEAD:
                break
        assert source.given <= 2 + AHEAD + 1
    assert result.missed == 0
    live = Made(live=True)
    with closing(read_ahead(live, result)) as items:
        next(items)
        while live.given < 100:
            threading.Event().wait(0.01)
    assert result.missed >= 100 - 2 - AHEAD


def test_smoothing_is_exponential_in_time() -> None:
    """Worked by hand: after a time of ln 2, half of the past is left; two steps of half of it are one."""
    time = float(np.log(2))
    one, other = torch.tensor([[[0.9]], [[0.1]]]), torch.tensor([[[0.3]], [[0.7]]])
    smoother = Smoother(1.0)
    assert smoother(one, 0).tolist() == [[0]]
    assert smoother(other, time).tolist() == [[0]], "(0.9 + 0.3) / 2 is 0.6"
    assert smoother(other, 2 * time).tolist() == [[1]], "(0.6 + 0.3) / 2 is 0.45"
    halves = Smoother(1.0)
    for at in range(5):
        labels = halves(one if at == 0 else other, at * time / 2)
    assert labels.tolist() == [[1]]


def test_smoothing_holds_back_a_single_frame(tmp_path: Path) -> None:
    red, blue = (np.full((16, 16, 3), colour, np.uint8) for colour in ((200, 0, 100), (100, 0, 200)))
    source = Made([red, red, red, blue, red, red])
    predictor = Predictor(Colours(), Whole(canvas=None, scales=(1,), flip=False))
    for smoothing, expected in ((0.0, [0, 0, 0, 2, 0, 0]), (0.5, [0] * 6)):
        source.given = 0
        label_video(source, predictor, tmp_path, "x", ("mask",), smoothing=smoothing)
        assert [mask[0, 0] for mask in decoded(tmp_path / "masks" / "x.mkv", "gray").pictures] == expected
