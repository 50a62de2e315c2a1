"""Training with --multirun: Hydra's syntax says which runs there are, its launchers start them; all are compared."""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra._internal.hydra import Hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from segapp.base.compose import errors_in_one_line
from segapp.base.config import as_typed
from segapp.base.distributed import rank
from segapp.base.errors import Stopped, UserError
from segapp.base.files import write_text
from segapp.base.hydra_flags import SWEEPS, current, start_hydra
from segapp.cli import PARTIAL, output_folder
from segapp.sweeps.jobs import Job, ReadConfig, checked, grid, sweep_words, told_apart
from segapp.sweeps.launch import QUIET, Launch, check_launcher
from segapp.sweeps.search import BROKEN_OFF, TARGET, Search, probes, read_search
from segapp.sweeps.summary import DONE, ranked, summarise

log = logging.getLogger(__name__)

TRAIN = "train"
MULTIRUN_FILE = "multirun.yaml"
"""Of the sweep's folder: its composed config, as Hydra keeps it."""
HYDRAS_FOLDER, HYDRAS_SUBFOLDER = "multirun/${now:%Y-%m-%d}/${now:%H-%M-%S}", "${hydra.job.num}"
"""What Hydra has where nobody names a folder; ours is runs/sweep/DATE_NAME, and the same inside."""


def make_sweep(arguments: Sequence[str], read: ReadConfig) -> int:
    """Makes the runs, after a check of them all, and compares them. Returns the exit status.

    Args:
        read: gives the checked config of a run.

    Raises:
        UserError: a run among them cannot be made; none has been started.
        Stopped: a signal has broken off a run of this process.
    """
    if rank() or "TORCHELASTIC_RUN_ID" in os.environ:
        raise UserError("--multirun starts its runs itself: without torchrun, by hydra/launcher (docs/cluster.md)")
    output, goes_on, words = _folder_words(arguments)
    name, words = current().config_name or TRAIN, sweep_words(words)
    with errors_in_one_line(name, words):
        hydra = start_hydra(current(), TRAIN)
        master = hydra.compose_config(name, [*QUIET, *words], RunMode.MULTIRUN)
        HydraConfig.instance().set_config(master)
        check_launcher(master)
        overrides = _parsed(master, hydra)
        folders: dict[str, Any] = OmegaConf.to_container(master.hydra.sweep, resolve=False)  # type: ignore[assignment]
        if output is None and folders["dir"] != HYDRAS_FOLDER:
            output = as_typed(master.hydra.sweep.dir)
        searched = read_search(master, overrides) if master.hydra.sweeper["_target_"] == TARGET else None
        points = grid(overrides) if searched is None else probes(overrides)
    begun = _has_begun(output, goes_on=goes_on)
    base = Path("sweep") if output is None else output.absolute()

    def place(number: int, words: Sequence[str]) -> Job:
        inside = str(number)
        if folders["subdir"] != HYDRAS_SUBFOLDER:
            config = hydra.config_loader.load_sweep_config(master, list(words))
            with read_write(config.hydra), open_dict(config.hydra):
                config.hydra.job.num = config.hydra.job.id = number
            HydraConfig.instance().set_config(config)
            inside = str(config.hydra.sweep.subdir)
        return Job(number, tuple(words), base / inside)

    jobs = checked(list(map(place, range(len(points)), points)), read, same=begun and searched is None)
    assert jobs[0].config is not None
    with output_folder(output, "sweep", jobs[0].config.name) as made:
        folder = made.absolute()
        with read_write(master.hydra):
            master.hydra.sweep.dir = str(folder)
        write_text(folder / MULTIRUN_FILE, OmegaConf.to_yaml(master))
        launch = Launch(hydra, master, current().words)
        try:
            if searched is None:
                moved = told_apart([_moved(job, base, folder) for job in jobs])
                states = _run(moved, launch)
            else:
                search = Search(searched, overrides, folder, launch, lambda *job: _moved(place(*job), base, folder))
                moved, states = search.run(read)
        except (KeyboardInterrupt, Stopped):
            log.warning("the sweep is broken off; the same command with resume=auto output=%s goes on with it", made)
            raise
    rows = ranked(moved, states)
    summarise(folder, rows, current().words)
    bad = [row for row in rows if row.state not in (DONE, BROKEN_OFF)]
    for row in bad:
        log.error("run %s: %s; %s", row.job.folder.name, row.state, row.job.chosen)
    return PARTIAL if bad else 0


def _moved(job: Job, base: Path, folder: Path) -> Job:
    return replace(job, folder=folder / job.folder.relative_to(base))


def _run(jobs: Sequence[Job], launch: Callable[[Sequence[Job]], dict[int, int]]) -> dict[int, str]:
    """Runs those that are not done. Returns what became of each, where its folder does not tell."""
    left = [job for job in jobs if not job.is_done]
    if len(left) < len(jobs):
        log.info("%d of %d runs are done already", len(jobs) - len(left), len(jobs))
    statuses = launch(left) if left else {}
    return {number: "failed" for number, status in statuses.items() if status not in (0, PARTIAL)}


def _folder_words(arguments: Sequence[str]) -> tuple[Path | None, bool, list[str]]:
    """output=DIR of the sweep, whether it goes on, and the other words."""
    output, resume, words = None, "null", []
    for each in arguments:
        key, _, value = each.partition("=")
        if key == "output":
            output = None if value == "null" else as_typed(value.strip("'\""))
        elif key == "resume":
            resume = value
        elif each != SWEEPS:
            words.append(each)
    if resume not in ("null", "auto"):
        raise UserError(f"resume={resume}: a sweep goes on with --multirun resume=auto output=ITS_FOLDER")
    return output, resume == "auto", words


def _parsed(master: DictConfig, hydra: Hydra) -> list[Override]:
    """The sweeper's own parameters, and over them what is typed."""
    params = master.hydra.sweeper.get("params") or {}
    words = [*(f"{key}={value}" for key, value in params.items()), *master.hydra.overrides.task]
    parsed = OverridesParser.create(config_loader=hydra.config_loader).parse_overrides(words)
    return list({each.get_key_element(): each for each in parsed}.values())


def _has_begun(output: Path | None, *, goes_on: bool) -> bool:
    """Whether there is something in the sweep's folder.

    Raises:
        UserError: there is, and nobody said that the sweep goes on; or that is said of no folder.
    """
    if output is None:
        if goes_on:
            raise UserError("resume=auto needs output=DIR, the folder of the sweep to start or to continue")
        return False
    begun = output.is_dir() and any(not each.name.startswith(".") for each in output.iterdir())
    if begun and not goes_on:
        raise UserError(f"output={output} holds files already; name another folder, or add resume=auto")
    if begun and not (output / MULTIRUN_FILE).exists():
        raise UserError(f"output={output} holds files, but no sweep; name another folder")
    return begun
