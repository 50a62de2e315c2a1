"""The runs of a sweep: which there are, where each goes, and whether all can be made."""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from segapp.base.compose import typed_words
from segapp.base.errors import UserError
from segapp.runs.history import Run, read_run
from segapp.runs.layout import REPORT
from segapp.training.config import TrainConfig

ONE_RUN = "hydra.mode=RUN"
"""Said to each run of a sweep, which a config may ask for."""
ReadConfig = Callable[[list[str]], TrainConfig]


@dataclass(frozen=True)
class Job:
    """A run of a sweep.

    Args:
        words: its overrides, but for those that every sweep adds.
        config: checked; None until it is.
        chosen: what tells it from the others, as it is typed.
    """

    number: int
    words: tuple[str, ...]
    folder: Path
    config: TrainConfig | None = None
    chosen: str = ""

    @property
    def overrides(self) -> list[str]:
        return [*self.words, f"output={quoted(self.folder)}", "resume=auto", ONE_RUN]

    @property
    def run(self) -> Run:
        return read_run(self.folder)

    @property
    def is_done(self) -> bool:
        """Trained, and scored if it is to be."""
        assert self.config is not None
        return self.run.finished and (self.config.validate_every is None or (self.folder / REPORT).exists())


def quoted(path: Path) -> str:
    """For Hydra's grammar."""
    text = str(path).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{text}'"


def sweep_words(overrides: Sequence[str]) -> list[str]:
    """Overrides as Hydra reads them; in a sweep text with commas is several values, and only what is none of Hydra's
    grammar is taken as it stands."""
    words = []
    parser = OverridesParser.create()
    for each in overrides:
        try:
            parser.parse_override(each)
            words.append(each)
        except HydraException:
            words += typed_words("", [each], TrainConfig)
    return words


def grid(overrides: list[Override]) -> list[tuple[str, ...]]:
    """Every combination of the values, in Hydra's order.

    Raises:
        UserError: a key has a range without steps, which only a search can take.
    """
    try:
        (combinations,) = BasicSweeper.split_arguments(overrides, None)
    except HydraException as error:
        raise UserError(f"{error}; hydra/sweeper=optuna searches an interval") from None
    return [tuple(each) for each in combinations]


def checked(jobs: Sequence[Job], read: ReadConfig, *, same: bool) -> list[Job]:
    """The jobs with their configs.

    Args:
        read: gives a run's config, and knows whether the run in its folder is the same.
        same: what lies in a job's folder must be of that job.

    Raises:
        UserError: one of them cannot be made, or its folder holds another run.
    """
    found: list[Job] = []
    folders: dict[Path, int] = {}
    for job in jobs:
        try:
            config = read(job.overrides if same else [*job.words, ONE_RUN])
        except UserError as error:
            raise UserError(f"run {job.number} ({shlex.join(job.words)}): {error}") from None
        if job.folder in folders:
            several = f"runs {folders[job.folder]} and {job.number}"
            raise UserError(f"{several} would have one folder, {job.folder}; see hydra.sweep.subdir")
        folders[job.folder] = job.number
        found.append(replace(job, config=config))
    return found


def told_apart(jobs: Sequence[Job]) -> list[Job]:
    """The jobs, each with the words that not all have."""
    common = set(jobs[0].words).intersection(*(job.words for job in jobs))
    return [replace(job, chosen=shlex.join(word for word in job.words if word not in common)) for job in jobs]
