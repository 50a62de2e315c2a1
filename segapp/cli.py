"""What every tool does: composes its config, checks it, runs, and turns errors into one line."""

import difflib
import errno
import importlib
import io
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import torch
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

import segapp
from segapp.base.config import Config
from segapp.base.devices import keep_freed_memory
from segapp.base.distributed import ALONE, Processes, is_of_another_process, rank
from segapp.base.errors import Stopped, UserError
from segapp.base.files import discarded_if_empty, output_parent, writable_folder
from segapp.base.logs import ProgressHandler
from segapp.base.paths import CONF, PACKAGE, as_invoked, runs_folder

OmegaConf.register_new_resolver("here", lambda path: str(Path.cwd() / path), replace=True)
OmegaConf.register_new_resolver("package", lambda path: str(PACKAGE / path), replace=True)

log = logging.getLogger(__name__)

C = TypeVar("C", bound=Config)

PARTIAL = 1
"""Exit status when some images failed and the rest was done."""
REFUSED = 2
"""Exit status when nothing was done, for an error that one line explains."""


TOOLS = ("train", "eval", "predict", "compare", "prepare_data", "import_weights", "voc_server", "benchmark")
"""Each is a module of segapp/commands with `main`, its help as its docstring and, where its config is of another
name, `CONFIGS`.
"""


def main(arguments: Sequence[str]) -> int:
    """`segapp TOOL ...`. Returns the exit status."""
    name, *rest = arguments or ["--help"]
    if name in TOOLS:
        return run_tool(name, rest)
    if name in ("-h", "--help"):
        print("\n".join(["segapp TOOL ... (--help after a tool says more)", "", *map(_line, TOOLS)]))
        return 0
    if name == "--version":
        print(segapp.__version__)
        return 0
    near = difflib.get_close_matches(name, TOOLS, 1)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(TOOLS)}"
    sys.stderr.write(f"error: {name} is no tool of segapp; {hint}\n")
    return REFUSED


def _line(tool: str) -> str:
    doc = importlib.import_module(f"segapp.commands.{tool}").__doc__ or ""
    return f"  {tool:15} {doc.strip().splitlines()[0]}"


def run_tool(name: str, arguments: Sequence[str]) -> int:
    """Runs one of TOOLS. Returns the exit status."""
    command = importlib.import_module(f"segapp.commands.{name}")
    if {"-h", "--help"} & set(arguments):
        print(help_text(command.__doc__ or "", getattr(command, "CONFIGS", (name,))))
        return 0
    return guarded(command.main, arguments, less_memory=getattr(command, "LESS_MEMORY", ""))


def guarded(command: Callable[[list[str]], int], arguments: Sequence[str], *, less_memory: str = "") -> int:
    """Runs `command` on the arguments. Returns the exit status; a `UserError` is one line on standard error.

    Args:
        less_memory: which of its keys to turn where memory is short.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # file names need not be text
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:  # of segapp.base.quiet_start
        signal.signal(signal.SIGINT, signal.default_int_handler)
    keep_freed_memory()
    level = logging.ERROR if rank() else logging.INFO  # of a job's processes, the first one speaks
    logging.basicConfig(level=level, format="%(message)s", handlers=[ProgressHandler()], force=True)
    try:
        dashed = next((each for each in arguments if each.startswith("-") and not Path(each).exists()), None)
        if dashed is not None:
            raise UserError(f"{dashed}: options are written key=value, as in checkpoint=latest; --help shows them")
        status = command(list(arguments))
        sys.stdout.flush()
        return status
    except UserError as error:
        message = str(error)
    except torch.OutOfMemoryError:
        message = f"out of GPU memory; {less_memory}"
    except MemoryError:
        message = f"out of memory; {less_memory}"
    except RuntimeError as error:
        if "can't allocate memory" in str(error):  # PyTorch's, on a CPU
            message = f"out of memory; {less_memory}"
        elif is_of_another_process(error):
            message = "another process of the job has ended; what ended it is told by that one"
        else:
            raise
    except BrokenPipeError:  # whoever read what is printed has read enough, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        message = f"{error.filename or 'file'}: {error.strerror or error}"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = f" ({error.filename})" if error.filename else ""
            message = f"the disk is full{where}; make room, or name another folder with output=DIR"
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except Stopped as stopped:
        return 128 + stopped.signal
    process = f"process {rank()}: " if rank() else ""
    message = as_invoked(" ".join(message.split()))
    sys.stderr.write(f"{process}error: {message}\n")  # at once: other processes write, too
    return REFUSED


def help_text(doc: str, configs: Sequence[str]) -> str:
    """The tool's examples, and of each of its configs the choices in each group and the commented values."""
    lines = [doc.strip(), ""]
    for name in configs:
        config = (CONF / f"{name}.yaml").read_text(encoding="utf-8")
        defaults = yaml.safe_load(config).get("defaults", ())
        groups = [group for entry in defaults if isinstance(entry, dict) for each in entry for group in _nested(each)]
        if groups:
            lines += ["Choices:", *(f"  {group}={'|'.join(choices(group))}" for group in groups), ""]
        lines += [f"Every value can be set as key=value; conf/{name}.yaml:", "", config]
    return as_invoked("\n".join(lines))


def _nested(group: str) -> list[str]:
    """The group and the groups in it, as model and model/encoder."""
    inner = sorted(folder.name for folder in (CONF / group).iterdir() if folder.is_dir())
    return [group, *(each for name in inner for each in _nested(f"{group}/{name}"))]


def choices(group: str) -> list[str]:
    """The files of a config group."""
    return sorted(file.stem for file in (CONF / group).glob("*.yaml"))


def read_config(name: str, overrides: Sequence[str], kind: type[C]) -> C:
    """Composes conf/NAME.yaml with Hydra's overrides and checks every key and value.

    Raises:
        UserError: an unknown key, choice or value is named, with the nearest known one.
    """
    return validate(compose_config(name, overrides, kind), kind)


def compose_config(name: str, overrides: Sequence[str], kind: type[Config] = Config) -> dict[str, Any]:
    """The composed and resolved config as plain data, its keys not yet checked; `kind` says which take text."""
    GlobalHydra.instance().clear()
    try:
        overrides = [_quoted(_renamed(each), kind) for each in overrides]
        with initialize_config_dir(str(CONF), version_base="1.3"):
            try:
                composed = compose(name, overrides)
                return OmegaConf.to_container(composed, resolve=True, throw_on_missing=True)  # type: ignore[return-value]
            except OverrideParseException as error:
                message = f"cannot read {error.override!r}: write key=value, and quote special characters"
                raise UserError(message) from None
            except MissingConfigException as error:
                choices = ", ".join(error.options or ())
                raise UserError(f"{error.missing_cfg_file}: no such choice; there are: {choices}") from None
            except ConfigCompositionException as error:
                raise UserError(_composition_problem(error, _known_keys(name, overrides))) from None
    except (HydraException, OmegaConfBaseException) as error:
        hint = "; a list stands in brackets: key=[a,b]" if "Ambiguous value" in str(error) else ""
        raise UserError(f"{error}{hint}") from None
    except ValueError as error:  # Hydra's own, at a group set to null or to a number
        raise UserError(f"{' '.join(_choices(overrides))}: {error}") from None


RENAMED = {
    "model.encoder.weights": "encoder_weights",
    "model.bn_momentum": "bn_momentum",
    "model.activation_checkpointing": "activation_checkpointing",
    "splits_seen": "trained_on",
}
"""Keys of earlier versions, which are still understood on the command line, and what they are called now."""


def _renamed(override: str) -> str:
    prefix, key, rest = re.fullmatch(r"([+~]*)([^=]*)(.*)", override, re.DOTALL).groups()  # type: ignore[union-attr]
    if key not in RENAMED:
        return override
    log.warning("%s is now %s", key, RENAMED[key])
    return f"{prefix}{RENAMED[key]}{rest}"


def _types(kind: type[Config]) -> Iterator[tuple[str, Any]]:
    """Every dotted key of a config class, with each type that its value may be of."""
    for name, field in kind.model_fields.items():
        for each in _members(field.annotation):
            if isinstance(each, type) and issubclass(each, Config):
                yield from ((f"{name}.{inner}", kind_of_it) for inner, kind_of_it in _types(each))
            else:
                yield name, each


def _members(annotation: Any) -> Iterator[Any]:
    """The types of which a value may be: a union's, without what Annotated adds."""
    if get_origin(annotation) is Annotated:
        yield from _members(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for each in get_args(annotation):
            yield from _members(each)
    else:
        yield annotation


def _quoted(override: str, kind: type[Config]) -> str:
    """What is typed for text or a path is taken as it is, whatever Hydra's grammar keeps for itself.

    A value in brackets or braces is a list or a mapping where the key may be one, too.
    """
    key, equals, value = override.partition("=")
    types = [each for name, each in _types(kind) if name == key]
    if not equals or value == "null" or not {str, Path} & {each for each in types if isinstance(each, type)}:
        return override
    if not value:
        raise UserError(f"{key}= has no value; write {key}=null for none")
    if value[0] in "'\"" and value[-1] == value[0]:
        return override
    if value[0] in "[{" and any(get_origin(each) in (dict, list, tuple) for each in types):
        return override
    return f"{key}='" + value.replace("'", "\\'") + "'"


def validate(values: dict[str, Any], kind: type[C]) -> C:
    """Raises:
    UserError: names the first key that is unknown or whose value does not fit.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first, *others = error.errors()
        if not first["loc"]:  # of values that do not go together
            raise UserError(first["msg"].removeprefix("Value error, ")) from None
        name = _path_of(first["loc"], values)
        if first["type"] == "extra_forbidden":
            known = [key for key in _keys(values) if not f"{key}.".startswith(f"{name}.")]
            raise UserError(_unknown_key(name, known)) from None
        if first["type"] == "missing":
            raise UserError(f"{name} has no value; give it one, as in {name}=...") from None
        # A value that may be of several kinds has an error for each.
        reasons = [
            each["msg"].removeprefix("Value error, ")
            for each in (first, *others)
            if each is first or _path_of(each["loc"], values) == name
        ]
        raise UserError(f"{name}={first['input']}: {', or: '.join(reasons)}") from None


def _path_of(location: tuple[int | str, ...], values: Any) -> str:
    """Pydantic's location as a key of the config: without the names of a union's members."""
    path = []
    for at, key in enumerate(location):
        if isinstance(values, list) and isinstance(key, int):
            values = values[key] if key < len(values) else None
        elif isinstance(values, dict) and key in values:
            values = values[key]
        elif not isinstance(values, dict) or at < len(location) - 1:
            continue
        path.append(str(key))
    return ".".join(path)


def _choices(overrides: Sequence[str]) -> list[str]:
    """Those overrides that choose a config of a group."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return [each.input_line or "" for each in parsed if each.key_or_group and (CONF / each.key_or_group).is_dir()]


def _known_keys(name: str, overrides: Sequence[str]) -> list[str]:
    try:
        return _keys(compose(name, _choices(overrides)))
    except HydraException:  # one of the choices is what is wrong
        return _keys(compose(name))


def _keys(values: Any, prefix: str = "") -> list[str]:
    keys = []
    for key in values:
        value = values[key]
        keys.append(f"{prefix}{key}")
        if hasattr(value, "keys"):
            keys.extend(_keys(value, f"{prefix}{key}."))
    return keys


def _composition_problem(error: Exception, known: list[str]) -> str:
    refused = re.match(r"Could not (?:override|delete)[^']*'([^'=]+)", str(error))
    if refused:
        return _unknown_key(refused[1], known)
    return str(error).splitlines()[0]


def _unknown_key(key: str, known: list[str]) -> str:
    if key in RENAMED:
        return f"{key} is now {RENAMED[key]}"
    near = difflib.get_close_matches(key, known, 1, 0.6)
    if not near:
        by_last = {each.rpartition(".")[2]: each for each in known}
        near = [by_last[name] for name in difflib.get_close_matches(key.rpartition(".")[2], by_last, 1, 0.6)]
    return f"{key} is no key of this config" + (f"; did you mean {near[0]}?" if near else "; --help shows them all")


@contextmanager
def output_folder(output: Path | None, tool: str, name: str, job: Processes = ALONE) -> Iterator[Path]:
    """The folder named, or runs/TOOL/DATE_NAME; known to be writable, and removed if an error leaves it empty.

    The main process of a job makes it, and tells the others which.
    """
    if not job.main:
        yield job.from_main(Path())
        return
    if output is None:
        base = runs_folder() / tool / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{name}"
        writable_folder(base.parent)
        output, number = base, 2
        while True:  # two tools may start in one second
            try:
                output.mkdir()
                break
            except FileExistsError:
                output, number = base.with_name(f"{base.name}-{number}"), number + 1
        with discarded_if_empty([output]):
            yield job.from_main(output)
    else:
        with output_parent(output):
            yield job.from_main(output)
