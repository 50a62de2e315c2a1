"""What every tool does: finds its command, runs it, shows its help, and turns errors into one line."""

import difflib
import errno
import importlib
import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import yaml

import segapp
from segapp.base.devices import is_out_of_gpu_memory, is_out_of_memory, keep_freed_memory
from segapp.base.distributed import ALONE, Processes, is_of_another_process, rank
from segapp.base.errors import Stopped, UserError
from segapp.base.files import discarded_if_empty, output_parent, writable_folder
from segapp.base.hydra_flags import Flags, Shown, complete, config_files, current, in_force, split_flags
from segapp.base.logs import ProgressHandler
from segapp.base.paths import as_invoked, runs_folder

PARTIAL = 1
"""Exit status when some images failed and the rest was done."""
REFUSED = 2
"""Exit status when nothing was done, for an error that one line explains."""


TOOLS = (
    "train",
    "eval",
    "predict",
    "compare",
    "prepare_data",
    "import_weights",
    "export",
    "zoo",
    "voc_server",
    "benchmark",
    "serve",
)
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
    if name in ("-sc", "--shell-completion"):
        return completed(arguments)
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


def completed(arguments: Sequence[str]) -> int:
    """`segapp --shell-completion ...`, which the shell asks with what is typed so far in COMP_LINE."""
    program, _, typed = os.environ.get("COMP_LINE", "").partition(" ")
    tool, space, rest = typed.partition(" ")
    if not space and any(each.startswith("query=") for each in arguments):
        print("\n".join(each for each in TOOLS if each.startswith(tool)))
        return 0
    os.environ["COMP_LINE"] = f"{program} {rest}"
    return run_tool(tool if tool in TOOLS else "train", arguments)


def run_tool(name: str, arguments: Sequence[str]) -> int:
    """Runs one of TOOLS. Returns the exit status."""
    command = importlib.import_module(f"segapp.commands.{name}")
    configs: tuple[str, ...] = getattr(command, "CONFIGS", (name,))

    def run(arguments: list[str]) -> int:
        flags, rest = split_flags(arguments)
        with in_force(flags):
            if flags.help:
                print(help_text(command.__doc__ or "", configs, flags))
                return 0
            if not configs:
                flags.refuse(f"{name} has no config")
            if flags.shell_completion:
                complete(flags, configs[0] if configs else "train", rest)
                return 0
            if flags.multirun:
                if not hasattr(command, "sweep"):
                    raise UserError(f"--multirun: {name} does one thing at a time; train makes sweeps")
                return int(command.sweep(rest))
            return int(command.main(rest))

    return guarded(run, arguments, less_memory=getattr(command, "LESS_MEMORY", ""))


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
        status = command(list(arguments))
        sys.stdout.flush()
        return status
    except Shown:
        return 0
    except UserError as error:
        message = str(error)
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
    except Exception as error:
        if is_out_of_gpu_memory(error):
            message = f"out of GPU memory; {less_memory}"
        elif is_out_of_memory(error):
            message = f"out of memory; {less_memory}"
        elif isinstance(error, RuntimeError) and is_of_another_process(error):
            message = "another process of the job has ended; what ended it is told by that one"
        else:
            raise
    process = f"process {rank()}: " if rank() else ""
    message = as_invoked(" ".join(message.split()))
    sys.stderr.write(f"{process}error: {message}\n")  # at once: other processes write, too
    return REFUSED


FLAGS = """Hydra's flags: --cfg job|hydra|all [--package KEY] [--resolve], --info [KIND], --config-dir DIR (your own
experiment/, data/, model/encoder/ ... beside the project's), --config-name NAME, --shell-completion install=bash"""


def help_text(doc: str, configs: Sequence[str], flags: Flags) -> str:
    """The tool's examples, and of each of its configs the choices in each group and the commented values."""
    lines = [doc.strip(), "", *([FLAGS, ""] if configs else [])]
    for name in (flags.config_name, *configs[1:]) if flags.config_name is not None else configs:
        file = config_files(str(Path(name).parent)).get(Path(name).name)
        if file is None:
            raise UserError(f"--config-name {name}: no such config; there are: {', '.join(config_files(''))}")
        config = file.read_text(encoding="utf-8")
        defaults = yaml.safe_load(config).get("defaults", ())
        chosen = [each for entry in defaults if isinstance(entry, dict) for each in entry if "override" not in each]
        groups = [group for each in chosen for group in _nested(each)]
        if groups:
            project, *own = flags.folders
            inside = [each.name for folder in own for each in sorted(folder.iterdir()) if each.is_dir()]
            new = [f"+{group}" for group in inside if not (project / group).is_dir()]
            listed = {group: "|".join(sorted(config_files(group.lstrip("+")))) for group in [*groups, *new]}
            lines += ["Choices:", *(f"  {group}={files}" for group, files in listed.items()), ""]
        where = f"conf/{name}.yaml" if file.is_relative_to(flags.folders[0]) else file
        lines += [f"Every value can be set as key=value; {where}:", "", config]
    return as_invoked("\n".join(lines))


def _nested(group: str) -> list[str]:
    """The group and the groups in it, as model and model/encoder."""
    folders = [folder / group for folder in current().folders if (folder / group).is_dir()]
    inner = sorted({each.name for folder in folders for each in folder.iterdir() if each.is_dir()})
    return [group, *(each for name in inner for each in _nested(f"{group}/{name}"))]


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
