"""What predict does with videos: labels one after the other, and says what became of each."""

import re
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from pydantic import Field, model_validator

from segapp.base.config import Words
from segapp.base.distributed import Processes
from segapp.base.errors import UserError, number_of
from segapp.base.extras import require
from segapp.base.images import TooManyPixelsError
from segapp.base.videos import Cut, is_stream, open_video
from segapp.inference.open import PredictorOptions
from segapp.inference.predictor import Predictor
from segapp.inference.saving import output_names
from segapp.inference.video import KINDS, MaskFiles, VideoResult, label_video
from segapp.runs.layout import PROGRESS


class VideoOptions(PredictorOptions):
    """The keys of conf/predict.yaml that videos are labelled by."""

    save: Words = Field(min_length=1)
    max_pixels: int
    every: int = Field(gt=0)
    start: float = Field(ge=0)
    end: float | None = Field(gt=0)
    smoothing: float = Field(ge=0)
    video_masks: MaskFiles

    @model_validator(mode="after")
    def _in_order(self) -> "VideoOptions":
        if self.end is not None and self.end <= self.start:
            raise ValueError(f"end={self.end:g} does not lie behind start={self.start:g}")
        return self


def check_videos(videos: Sequence[str], kinds: Sequence[str]) -> None:
    """Raises:
    UserError: PyAV is missing, or something is to be saved that is of images alone.
    """
    require("video", videos[0])
    others = [kind for kind in kinds if kind not in KINDS]
    if others:
        raise UserError(f"save={others[0]} is for images; of a video {' and '.join(KINDS)} can be saved")


def video_names(videos: Sequence[str]) -> list[str]:
    """A name for each one's outputs: its stem, or what of an address can stand in a name, as camera-0."""
    return output_names(Path(re.sub(r"[^\w.-]+", "-", each) + "." if is_stream(each) else each) for each in videos)


def label_videos(
    videos: Sequence[str], predictor: Predictor, options: VideoOptions, output: Path, job: Processes
) -> list[str]:
    """Labels this process's part of those that no earlier start has done; prints what became of each.

    Returns:
        In the main process, a line for each of all that failed, or has gaps.

    Raises:
        KeyboardInterrupt, Stopped: one was broken off; what is done of it is there.
    """
    names = video_names(videos)
    problems = []
    for at in range(job.rank, len(videos), job.world_size):
        done = output / PROGRESS / f"{names[at]}.done"  # nothing of it: its end was reached
        if done.is_file():
            continue
        try:
            problem = _label(videos[at], names[at], predictor, options, output)
        except TooManyPixelsError as error:
            problem = f"{error}, or raise max_pixels"
        except UserError as error:
            problem = str(error)
        else:
            done.touch()
        if problem:
            problems.append(problem)
    return [each for part in job.gather(problems) for each in part] if videos else []


def _label(video: str, name: str, predictor: Predictor, options: VideoOptions, output: Path) -> str:
    """Gives, in a line, what is missing in it."""
    cut = Cut(options.every, options.start, options.end)
    with closing(open_video(video, cut, options.max_pixels)) as source:
        result = label_video(
            source,
            predictor,
            output,
            name,
            options.save,
            start=options.start,
            smoothing=options.smoothing,
            mask_files=options.video_masks,
        )
    gaps = [f"{number_of(source.broken, 'broken frame')} passed over"] if source.broken else []
    gaps += [source.ended] if source.ended else []
    _tell(video, result, gaps)
    if result.stopped is not None:
        raise result.stopped
    return f"{video}: {'; '.join(gaps)}" if gaps else ""


def _tell(video: str, result: VideoResult, gaps: Sequence[str]) -> None:
    told = [number_of(result.frames, "frame"), *gaps]
    told += [f"{number_of(result.missed, 'frame')} came while the network was busy"] if result.missed else []
    told += ["broken off; what is done plays"] if result.stopped is not None else []
    print(f"{video}: {', '.join(told)}")
    for path in result.files:
        print(f"{'':13} {path}")
