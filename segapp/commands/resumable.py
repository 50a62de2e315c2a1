"""A job that may go on where one was broken off: `resume=DIR`, or `resume=auto output=DIR`."""

import logging
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from segapp.base.compose import read_config, upgraded, validate
from segapp.base.config import Config, as_typed, flat, parse_yaml
from segapp.base.distributed import Processes
from segapp.base.errors import Stopped, UserError
from segapp.base.hydra_flags import current
from segapp.runs.layout import CONFIG, is_evaluation, is_prediction, is_training_run

log = logging.getLogger(__name__)

C = TypeVar("C", bound=Config)


def read_resumable(tool: str, overrides: Sequence[str], kind: type[C], may_change: frozenset[str]) -> C:
    """The config of a new run; with resume=DIR that of the run in DIR; with resume=auto as given, and the same as that
    of the run in output=DIR if there is one.

    Args:
        kind: has the keys `resume` and `output`, the latter given with resume=auto.
        may_change: keys that another start of the run may have otherwise.

    Raises:
        UserError: an unknown or unfit key; no run in DIR; a key that a resumed run keeps.
    """
    resume = next((each.partition("=")[2] for each in overrides if each.startswith("resume=")), "null")
    if resume in ("null", "auto"):
        config = read_config(tool, overrides, kind)
        if resume == "auto":
            _check_same(config, may_change)
        return config
    folder = as_typed(resume)
    current().refuse(f"resume={resume} takes the config of that run, {folder / CONFIG}")
    if tool == "eval" and is_training_run(folder):
        raise UserError(f"resume={folder} is a training run and no evaluation; checkpoint={folder} scores it")
    values = _saved_config(folder, kind)
    if odd := _odd_keys(values, kind):
        raise UserError(f"{folder / CONFIG} is of another tool or version, or damaged ({', '.join(odd)}); start anew")
    changes = [each for each in overrides if not each.startswith("resume=")]
    for change in changes:
        if change.partition("=")[0] not in may_change:
            may = ", ".join(sorted(may_change))
            raise UserError(f"{change}: a resumed run keeps its config; only {may} may change")
    try:
        merged = OmegaConf.merge(OmegaConf.create(values), OmegaConf.from_dotlist(changes))
        merged = OmegaConf.merge(merged, {"resume": resume, "output": resume})
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise UserError(f"resume={resume}: {error}") from None
    return validate(OmegaConf.to_container(merged), kind)  # type: ignore[arg-type]


def check_unused(folder: Path | None, *, resumable: bool) -> None:
    """Raises:
    UserError: output=`folder` holds what training or an evaluation has left.
    """
    if folder is None:
        return
    if is_training_run(folder):
        raise UserError(f"output={folder} is the folder of a training run; name another one")
    if is_evaluation(folder):
        goes_on = f"resume={folder} goes on with it or reports anew, or " if resumable else ""
        raise UserError(f"output={folder} is the folder of an evaluation; {goes_on}name another one")


@contextmanager
def resume_hint(output: Path, job: Processes) -> Iterator[None]:
    """Says, where the work is broken off and no mistake in it is to blame, how it goes on. SIGTERM breaks it off, too.

    Raises:
        Stopped: by SIGTERM.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        raise Stopped(number)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except (KeyboardInterrupt, Stopped, OSError, MemoryError, RuntimeError):
        if job.main and (is_evaluation(output) or is_prediction(output)):
            what = "counted" if is_evaluation(output) else "done"
            log.warning("what was %s is kept; resume=%s goes on", what, output)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _saved_config(folder: Path, kind: type[Config]) -> dict[str, Any]:
    """Raises:
    UserError: no run there, or a damaged config.
    """
    try:
        values = parse_yaml((folder / CONFIG).read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"resume={folder}: no run to resume there ({error.strerror}); resume=auto output={folder} starts one"
        ) from None
    except ValueError:
        values = None
    if not isinstance(values, dict) or not values:
        raise UserError(f"{folder / CONFIG}: damaged")
    values = upgraded(values)
    if "runtime" in kind.model_fields:
        values.setdefault("runtime", "torch")  # there was no other
    return values


def _odd_keys(values: dict[str, Any], kind: type[Config]) -> list[str]:
    """Those that are none of a config's, or that it lacks."""
    fields = kind.kind_of(values).model_fields
    needed = {name for name, field in fields.items() if field.is_required()}
    return sorted((values.keys() - fields.keys()) | (needed - values.keys()))


def _check_same(config: C, may_change: frozenset[str]) -> None:
    """Raises:
    UserError: output=DIR holds a run of another config, or no run but other files.
    """
    here = config.model_dump(mode="json")
    folder = Path(here["output"])
    present = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if CONFIG not in present:
        if present - {path.name for path in folder.glob(".*")}:  # of a write that was cut off
            raise UserError(f"output={folder} holds files, but no run; name another folder")
        return
    there = _saved_config(folder, type(config))
    if not _odd_keys(there, type(config)):
        there = validate(there, type(config)).model_dump(mode="json")  # with what has a default since
    here, there = flat(here), flat(there)
    for key in sorted((here.keys() | there.keys()) - may_change - {"resume", "output"}):
        if here.get(key) != there.get(key):
            raise UserError(
                f"output={folder} holds a run with another config: {key} is {there.get(key)} there and "
                f"{here.get(key)} here; name another folder, or give the same"
            )
