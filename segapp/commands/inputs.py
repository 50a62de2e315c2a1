"""What a user names on the command line: files, folders, globs."""

import glob
from collections.abc import Sequence
from pathlib import Path

from segapp.base.config import as_typed
from segapp.base.errors import UserError
from segapp.base.images import IMAGE_SUFFIXES


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Paths and Hydra overrides. What exists is a path, whatever is in its name; else key=value is an override."""
    paths: list[str] = []
    overrides: list[str] = []
    for argument in arguments:
        is_override = "=" in argument and not Path(argument).exists() and not matches(argument)
        (overrides if is_override else paths).append(argument)
    return paths, overrides


def matches(pattern: str) -> list[str]:
    """What a glob finds, absolute ones and ** included, in order."""
    return sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207 (Path.glob takes no absolute pattern)


def find_images(arguments: Sequence[str]) -> list[Path]:
    """Every image named, in order and once each. A folder gives its images, those in its folders too.

    Raises:
        UserError: nothing is named, or something that is not there or holds no image.
    """
    if not arguments:
        raise UserError("no image is named; python tools/predict.py img.jpg [more files, folders or globs]")
    found: dict[Path, None] = {}
    for argument in arguments:
        path = _typed(argument)
        if path.is_dir():
            files = sorted(
                each for each in path.rglob("*") if each.suffix.lower() in IMAGE_SUFFIXES and each.is_file()
            )
        elif path.exists():
            files = [path]
        else:
            files = [each for each in map(Path, matches(str(path))) if each.is_file()]
            if not files:
                raise UserError(f"{argument}: no such file or folder")
        if not files:
            raise UserError(f"{argument}: no images in this folder ({', '.join(sorted(IMAGE_SUFFIXES))})")
        found.update(dict.fromkeys(files))
    return list(found)


def _typed(argument: str) -> Path:
    """The path as it stands if it exists, else with its ~ expanded."""
    if not argument:
        raise UserError("an argument is empty; name an image")
    path = Path(argument)
    return path if path.exists() else as_typed(path)


def output_names(images: Sequence[Path]) -> list[str]:
    """A name for each image's results: its stem, with a number where another image has the same one."""
    taken: set[str] = set()
    names = []
    for path in images:
        name, number = path.stem, 2
        while name.lower() in taken:  # some file systems see no difference
            name, number = f"{path.stem}-{number}", number + 1
        taken.add(name.lower())
        names.append(name)
    return names
