"""What ails labels, as far as the label scan knows: `check` tells all of it, and training stops at its errors."""

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from segapp.base.classes import IGNORE_INDEX
from segapp.base.errors import UserError
from segapp.data.checks.finding import Finding, Severity, masks_of_set, number_of, on_files, sentence, some
from segapp.data.checks.labels import ScannedSet
from segapp.data.dataset import Role
from segapp.data.diagnosis import diagnose_values
from segapp.data.fates import ADVICE, TOLD, Fate
from segapp.data.formats.label_readers import confuses_near_values

log = logging.getLogger(__name__)

MANY = 0.1
"""Share of a class's annotations from which it is a warning that they are lost."""
MISTAKES: frozenset[Fate] = frozenset({"normalised", "few_points", "outside"})
"""Fates that nobody chooses."""
CHOSEN: frozenset[Fate] = frozenset({"left_out", "not_kept"})
"""Fates that the config asks for."""


def refuse_labels(sets: Sequence[ScannedSet]) -> None:
    """Raises:
    UserError: training on the first of the sets would fail or be wrong. What may be wrong is logged.
    """
    findings = list(find_in_labels(sets))
    errors = [each for each in findings if each.severity == "error"]
    if errors:
        more = f" ({number_of(len(errors) - 1, 'more error')}; tools/prepare_data.py check lists them)"
        raise UserError(errors[0].line + more * (len(errors) > 1))
    for each in findings:
        if each.severity == "warning":
            log.warning("%s", each.line)


def find_in_labels(sets: Sequence[ScannedSet]) -> Iterator[Finding]:
    """Of a training set and, where there is one, a validation set."""
    yield from _missing_masks(sets)
    yield from _nothing_to_learn(sets[0])
    if len(sets) > 1 and _held(sets[0]).sum() > 1:
        yield from _nothing_to_score(sets[1])
    yield from _missing_classes(sets)
    yield from _two_colours(sets)
    yield from _lossy(sets)
    yield from _fates(sets)
    yield from _all_ignored(sets)


def _missing_masks(sets: Sequence[ScannedSet]) -> Iterator[Finding]:
    for each in sets:
        if each.dataset.masks is None:
            use = "train on" if each.role == "train" else "score"
            title = f"the {each.role} set has no masks"
            yield Finding("error", "no_masks", title, f"There is nothing to {use}: name another list.", 1)


def _held(each: ScannedSet) -> npt.NDArray[np.bool_]:
    """Which of its classes a set's masks hold."""
    return each.class_pixels > 0


def _nothing_to_learn(train: ScannedSet) -> Iterator[Finding]:
    held = _held(train)
    if train.counts.any() and held.sum() < 2:
        yield Finding("error", "one_class", f"the train set holds only {_held_names(train)}", _why(train), 1)


def _nothing_to_score(val: ScannedSet) -> Iterator[Finding]:
    held = _held(val)
    if val.counts.any() and held.sum() < 2:
        says = "The mean IoU of one class says little." if held.any() else "There is nothing to score."
        title = f"the val set holds only {_held_names(val)}"
        yield Finding("warning", "one_class_in_val", title, f"{says} {_why(val)}", 1)


def _held_names(each: ScannedSet) -> str:
    ignored = ["ignored pixels"] if each.counts[:, IGNORE_INDEX].any() else []
    return " and ".join([*_names(each, _held(each)), *ignored])


def _why(each: ScannedSet) -> str:
    """What to do about a set of which nothing can be learned, by the kind of its masks."""
    if each.dataset.fates is not None:
        lost = {fate: sum(classes.values()) for fate, classes in each.dataset.fates.lost.items()}
        if not each.dataset.fates.total:
            return "There is no annotation: is this the right JSON?"
        if lost:
            fate = max(lost, key=lost.__getitem__)
            return f"{lost[fate]} of {each.dataset.fates.total} annotations {TOLD[fate]}. {ADVICE[fate]}."
    ignored = each.counts[:, IGNORE_INDEX].any()
    if ignored and not _held(each)[1:].any():
        cause = diagnose_values({0, IGNORE_INDEX}, {*range(len(each.dataset.classes))})
        return f"{IGNORE_INDEX} means ignored, not the object. {sentence(cause)}"
    return "There is nothing to tell apart: check that these are the right masks."


def _missing_classes(sets: Sequence[ScannedSet]) -> Iterator[Finding]:
    consequences: dict[Role, tuple[Severity, str]] = {
        "train": ("warning", "They cannot be learned. Add images of them, or take them out of the classes."),
        "val": ("note", "They cannot be scored: the mean IoU will leave them out."),
    }
    for each in sets:
        severity, advice = consequences[each.role]
        names = _names(each, ~_held(each))
        if names and each.counts.any():
            title = f"{number_of(len(names), 'class')} without a pixel in {each.role}: {some(names, 10)}"
            yield Finding(severity, f"missing_in_{each.role}", title, advice, len(names))


def _names(each: ScannedSet, which: npt.NDArray[np.bool_]) -> list[str]:
    return [name for name, chosen in zip(each.dataset.classes, which, strict=True) if chosen]


def _two_colours(sets: Sequence[ScannedSet]) -> Iterator[Finding]:
    """Palettes that give an index that is in use another colour than the first mask that holds it."""
    first: dict[int, tuple[int, str]] = {}
    lines, pictures = [], []
    for each in sets:
        seen: set[int] = set()  # rows, by the first mask of each
        for index in np.unique(each.colours.of, return_index=True)[1].tolist():
            row = each.colours.rows[each.colours.of[index]]
            mask = masks_of_set(each)[index] if each.dataset.masks is not None else ""
            for value in np.flatnonzero(row >= 0).tolist():
                colour, where = first.setdefault(value, (int(row[value]), str(mask)))
                if colour != row[value] and value not in seen:
                    seen.add(value)
                    lines.append(f"{mask}: index {value} is {_rgb(row[value])}, and {_rgb(colour)} in {where}")
                    pictures.append((each.role, index))
    if lines:
        title = f"{number_of(len({line.split(': index ')[1].split()[0] for line in lines}), 'index')} of two colours"
        advice = (
            "Their palettes disagree, so one index may be two things: name the colours in classes.yaml, and masks are "
            "read by colour: colours: {background: [0, 0, 0], NAME: [RED, GREEN, BLUE]}."
        )
        yield Finding("error", "two_colours", title, advice, len(lines), tuple(lines), tuple(pictures[:2]))


def _rgb(colour: int) -> str:
    return f"[{colour >> 16}, {colour >> 8 & 255}, {colour & 255}]"


def _lossy(sets: Sequence[ScannedSet]) -> Iterator[Finding]:
    cases = [
        (each, index, f"{masks_of_set(each)[index]}: {each.lossy[index]}")
        for each in sets
        for index in np.flatnonzero(each.lossy != "").tolist()
    ]
    formats = " and ".join(sorted({str(each.lossy[index]) for each, index, _ in cases}))
    trusted = not any(confuses_near_values(each.dataset.read_label) for each, _, _ in cases)
    advice = (
        f"{formats} changes values when it is saved, most along the edges, and a changed value may be another class: "
        "save masks as PNG, from their source."
    )
    yield from on_files("warning" if trusted else "error", "lossy", "mask in a lossy format", advice, cases)


def _fates(sets: Sequence[ScannedSet]) -> Iterator[Finding]:
    """Annotations that vanish where masks are drawn from them."""
    for each in sets:
        fates = each.dataset.fates
        if fates is None:
            continue
        for fate, classes in fates.lost.items():
            number = sum(classes.values())
            severity: Severity = "warning" if fate in MISTAKES or fates.most(fate) >= MANY else "note"
            if fate in CHOSEN:
                severity = "note"
            elif fate in MISTAKES and number > fates.total / 2:
                severity = "error"
            title = f"{number} of {fates.total} annotations of {each.role} {TOLD[fate]}"
            lines = tuple(f"{name}: {count} of {sum(fates.counts[name].values())}" for name, count in classes.items())
            yield Finding(severity, f"annotations_{fate}", title, f"{ADVICE[fate]}.", number, lines)


def _all_ignored(sets: Sequence[ScannedSet]) -> Iterator[Finding]:
    cases = [
        (each, index, f"{masks_of_set(each)[index]}: every pixel is {IGNORE_INDEX}")
        for each in sets
        for index in np.flatnonzero(
            (each.counts[:, IGNORE_INDEX] > 0) & ~each.counts[:, :IGNORE_INDEX].any(1)
        ).tolist()
    ]
    advice = "There is nothing in them to learn or to score: draw them, or take the ids out of the lists."
    yield from on_files("warning", "all_ignored", "mask of ignored pixels alone", advice, cases)
