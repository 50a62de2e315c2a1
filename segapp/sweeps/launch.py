"""Starts runs through Hydra's launchers: one after another, on this machine's cores, or as jobs of a cluster."""

import importlib
import logging
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from hydra._internal.callbacks import Callbacks
from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.errors import HydraException
from hydra.types import HydraContext
from omegaconf import DictConfig

from segapp.base.errors import Stopped, UserError
from segapp.base.hydra_flags import in_force, split_flags
from segapp.cli import guarded
from segapp.sweeps.jobs import ONE_RUN, Job, quoted
from segapp.training.trainer import Watch

log = logging.getLogger(__name__)

QUIET = (
    "hydra.hydra_logging.root=null",
    "hydra.job_logging.root=null",
    "hydra.output_subdir=null",
    "hydra.mode=MULTIRUN",
)
"""The tools log by themselves, and keep a run's config in its folder."""

MakeWatch = Callable[[Path], Watch]
"""By a run's folder."""


def check_launcher(master: DictConfig) -> None:
    """Raises:
    UserError: within the launcher's own keys something else is named that Hydra would call.
    """
    inner = [value for key, value in master.hydra.launcher.items() if key != "_target_"]
    if "_target_" in str(inner):
        raise UserError("hydra.launcher: a config runs no code here; take the inner _target_ out")


@dataclass(frozen=True)
class Launch:
    """Args:
    master: the config of the sweep, of which Hydra's part says how runs are launched.
    flags: say where configs are, as typed.
    """

    hydra: Hydra
    master: DictConfig
    flags: Sequence[str]
    make_watch: MakeWatch | None = None

    def __call__(self, jobs: Sequence[Job]) -> dict[int, int]:
        """Runs them. Returns the exit status of each, by number, as far as the launcher tells.

        Raises:
            Stopped: a signal has broken off a run of this process.
        """
        titles = {str(job.folder): job.chosen for job in jobs}
        for name in ("hydra", "hydra_plugins"):  # which say the same at more length
            logging.getLogger(name).setLevel(logging.WARNING)
        try:
            launcher = Plugins.instance().instantiate_launcher(
                hydra_context=HydraContext(config_loader=self.hydra.config_loader, callbacks=Callbacks()),
                task_function=partial(run_job, tuple(self.flags), titles, self.make_watch),
                config=self.master,
            )
        except HydraException as error:
            raise UserError(f"hydra.launcher: {error}") from None
        sweep = self.master.hydra.sweep.dir
        words = [
            [
                *job.overrides,
                f"hydra.sweep.dir={quoted(sweep)}",
                f"hydra.sweep.subdir={quoted(job.folder.relative_to(sweep))}",
            ]
            for job in jobs
        ]
        try:
            results = launcher.launch(words, initial_job_idx=jobs[0].number)
        except Exception as error:  # of a process that was killed, which the launchers tell each in their own way
            log.warning("the launcher has ended: %s", " ".join(str(error).split()))
            return {}
        statuses = {}
        for job, each in zip(jobs, results, strict=True):
            try:
                statuses[job.number] = int(each.return_value)
            except Exception:  # a bug, which ends this run alone
                log.exception("run %s", job.folder.name)
        return statuses


def run_job(flags: Sequence[str], titles: Mapping[str, str], make_watch: MakeWatch | None, config: DictConfig) -> int:
    """One run, in whatever process the launcher has put it. Returns the exit status.

    Args:
        titles: what to call a run, by its folder.

    Raises:
        Stopped: a signal has broken it off, and its checkpoint is saved.
    """
    hydra = HydraConfig.get()
    command = importlib.import_module("segapp.commands.train")
    folder = Path(hydra.runtime.output_dir)
    main = command.main if make_watch is None else partial(command.main, watch=make_watch(folder))
    log.info("run %s: %s", folder.name, titles[str(folder)])
    join_tasks()
    with in_force(split_flags(flags)[0]):
        status = guarded(main, [*hydra.overrides.task, ONE_RUN], less_memory=command.LESS_MEMORY)
    if status > 128:
        put_back(status - 128)
        raise Stopped(status - 128)
    return status


def join_tasks() -> None:
    """The tasks of a submitit job are the processes of the run, as those of torchrun would be."""
    if "SUBMITIT_EXECUTOR" not in os.environ:
        return
    from submitit import JobEnvironment
    from submitit.helpers import TorchDistributedEnvironment

    if JobEnvironment().num_tasks > 1:
        TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)


def put_back(number: int) -> None:
    """Lets submitit put the job back into the queue, if that is what the signal was for: training, which saves first,
    has taken it."""
    if "SUBMITIT_EXECUTOR" in os.environ and number != signal.SIGTERM and callable(signal.getsignal(number)):
        signal.raise_signal(number)
