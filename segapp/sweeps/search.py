"""A search in place of a grid: Optuna says what to try next, and which runs to break off."""

import logging
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf import DictConfig, OmegaConf
from pydantic import Field

from segapp.base.compose import validate
from segapp.base.config import Config
from segapp.base.errors import UserError
from segapp.base.extras import require
from segapp.cli import PARTIAL
from segapp.sweeps.jobs import Job, ReadConfig, checked
from segapp.sweeps.launch import Launch
from segapp.training.trainer import Watch

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.storages import BaseStorage

log = logging.getLogger(__name__)

TARGET = "segapp.sweeps.search"
"""How conf/hydra/sweeper/optuna.yaml names this module."""
BROKEN_OFF = "broken off"
JOURNAL = "study.journal"
FOLDER, FIXED = "folder", "fixed"
"""What is kept beside Optuna's own: a trial's folder, and what the study does not search."""


class SearchConfig(Config):
    """See conf/hydra/sweeper/optuna.yaml."""

    n_trials: int = Field(gt=0)
    n_jobs: int = Field(gt=0)
    sampler: Literal["tpe", "random"]
    prune: bool
    startup_trials: int = Field(ge=0)
    seed: int = Field(ge=0)
    study_name: str
    storage: str | None
    params: dict[str, Any] | None


def read_search(master: DictConfig, overrides: Sequence[Override]) -> SearchConfig:
    """The sweeper's config, checked.

    Raises:
        UserError: Optuna is missing, a value does not fit, or nothing is searched.
    """
    require("sweep", "hydra/sweeper=optuna")
    values = OmegaConf.to_container(master.hydra.sweeper, resolve=True)
    assert isinstance(values, dict)
    del values["_target_"]
    try:
        config = validate({str(key): value for key, value in values.items()}, SearchConfig)
    except UserError as error:
        raise UserError(f"hydra.sweeper.{error}") from None
    if not any(each.is_sweep_override() for each in overrides):
        raise UserError("nothing is searched; give a key several values, as in optimizer.lr=interval(0.01, 0.3)")
    return config


def _ends(override: Override) -> list[str]:
    """What is checked of a key before the first run: its values, or the ends of its interval."""
    value = override.value()
    if isinstance(value, IntervalSweep):
        return [str(value.start), str(value.end)]
    return list(override.sweep_string_iterator())


def probes(overrides: Sequence[Override]) -> list[tuple[str, ...]]:
    """Words of runs that hold, together, each end of each key."""
    fixed = _fixed(overrides)
    ends = {each.get_key_element(): _ends(each) for each in overrides if each.is_sweep_override()}
    first = {key: values[0] for key, values in ends.items()}
    points = [first, *(first | {key: value} for key, values in ends.items() for value in values[1:])]
    return [(*fixed, *(f"{key}={value}" for key, value in point.items())) for point in points]


def _fixed(overrides: Sequence[Override]) -> list[str]:
    return [
        f"{each.get_key_element()}={each.get_value_element_as_str()}"
        for each in overrides
        if not each.is_sweep_override()
    ]


def distribution(override: Override) -> "BaseDistribution":
    """Optuna's for Hydra's syntax: interval(a, b), int(interval(a, b)), tag(log, interval(a, b)), or values."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    value = override.value()
    if not isinstance(value, IntervalSweep):
        return CategoricalDistribution(list(override.sweep_string_iterator()))
    logarithmic = "log" in value.tags
    assert value.start is not None
    assert value.end is not None
    if isinstance(value.start, int) and isinstance(value.end, int):
        return IntDistribution(value.start, value.end, log=logarithmic)
    return FloatDistribution(float(value.start), float(value.end), log=logarithmic)


def _storage(address: str) -> "BaseStorage":
    """Of an address, or of a file that Optuna writes as a journal."""
    from optuna.storages import JournalStorage, get_storage
    from optuna.storages.journal import JournalFileBackend

    return get_storage(address) if "://" in address else JournalStorage(JournalFileBackend(address))


def _watch(address: str, study_name: str, prune: bool, startup_trials: int, folder: Path) -> Watch:
    """Tells Optuna of the validations of the run in `folder`, wherever it is made."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = optuna.pruners.MedianPruner(n_startup_trials=startup_trials) if prune else optuna.pruners.NopPruner()
    study = optuna.load_study(study_name=study_name, storage=_storage(address), pruner=pruner)
    (mine,) = (each for each in study.get_trials(deepcopy=False) if each.user_attrs.get(FOLDER) == folder.name)
    trial = optuna.trial.Trial(study, mine._trial_id)

    def watch(iteration: int, score: float) -> bool:
        trial.report(score, iteration)
        if trial.should_prune():
            log.info("iteration %d: below the other runs' median; the run is broken off", iteration)
            return False
        return True

    return watch


class Search:
    """Asks Optuna for runs, makes them, and tells it how they were, until there are enough.

    Args:
        folder: of the sweep.
        place: gives the job of a number and its words.
    """

    def __init__(
        self,
        config: SearchConfig,
        overrides: Sequence[Override],
        folder: Path,
        launch: Launch,
        place: Callable[[int, Sequence[str]], Job],
    ) -> None:
        self.config = config
        self.folder = folder
        self.place = place
        self.fixed = _fixed(overrides)
        self.space = {each.get_key_element(): distribution(each) for each in overrides if each.is_sweep_override()}
        self.address = config.storage or str(folder / JOURNAL)
        make_watch = partial(_watch, self.address, config.study_name, config.prune, config.startup_trials)
        self.launch = replace(launch, make_watch=make_watch)

    def run(self, read: ReadConfig) -> tuple[list[Job], dict[int, str]]:
        """All runs of the study, and what became of those that have not come to their end."""
        from optuna.trial import TrialState

        study = self._study()
        while True:
            trials = study.get_trials(deepcopy=False)
            going = [each.number for each in trials if each.state == TrialState.RUNNING]  # stopped before their end
            asked = min(self.config.n_trials - len(trials), self.config.n_jobs - len(going))
            try:
                numbers = going[: self.config.n_jobs] + [study.ask(self.space).number for _ in range(asked)]
            except ValueError as error:
                raise UserError(f"the study in {self.address} was made with other values: {error}") from None
            if not numbers:
                break
            jobs = self._jobs(study, numbers, read)
            for job in jobs:  # by which the run's process finds its trial
                study._storage.set_trial_user_attr(self._ids(study)[job.number], FOLDER, job.folder.name)
            statuses = self.launch(jobs)
            for job in jobs:
                self._tell(study, job, statuses.get(job.number))
        return self._results(study, read)

    def _study(self) -> "Study":
        """Raises:
        UserError: the storage cannot be had, or holds a search of other runs.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            study = optuna.create_study(
                study_name=self.config.study_name,
                storage=_storage(self.address),
                direction="maximize",
                load_if_exists=True,
            )
        except Exception as error:  # of whatever database
            raise UserError(f"hydra.sweeper.storage={self.address}: {error}") from None
        fixed = study.user_attrs.get(FIXED)
        if fixed is None:
            study.set_user_attr(FIXED, self.fixed)
        elif fixed != self.fixed:
            changed = ", ".join(sorted(set(fixed) ^ set(self.fixed)))
            raise UserError(f"the study in {self.address} is of other runs ({changed}); name another folder")
        seed = self.config.seed + len(study.get_trials(deepcopy=False))  # going on, the same draws would come again
        startup = self.config.startup_trials
        if self.config.sampler == "tpe":
            study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=startup)
        else:
            study.sampler = optuna.samplers.RandomSampler(seed=seed)
        return study

    def _ids(self, study: "Study") -> list[int]:
        """By which the storage calls the trials."""
        return [each._trial_id for each in study.get_trials(deepcopy=False)]

    def _jobs(self, study: "Study", numbers: Sequence[int], read: ReadConfig) -> list[Job]:
        trials = study.get_trials(deepcopy=False)
        params = [trials[number].params for number in numbers]
        words = [[f"{key}={value}" for key, value in each.items()] for each in params]
        jobs = [
            replace(self.place(number, [*self.fixed, *each]), chosen=shlex.join(each))
            for number, each in zip(numbers, words, strict=True)
        ]
        return checked(jobs, read, same=True)

    def _tell(self, study: "Study", job: Job, status: int | None) -> None:
        from optuna.trial import TrialState

        best = job.run.best
        if best is None or status not in (0, PARTIAL):
            study.tell(job.number, state=TrialState.FAIL)
        elif not job.is_done:
            study.tell(job.number, state=TrialState.PRUNED)
        else:
            study.tell(job.number, best.score)

    def _results(self, study: "Study", read: ReadConfig) -> tuple[list[Job], dict[int, str]]:
        from optuna.trial import TrialState

        trials = study.get_trials(deepcopy=False)
        states = {TrialState.FAIL: "failed", TrialState.PRUNED: BROKEN_OFF}
        jobs = self._jobs(study, [each.number for each in trials], read)
        return jobs, {each.number: states[each.state] for each in trials if each.state in states}
