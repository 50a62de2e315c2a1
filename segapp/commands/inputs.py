"""What a user names on the command line: images and runs, by files, folders, globs."""

import glob
import logging
import posixpath
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

from segapp.base.config import as_typed
from segapp.base.errors import UserError, number_of
from segapp.base.images import IMAGE_SUFFIXES
from segapp.base.paths import runs_folder
from segapp.base.videos import VIDEO_SUFFIXES, is_stream, is_video_file
from segapp.data.packed_strings import PackedPaths, PackedStrings
from segapp.data.pairs import COMPANIONS, is_picture, names_below, read_lines
from segapp.runs.layout import METRICS, is_training_run
from segapp.weights.find import LATEST

log = logging.getLogger(__name__)

LIST = "@"
"""Begins the name of a file whose lines are paths."""


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Paths and Hydra overrides. What exists is a path, whatever is in its name; else key=value is an override."""
    paths: list[str] = []
    overrides: list[str] = []
    for argument in arguments:
        is_named = Path(argument).exists() or is_stream(argument) or argument.startswith(LIST) or matches(argument)
        (overrides if "=" in argument and not is_named else paths).append(argument)
    return paths, overrides


def matches(pattern: str) -> list[str]:
    """What a glob finds, absolute ones and ** included, in order."""
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 (Path.glob takes no absolute pattern)


class Inputs(NamedTuple):
    """What is to be labelled: images, however many in little memory, and videos by their names."""

    images: Sequence[Path]
    videos: list[str]

    @property
    def names(self) -> list[str]:
        return [*map(str, self.images), *self.videos]


def find_images(arguments: Sequence[str]) -> list[Path]:
    """As `find_inputs`, where no video is of use.

    Raises:
        UserError: one is named.
    """
    images, videos = find_inputs(arguments)
    if videos:
        raise UserError(f"{videos[0]}: a video; name images")
    return list(images)


def find_inputs(arguments: Sequence[str]) -> Inputs:
    """Every image and video named, in order and once each.

    A folder gives its images, those in its folders too, but no videos; @FILE the paths that are its lines, of which
    those that are not there are told of later. Cameras and network streams are videos.

    Raises:
        UserError: nothing is named, or something that is not there or holds no image.
    """
    if not arguments:
        raise UserError("no image is named; python tools/predict.py img.jpg [more files, folders or globs]")
    found: dict[str, None] = {}
    unread: Counter[str] = Counter()
    for argument in arguments:
        if argument.startswith(LIST) and not Path(argument).exists():
            found.update(dict.fromkeys(line for line in read_lines(as_typed(argument.removeprefix(LIST))) if line))
            continue
        if is_stream(argument) and not Path(argument).exists():
            found[argument] = None
            continue
        path = _typed(argument)
        if path.is_dir():
            names = names_below(path)
            inside = "" if path == Path() else f"{str(path).rstrip('/')}/"
            pictures = sorted(filter(is_picture, names), key=lambda name: name.replace("/", "\0"))  # folder by folder
            files = [inside + name for name in pictures]
            unread.update(posixpath.splitext(name)[1].lower() for name in names if not is_picture(name))
        elif path.exists():
            files = [str(path)]
        else:
            files = [each for each in matches(str(path)) if Path(each).is_file()]
            if not files:
                raise UserError(f"{argument}: no such file or folder")
        if not files:
            videos = [kind for kind in unread if kind in VIDEO_SUFFIXES]
            named = f"; its videos are named themselves, as in {path}/*{videos[0]}" if videos else ""
            raise UserError(f"{argument}: no images in this folder ({', '.join(sorted(IMAGE_SUFFIXES))}){named}")
        found.update(dict.fromkeys(files))
    _tell_of_unread(unread)
    return sorted_out(found)


def sorted_out(names: Collection[str]) -> Inputs:
    """Images, and what is a video by its name."""
    videos = [name for name in names if is_stream(name) or is_video_file(name)]
    images = PackedStrings(name for name in names if not (is_stream(name) or is_video_file(name)))
    return Inputs(PackedPaths(Path(), images), videos)


def _tell_of_unread(unread: Counter[str]) -> None:
    others = {kind: number for kind, number in sorted(unread.items()) if kind not in COMPANIONS}
    if others:
        told = ", ".join(f"{number} {kind}" for kind, number in others.items())
        log.warning(
            "%s not read: the ending is that of no picture (%s)", number_of(sum(others.values()), "file"), told
        )
        if others.keys() & VIDEO_SUFFIXES:
            log.warning("videos are named themselves, as in folder/*.mp4")


def _typed(argument: str) -> Path:
    """The path as it stands if it exists, else with its ~ expanded."""
    if not argument:
        raise UserError("an argument is empty; name an image")
    path = Path(argument)
    return path if path.exists() else as_typed(path)


def find_runs(arguments: Sequence[str], *, most: int) -> list[Path]:
    """The folders of all runs named, in order and once each.

    Raises:
        UserError: fewer than two or more than `most`, or something that is no run.
    """
    runs: dict[Path, Path] = {}
    for argument in arguments:
        for folder in _run_folders(argument):
            runs.setdefault(folder.resolve(), folder)
    if len(runs) < 2:
        have = f"{next(iter(runs.values()))} is one run" if runs else "no run is named"
        raise UserError(f"{have}; name two or more: python tools/compare.py runs/train/ONE runs/train/OTHER")
    if len(runs) > most:
        raise UserError(f"{len(runs)} runs are named; {most} fit on one page")
    return list(runs.values())


def _run_folders(argument: str) -> list[Path]:
    if argument == LATEST:
        newest = max(runs_folder().rglob(METRICS), key=lambda path: path.stat().st_mtime, default=None)
        if newest is None:
            raise UserError(f"no run yet under {runs_folder()}; name a run's folder")
        return [newest.parent]
    path = as_typed(argument)
    if not path.exists():
        folders = [each for each in map(Path, matches(str(path))) if is_training_run(each)]
        if not folders:
            raise UserError(f"{argument}: no such run")
        return folders
    if is_training_run(path):
        return [path]
    inside = path.is_dir() and any(path.glob(f"*/{METRICS}"))
    raise UserError(f"{argument}: no run's folder, which holds {METRICS}" + (f"; try {path}/*" if inside else ""))
