"""Hydra's own flags, such as --cfg job or --config-dir DIR: read from a command line as Hydra reads them."""

import argparse
import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra

from segapp.base.config import as_typed
from segapp.base.errors import UserError
from segapp.base.paths import CONF

SWEEPS = "hydra.mode=MULTIRUN"
"""Another way to say --multirun."""


@dataclass(frozen=True)
class Flags:
    """Those that were given, by Hydra's names.

    Args:
        cfg: job, hydra or all: show the config, of which `package` is a part, in place of running.
        info: what to show of Hydra itself.
    """

    config_dir: Path | None = None
    config_name: str | None = None
    help: bool = False
    cfg: str | None = None
    package: str | None = None
    resolve: bool = False
    info: str | None = None
    shell_completion: bool = False
    multirun: bool = False

    @property
    def folder_words(self) -> list[str]:
        """As typed, where the user's own configs are."""
        return [] if self.config_dir is None else ["--config-dir", str(self.config_dir)]

    @property
    def words(self) -> list[str]:
        """As typed, where configs are and which one is read."""
        return [*self.folder_words, *([] if self.config_name is None else ["--config-name", self.config_name])]

    @property
    def folders(self) -> list[Path]:
        """Where configs are looked for, the first found first."""
        return [CONF, *([] if self.config_dir is None else [self.config_dir])]

    def refuse(self, why: str) -> None:
        """Raises:
        UserError: something is to be shown or swept, or another config read, and `why` that cannot be.
        """
        given = {
            "--cfg": self.cfg,
            "--info": self.info,
            "--multirun": self.multirun,
            "--config-name": self.config_name,
        }
        for flag, value in given.items():
            if value:
                raise UserError(f"{flag}: {why}")


class Shown(BaseException):
    """What was asked for is shown; nothing is left to do."""


_current = Flags()


@contextmanager
def in_force(flags: Flags) -> Iterator[None]:
    """Until the end, `current` gives these."""
    global _current
    before, _current = _current, flags
    try:
        yield
    finally:
        _current = before


def current() -> Flags:
    return _current


def split_flags(arguments: Sequence[str]) -> tuple[Flags, list[str]]:
    """The flags, and what else is on the command line, in its order.

    Raises:
        UserError: Hydra has no such flag, or it is not for these tools.
    """
    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        unknown = message.removeprefix("unrecognized arguments: ")
        if unknown != message:
            raise UserError(
                f"{unknown}: options are written key=value, as in checkpoint=latest, but for Hydra's flags; "
                "--help shows them"
            )
        raise UserError(message)

    parser.error = refuse  # type: ignore[method-assign]
    files = {f"./{each}": each for each in arguments if each.startswith("-") and Path(each).exists()}
    typed = [f"./{each}" if each in files.values() else each for each in arguments]
    given = parser.parse_intermixed_args(typed)
    rest = [files.get(each, each) for each in given.overrides]
    if not given.help:
        _check(given)
    directory = None if given.config_dir is None else Path(os.path.abspath(as_typed(given.config_dir)))  # noqa: PTH100
    if directory is not None and not directory.is_dir():
        raise UserError(f"--config-dir {given.config_dir}: no such folder")
    name = None if given.config_name is None else given.config_name.removesuffix(".yaml")
    shown = {key: getattr(given, key) for key in ("cfg", "package", "resolve", "info", "shell_completion")}
    return Flags(directory, name, given.help, **shown, multirun=given.multirun or SWEEPS in rest), rest


def _check(given: argparse.Namespace) -> None:
    """Raises:
    UserError: flags that do not go together, or are not for these tools.
    """
    if given.config_path is not None:
        raise UserError("--config-path: the project's configs are always read; --config-dir DIR adds yours")
    if given.experimental_rerun is not None:
        raise UserError("--experimental-rerun: a run keeps its own config, and resume=DIR goes on with it")
    if given.hydra_help:
        raise UserError("--hydra-help: Hydra's flags are on hydra.cc/docs/advanced/hydra-command-line-flags")
    commands = {
        "--run": given.run,
        "--multirun": given.multirun,
        "--cfg": given.cfg is not None,
        "--info": given.info is not None,
        "--shell-completion": given.shell_completion,
    }
    if sum(commands.values()) > 1:
        several = ", ".join(flag for flag, is_given in commands.items() if is_given)
        raise UserError(f"{several}: only one of these can be given")
    for flag in ("resolve", "package"):
        if getattr(given, flag) and given.cfg is None:
            raise UserError(f"--{flag} goes with --cfg job, --cfg hydra or --cfg all")


def start_hydra(flags: Flags, job: str) -> Hydra:
    """Hydra with the project's configs and the user's; `job` is what it calls the program."""
    GlobalHydra.instance().clear()
    version.setbase("1.3")
    search_path = create_config_search_path(str(CONF))
    if flags.config_dir is not None:
        at = SearchPathQuery(provider="schema")
        search_path.prepend(provider="command-line", path=f"file://{flags.config_dir}", anchor=at)
    return Hydra.create_main_hydra2(job, search_path)


def show(flags: Flags, hydra: Hydra, name: str, overrides: list[str]) -> NoReturn:
    """Prints, as Hydra does, what --cfg or --info asks for of the config `name`.

    Raises:
        Shown: always, if nothing was wrong.
        UserError: --package names nothing.
    """
    with redirect_stderr(io.StringIO()) as said:
        try:
            if flags.cfg is not None:
                hydra.show_cfg(name, overrides, flags.cfg, flags.package, flags.resolve)
            else:
                hydra.show_info(flags.info or "all", name, overrides)
        except SystemExit:
            raise UserError(said.getvalue()) from None
    raise Shown


def complete(flags: Flags, name: str, overrides: list[str]) -> None:
    """Does what --shell-completion asks for: install=SHELL, uninstall=SHELL or query=SHELL.

    Raises:
        UserError: none of these, or a shell that Hydra does not know.
    """
    try:
        start_hydra(flags, name).shell_completion(name, overrides)
    except ValueError as error:
        raise UserError(f"--shell-completion: {error}") from None
    except KeyError:
        raise UserError("--shell-completion query=SHELL is asked by the shell itself; install=bash") from None
    finally:
        GlobalHydra.instance().clear()


def config_files(group: str, flags: Flags | None = None) -> dict[str, Path]:
    """The files of a config group by their names, the user's among them; "" is the group of the tools' own."""
    folders = (flags or _current).folders
    return {file.stem: file for folder in reversed(folders) for file in sorted((folder / group).glob("*.yaml"))}


def is_group(name: str) -> bool:
    return any((folder / name).is_dir() for folder in _current.folders)
