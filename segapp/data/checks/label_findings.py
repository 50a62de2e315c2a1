"""What ails labels, as far as the label scan knows: `check` tells all of it, and training stops at its errors."""

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from segapp.base.classes import IGNORE_INDEX
from segapp.base.errors import UserError, number_of
from segapp.base.images import DIM
from segapp.data.checks.finding import Finding, Severity, masks_of_set, on_files, sentence, some
from segapp.data.checks.labels import ScannedSet
from segapp.data.dataset import Role
from segapp.data.diagnosis import BLURRED, diagnose_values
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
    yield from _blurred(sets)
    yield from _fates(sets)
    yield from _all_ignored(sets)
    yield from _dim(sets)


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
        says = (
            "The mean IoU of one class says nothing, and no checkpoint will be called best."
            if held.any()
            else "There is nothing to score."
        )
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
    """Palettes that give an index that is in use another colour than the first mask that holds it; or a colour
    another index, where each has one of its own."""
    first: dict[int, tuple[int, str]] = {}
    index_of: dict[int, tuple[int, str]] = {}
    lines, pictures = [], []
    for each in sets:
        for index in np.unique(each.colours.of, return_index=True)[1].tolist():  # the first mask of each row
            row = each.colours.rows[each.colours.of[index]]
            values = np.flatnonzero(row[:IGNORE_INDEX] >= 0).tolist()
            mask = str(masks_of_set(each)[index]) if values else ""
            for value in values:
                colour, where = first.setdefault(value, (int(row[value]), mask))
                other, there = index_of.setdefault(int(row[value]), (value, mask))
                if colour != row[value]:
                    lines.append(f"{mask}: index {value} is {_rgb(row[value])}, and {_rgb(colour)} in {where}")
                elif other != value and there != mask and np.count_nonzero(row == row[value]) == 1:
                    lines.append(f"{mask}: {_rgb(row[value])} is index {value}, and {other} in {there}")
                else:
                    continue
                pictures.append((each.role, index))
    if lines:
        advice = (
            "One colour of one index: the palettes disagree, so an index may be two things. Name the colours in "
            "classes.yaml, and masks are read by colour (colours: {background: [0, 0, 0], NAME: [RED, GREEN, BLUE]}); "
            "or name the values there (values: {background: 0, NAME: 1}), if these are right and the colours are not."
        )
        title = f"{number_of(len(lines), 'case')} of palettes that disagree"
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


def _blurred(sets: Sequence[ScannedSet]) -> Iterator[Finding]:
    cases = [
        (each, index, f"{masks_of_set(each)[index]}: {np.count_nonzero(each.counts[index])} values")
        for each in sets
        for index in np.flatnonzero(each.mixed).tolist()
    ]
    advice = f"Thin lines of other classes run along their borders: {BLURRED}."
    yield from on_files("warning", "mixed_edges", "mask with mixed values along the edges", advice, cases)


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


def _dim(sets: Sequence[ScannedSet]) -> Iterator[Finding]:
    """Deep images that use so little of their range that a network sees black."""
    cases = [
        (each, index, f"{each.dataset.images[index]}: its brightest is {each.peaks[index]} of {each.white_level}")
        for each in sets
        for index in np.flatnonzero((each.peaks > 0) & (each.peaks < DIM * each.white_level)).tolist()
    ]
    brightest = max((int(each.peaks[index]) for each, index, _ in cases), default=0)
    range_of = next((level for level in (255, 1023, 4095, 16383) if brightest <= level), 65535)
    advice = f"They use a small part of their range; white_level={range_of} says which value is white."
    yield from on_files("warning", "dim", "image of 16 bits, nearly black", advice, cases)
