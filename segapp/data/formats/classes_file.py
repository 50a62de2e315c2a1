"""Reads classes.yaml: the class names, what a mask's values or colours mean, and which class is background."""

import reprlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BeforeValidator, Field, ValidationError

from segapp.base.classes import IGNORE_INDEX, background_of
from segapp.base.config import Config, parse_yaml
from segapp.base.errors import UserError, first_twice
from segapp.base.files import decode_text
from segapp.data.dataset import Array, Indexed
from segapp.data.formats.foreign_classes import parse_foreign
from segapp.data.formats.label_readers import UNLISTED, ByColour, ByValue

ReadLabel = Callable[[Path], Array]
"""A mask's file to class indices and 255, H x W uint8."""


@dataclass(frozen=True)
class Classes:
    """What a file of classes says: `names` by index; for the others, see `SegmentationDataset`."""

    names: tuple[str, ...]
    read_label: ReadLabel
    background: int | None


Value = Annotated[int, Field(strict=True, ge=0, le=255)]
Colour = tuple[Value, Value, Value]
Values = Annotated[tuple[Value, ...], BeforeValidator(lambda given: given if isinstance(given, list) else [given])]
"""Of one class; a single value need not stand in brackets."""


def _colours(given: Any) -> Any:
    return [given] if isinstance(given, list) and given and not isinstance(given[0], list) else given


Colours = Annotated[tuple[Colour, ...], BeforeValidator(_colours)]
"""Of one class; a single [red, green, blue] need not stand in brackets of its own."""


class _Kind(Config):
    others: str | None = None
    background: str | None = None


class _ByIndex(_Kind):
    classes: tuple[str, ...]
    ignore: Values | None = None


class _ByValue(_Kind):
    values: dict[str, Values]
    ignore: Values | None = None


class _ByColour(_Kind):
    colours: dict[str, Colours]
    ignore: Colours = ()


KINDS: dict[str, type[_ByIndex | _ByValue | _ByColour]] = {
    "classes": _ByIndex,
    "values": _ByValue,
    "colours": _ByColour,
}


def read_classes(path: Path) -> Classes:
    """Reads a YAML list of names, or a mapping that says more; data/README.md shows each. Also as other programs write
    them: CVAT's labelmap.txt, Roboflow's _classes.csv, labelme's labels.txt.

    Raises:
        UserError: missing, no YAML, an unknown key, names that are not 2 to 255 different ones, a value or a colour
            that does not fit or stands for two things, others or background of no class.
    """
    document = _load(path)
    if isinstance(document, list):
        document = {"classes": document}
    kinds = [kind for kind in KINDS if isinstance(document, dict) and kind in document]
    if len(kinds) != 1:
        raise UserError(
            f"{path}: a YAML list of class names is needed, or one of classes:, values: and colours: (data/README.md)"
        )
    (kind,) = kinds
    if not isinstance(document[kind], list if kind == "classes" else dict):
        what = "a list of class names" if kind == "classes" else f"a mapping of class names to {kind}"
        raise UserError(f"{path}: {kind} is to be {what} (data/README.md)")
    names = tuple(document[kind])
    _check_names(path, names)
    try:
        parsed = KINDS[kind].model_validate(document)
    except ValidationError as error:
        raise UserError(f"{path}: {_problem(error, KINDS[kind])}") from None
    return Classes(names, _label_reader(path, parsed, names), _background(path, parsed, names))


def _label_reader(path: Path, parsed: _ByIndex | _ByValue | _ByColour, names: tuple[str, ...]) -> ReadLabel:
    others = _others(path, parsed.others, names)
    if isinstance(parsed, _ByColour):
        colours = tuple(parsed.colours.values())
        _check_once(path, names, colours, parsed.ignore)
        return _table_reader(path, ByColour(colours, parsed.ignore, others))
    values = (
        tuple((index,) for index in range(len(names)))
        if isinstance(parsed, _ByIndex)
        else tuple(parsed.values.values())
    )
    taken = {value for each in values for value in each}
    ignore = parsed.ignore if parsed.ignore is not None else tuple({IGNORE_INDEX} - taken)
    _check_once(path, names, values, ignore)
    if isinstance(parsed, _ByIndex) and ignore == (IGNORE_INDEX,) and others is None:
        return Indexed()
    return _table_reader(path, ByValue(values, ignore, others))


def _background(path: Path, parsed: _Kind, names: tuple[str, ...]) -> int | None:
    """The class that the file names, if it does; else the one called background."""
    if "background" not in parsed.model_fields_set:
        return background_of(names)
    if parsed.background is None:
        return None
    if parsed.background not in names:
        raise UserError(f"{path}: background: {parsed.background} is no class; say null, or the name of one")
    return names.index(parsed.background)


class _Loader(yaml.SafeLoader):
    """Refuses what YAML forbids and PyYAML takes: a key that stands twice, of which the last would win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = []
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in keys:
                raise UserError(f"{key} stands twice, on line {key_node.start_mark.line + 1} again")
            keys.append(key)
        return super().construct_mapping(node, deep)


def _load(path: Path) -> Any:
    try:
        text = decode_text(path.read_bytes())
        return parse_foreign(text, path.suffix) if path.suffix in (".txt", ".csv") else parse_yaml(text, _Loader)
    except OSError as error:
        raise UserError(f"{path}: the class names cannot be read ({error.strerror}); a YAML list is needed") from None
    except ValueError:
        raise UserError(f"{path}: not YAML; a list of class names is needed, the first one background") from None
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _check_names(path: Path, names: tuple[Any, ...]) -> None:
    if not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: class names are text; quote those that YAML takes for numbers or yes/no")
    if not all(name.isprintable() for name in names):
        raise UserError(f"{path}: a class name holds characters that cannot be shown")
    if len(set(names)) < len(names):
        raise UserError(f"{path}: {first_twice(names)} stands twice; class names are to be different")
    if not 2 <= len(names) <= 255:
        raise UserError(f"{path}: 2 to 255 class names are needed, not {len(names)}")


def _problem(error: ValidationError, kind: type[Config]) -> str:
    first = error.errors()[0]
    where = ".".join(str(each) for each in first["loc"][:2])
    if first["type"] == "extra_forbidden":
        return f"{where} is no key here; there are {', '.join(sorted(kind.model_fields))}"
    if first["input"] is None:
        return f"{where} has no value; # begins a comment, and [] means none"
    return f"{where}={_shown(first['input'])}: {first['msg']}"


def _shown(given: Any) -> str:
    """As much of a value as a line holds; aliases make lists without end of a few bytes."""
    short = reprlib.Repr()
    short.maxlevel = 2
    with suppress(ValueError):  # of a number of thousands of digits
        return given if isinstance(given, str) else short.repr(given)
    return "a vast number"


def _others(path: Path, others: str | None, names: tuple[str, ...]) -> int | None:
    if others is None:
        return None
    if others == "ignore":
        if "ignore" in names:
            raise UserError(f"{path}: others: ignore could mean the class of that name; call the class something else")
        return IGNORE_INDEX
    if others not in names:
        raise UserError(f"{path}: others: {others} is no class; say ignore, or the name of one")
    return names.index(others)


def _check_once(
    path: Path, names: tuple[str, ...], classes: tuple[tuple[object, ...], ...], ignore: tuple[object, ...]
) -> None:
    stands_for: dict[object, str] = {}
    for what, keys in [*zip(names, classes, strict=True), ("ignored pixels", ignore)]:
        for key in keys:
            if key in stands_for:
                shown = list(key) if isinstance(key, tuple) else key
                raise UserError(f"{path}: {shown} stands for {stands_for[key]} and for {what}; list it once")
            stands_for[key] = what


def _table_reader(path: Path, reader: ByValue | ByColour) -> ByValue | ByColour:
    if len(reader.classes) > UNLISTED:
        raise UserError(f"{path}: {len(reader.classes)} classes; a plain list holds 255 at most, any other {UNLISTED}")
    return reader
