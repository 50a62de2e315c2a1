"""A tool's config: composed by Hydra from conf/ and the command line, and checked by pydantic, key by key."""

import difflib
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from hydra import compose
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from segapp.base.config import Config
from segapp.base.errors import UserError
from segapp.base.hydra_flags import config_files, current, is_group, show, start_hydra
from segapp.base.paths import PACKAGE

log = logging.getLogger(__name__)

OmegaConf.register_new_resolver("here", lambda path: str(Path.cwd() / path), replace=True)
OmegaConf.register_new_resolver("package", lambda path: str(PACKAGE / path), replace=True)

C = TypeVar("C", bound=Config)

RENAMED = {
    "model.encoder.weights": "encoder_weights",
    "model.bn_momentum": "bn_momentum",
    "model.activation_checkpointing": "activation_checkpointing",
    "splits_seen": "trained_on",
}
"""Keys of version 0.1, which are still understood, and what they are called now."""

LAUNCHERS = {"joblib": "joblib", "submitit_local": "submitit", "submitit_slurm": "submitit"}
"""Choices of hydra/launcher that an extra of pyproject.toml brings."""

OF_TASK = {"data=image_folder": "classification", "model=image_classifier": "classification"}
"""Choices that one task alone has."""

ADDED: dict[str, Any] = {
    "loss.top_k_iterations": 0,
    "loss.divide_by": "weights",
    "schedule.slow_start_iterations": 0,
    "schedule.slow_start_lr": 1e-4,
    "jpeg_decoder": "accurate",
    "white_level": 65535,
}
"""Keys that a kept config may lack, and the values that mean what was done without them."""


def choices(group: str) -> list[str]:
    """The files of a config group, the user's among them."""
    return sorted(config_files(group))


def read_config(name: str, overrides: Sequence[str], kind: type[C]) -> C:
    """Composes conf/NAME.yaml, or what --config-name says, with Hydra's overrides and checks every key and value.

    Raises:
        UserError: an unknown key, choice or value is named, with the nearest known one.
        Shown: --cfg or --info has asked for the config alone.
    """
    flags, words = current(), typed_words(name, overrides, kind)
    name = flags.config_name or name
    if flags.info is None:
        composed, unfit = _composed(name, words)
        config = validate(composed, kind)
        words += [f"~{key}" for key in unfit]
    if flags.cfg is not None or flags.info is not None:
        with errors_in_one_line(name, words):
            show(flags, start_hydra(flags, name), name, words)
    return config


def typed_words(name: str, overrides: Sequence[str], kind: type[Config]) -> list[str]:
    """Overrides as Hydra reads them: old keys renamed, text quoted, and what they imply added."""
    return [_quoted(_renamed(each), kind) for each in [*overrides, *_implied(name, overrides)]]


def compose_config(name: str, overrides: Sequence[str], kind: type[Config] = Config) -> dict[str, Any]:
    """The composed and resolved config as plain data, its keys not yet checked; `kind` says which take text."""
    return _composed(name, typed_words(name, overrides, kind))[0]


def _composed(name: str, overrides: list[str]) -> tuple[dict[str, Any], list[str]]:
    """The config, and the keys that are left out of it."""
    with errors_in_one_line(name, overrides):
        start_hydra(current(), name)
        composed = compose(name, overrides, return_hydra_config=True)
        _check_hydra(composed.hydra, overrides)
        with open_dict(composed):
            del composed["hydra"]
        unfit = _unfit(composed, overrides)
        for key in unfit:
            log.info("%s is left out: what is chosen has no such key", key)
        return OmegaConf.to_container(composed, resolve=True, throw_on_missing=True), unfit  # type: ignore[return-value]


@contextmanager
def errors_in_one_line(name: str, overrides: list[str]) -> Iterator[None]:
    """Raises:
    UserError: in place of what Hydra and OmegaConf raise.
    """
    try:
        yield
    except OverrideParseException as error:
        raise UserError(f"cannot read {error.override!r}: write key=value, and quote special characters") from None
    except MissingConfigException as error:
        raise UserError(_missing(error)) from None
    except ConfigCompositionException as error:
        if "Ambiguous value" in str(error):
            first = str(error).splitlines()[0]
            many = "a list stands in brackets, key=[a,b], text in quotes, and --multirun makes a run of each value"
            raise UserError(f"{first}; {many}") from None
        raise UserError(_composition_problem(error, _known_keys(name, overrides))) from None
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(str(error)) from None
    except ValueError as error:  # Hydra's own, at a group set to null or to a number
        raise UserError(f"{' '.join(_choices(overrides))}: {error}") from None
    finally:
        GlobalHydra.instance().clear()  # for whoever uses this as a library, and Hydra, too


def _check_hydra(hydra: DictConfig, overrides: Sequence[str]) -> None:
    """Raises:
    UserError: Hydra is told what a single run does not follow.
    """
    if hydra.mode == RunMode.MULTIRUN:
        raise UserError("hydra.mode is MULTIRUN: add --multirun to the command, or hydra.mode=RUN for one run")
    if hydra.callbacks:
        raise UserError("hydra.callbacks: a config runs no code here; take them out")
    if any(each.startswith("hydra.run.dir=") for each in overrides):
        raise UserError("hydra.run.dir: the folder of a run is named by output=DIR")


def _missing(error: MissingConfigException) -> str:
    known = choices("") if error.options is None else error.options
    group, _, name = (error.missing_cfg_file or "").rpartition("/")
    extra = LAUNCHERS.get(name) if group == "hydra/launcher" else None
    hint = f"; pip install 'segapp[{extra}]' brings it" if extra else ""
    return f"{error.missing_cfg_file}: no such choice; there are: {', '.join(known)}{hint}"


def _unfit(composed: DictConfig, overrides: Sequence[str]) -> list[str]:
    """Takes out what an experiment sets of a choice of its own where the command line takes another, which has no
    such key: the width of an encoder, say. Returns the keys."""
    typed = {each.lstrip("+~").partition("=")[0] for each in overrides}
    unfit = []
    chosen = dict(choice.lstrip("+").split("=", 1) for choice in _choices(overrides))  # of a group, the last one
    for group, name in chosen.items():
        file = config_files(group).get(name)
        known = yaml.safe_load(file.read_text(encoding="utf-8")) if file is not None else None
        place = OmegaConf.select(composed, group.replace("/", "."))
        if known is None or "defaults" in known or not isinstance(place, DictConfig):
            continue
        for key in {*place} - known.keys():
            full = f"{group.replace('/', '.')}.{key}"
            if full not in typed:
                with open_dict(place):
                    del place[key]
                unfit.append(full)
    return sorted(unfit)


def _implied(name: str, overrides: Sequence[str]) -> list[str]:
    """The task that a choice is for, where nobody has named one."""
    named = {each.partition("=")[0] for each in overrides}
    if name != "train" or {"task", "experiment"} & named:
        return []
    return [f"task={OF_TASK[each]}" for each in overrides if each in OF_TASK][:1]


def upgraded(values: dict[str, Any]) -> dict[str, Any]:
    """A config that an earlier version has kept, its keys where they are now."""
    for old, new in RENAMED.items():
        place, last = _place(values, old)
        if isinstance(place, dict) and last in place:
            values.setdefault(new, place.pop(last))
    for key, value in ADDED.items() if "task" not in values else ():  # there were tasks later
        place, last = _place(values, key)
        if isinstance(place, dict):
            place.setdefault(last, value)
    if isinstance(values.get("model"), dict):
        values["model"].pop("name", None)  # there was one kind alone
    return values


def _place(values: Any, key: str) -> tuple[Any, str]:
    """What holds a dotted key, a dict if all is well, and the key's last part."""
    *parents, last = key.split(".")
    for parent in parents:
        values = values.get(parent) if isinstance(values, dict) else None
    return values, last


def _renamed(override: str) -> str:
    prefix, key, rest = re.fullmatch(r"([+~]*)([^=]*)(.*)", override, re.DOTALL).groups()  # type: ignore[union-attr]
    if key not in RENAMED:
        return override
    log.warning("%s is now %s", key, RENAMED[key])
    return f"{prefix}{RENAMED[key]}{rest}"


def _types(kind: type[Config]) -> Iterator[tuple[str, Any]]:
    """Every dotted key of a config class, with each type that its value may be of."""
    for attribute, field in kind.model_fields.items():
        name = field.alias or attribute
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
        return kind.kind_of(values).model_validate(values)
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
    return [each.input_line or "" for each in parsed if each.key_or_group and is_group(each.key_or_group)]


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
