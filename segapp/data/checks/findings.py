"""What can ail a training and a validation set: one function for each kind of finding."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from segapp.base.classes import IGNORE_INDEX
from segapp.base.errors import UserError
from segapp.base.images import image_size
from segapp.base.masks import NotIndexedError
from segapp.data.checks.inspection import AuditedSet
from segapp.data.dataset import MaskSizeError, Role, UnlistedError
from segapp.data.diagnosis import BLURRED, LIST_THEM, diagnose_values, is_lossy
from segapp.data.pairs import Unpaired

Severity = Literal["error", "warning", "note"]

SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
"""Error: training would fail or be wrong. Warning: it may well be. Note: good to know."""

UNPAIRED: dict[str, tuple[Severity, str, str]] = {
    "absent_image": (
        "error",
        "image listed but not there",
        "Get these images, or take their lines out of the lists.",
    ),
    "image_without_mask": (
        "error",
        "image without a mask",
        "Draw the masks, or take the images out; an image and its mask have one name (data/README.md).",
    ),
    "twin": (
        "error",
        "file of the same name as another but for the suffix",
        "Keep one of each: nobody knows which one is meant.",
    ),
    "mask_without_image": (
        "warning",
        "mask without image",
        "Nothing uses them: are images missing, or named otherwise?",
    ),
}
"""By the kind of what is unpaired: severity, title and advice."""

TURNED = {
    2: "mirrored",
    3: "turned by 180 degrees",
    4: "mirrored upside down",
    5: "mirrored and turned",
    6: "turned by 90 degrees",
    7: "mirrored and turned",
    8: "turned by 270 degrees",
}
"""What EXIF's orientations ask for."""


@dataclass(frozen=True)
class Finding:
    """Something that ails the data.

    kind: its name for programs. title: what, and how often. advice: what to do. count: of files, or of classes.
    files: one line for each, path first. pictures: (role, index) of those worth looking at.
    """

    severity: Severity
    kind: str
    title: str
    advice: str
    count: int
    files: tuple[str, ...] = ()
    pictures: tuple[tuple[Role, int], ...] = ()


def find(train: AuditedSet, val: AuditedSet, unpaired: Iterable[Unpaired] = ()) -> list[Finding]:
    """All that ails the two sets, and the files that are in neither because they are `unpaired`; the worst first."""
    both = (train, val)
    findings = [
        *_unpaired(unpaired),
        *_broken_files(both),
        *_wrong_sizes(both),
        *_values_outside(both),
        *_missing_masks(both),
        *_missing_classes(train, val),
        *_shared(train, val),
        *_repeated(both),
        *_blurred(both),
        *_turned(both),
        *_all_ignored(both),
    ]
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


def number_of(count: int, noun: str) -> str:
    """1 and "class" to "1 class", 2 to "2 classes"."""
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun}{'es' if noun.endswith('s') else 's'}"


Case = tuple[AuditedSet, int, str]
"""A set, an index, and the line that is shown for it."""


def _finding(
    severity: Severity, kind: str, title: str, advice: str, cases: Sequence[Case], show: bool = True
) -> Iterator[Finding]:
    """A finding on files, if there are any; `title` begins with the noun that their number goes before."""
    if cases:
        lines = tuple(line for _, _, line in cases)
        pictures = tuple((each.role, index) for each, index, _ in cases[:2]) if show else ()
        yield Finding(severity, kind, _counted(len(cases), title), advice, len(cases), lines, pictures)


def _unpaired(unpaired: Iterable[Unpaired]) -> Iterator[Finding]:
    once = dict.fromkeys(unpaired)  # some, both sets have told of
    for kind, (severity, title, advice) in UNPAIRED.items():
        lines = tuple(f"{each.file}: {each.why}" for each in once if each.kind == kind)
        if lines:
            yield Finding(severity, kind, _counted(len(lines), title), advice, len(lines), lines)


def _counted(count: int, title: str) -> str:
    """3 and "mask of another size" to "3 masks of another size"."""
    noun, _, rest = title.partition(" ")
    return f"{number_of(count, noun)} {rest}"


def _broken_files(sets: Sequence[AuditedSet]) -> Iterator[Finding]:
    images = [(each, index, line) for each in sets for index, line in sorted(each.broken.items())]
    masks, others, unlisted = [], [], []
    for each, index, error in _scan_errors(sets):
        if isinstance(error, NotIndexedError):
            others.append((each, index, str(error)))
        elif isinstance(error, UnlistedError):
            unlisted.append((each, index, str(error)))
        elif not isinstance(error, MaskSizeError):
            masks.append((each, index, str(error)))
    advice = "Get these files again, or take their ids out of the lists."
    yield from _finding("error", "unreadable_images", "image that cannot be read", advice, images, show=False)
    yield from _finding("error", "unreadable_masks", "mask that cannot be read", advice, masks, show=False)
    title, advice = "mask with what classes.yaml does not list", _sentence(LIST_THEM)
    yield from _finding("error", "unlisted", title, advice, unlisted, show=False)
    advice = "Save the masks with one channel whose values are class indices, or list their colours in classes.yaml."
    yield from _finding("error", "not_indices", "mask without class indices", advice, others, show=False)


def _scan_errors(sets: Sequence[AuditedSet]) -> Iterator[tuple[AuditedSet, int, UserError]]:
    """What is wrong with masks; what is wrong with images is known from decoding them."""
    for each in sets:
        for index, problem in sorted(each.problems.items()):
            if not problem.of_image:
                yield each, index, problem.error


def _wrong_sizes(sets: Sequence[AuditedSet]) -> Iterator[Finding]:
    unturned: list[Case] = []
    others: list[Case] = []
    for each, index, error in _scan_errors(sets):
        if isinstance(error, MaskSizeError) and each.dataset.masks is not None:
            height, width = each.sizes[index]
            fits_unturned = image_size(each.dataset.masks[index]) == (width, height)
            as_stored = each.orientations[index] >= 5 and fits_unturned
            (unturned if as_stored else others).append((each, index, str(error)))
    advice = (
        "These images' EXIF says that they are to be turned, and their masks were drawn on them as they are stored: "
        "turn the masks alike, or remove the EXIF orientation from the images."
    )
    yield from _finding("error", "masks_not_turned", "mask not turned with the image", advice, unturned)
    advice = "Pair each image with its own mask; if only the scale differs, resize the mask by the nearest pixel."
    yield from _finding("error", "sizes_differ", "mask of another size than the image", advice, others)


def _values_outside(sets: Sequence[AuditedSet]) -> Iterator[Finding]:
    classes = len(sets[0].dataset.classes)
    cases, blurred, lossy = [], 0, 0
    occurs = np.zeros(256, bool)  # in the masks concerned
    for each in sets:
        for index in np.flatnonzero(each.counts[:, classes:IGNORE_INDEX].any(1)).tolist():
            mask = _masks(each)[index]
            values = np.flatnonzero(each.counts[index, classes:IGNORE_INDEX]) + classes
            cases.append((each, index, f"{mask}: {_some(values.tolist())}"))
            occurs |= each.counts[index] > 0
            blurred += bool(each.blurred[index])
            lossy += is_lossy(mask)
    if cases:
        present, listed = np.flatnonzero(occurs).tolist(), {*range(classes), IGNORE_INDEX}
        outside = _some([value for value in present if value not in listed])
        half = len(cases) / 2
        cause = diagnose_values(present, listed, lossy=lossy > half, blurred=blurred > half)
        title = f"mask with values outside the {classes} classes (0 to {classes - 1}): {outside}"
        yield from _finding("error", "values_outside", title, _sentence(cause), cases)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _missing_masks(sets: Sequence[AuditedSet]) -> Iterator[Finding]:
    for each in sets:
        if each.dataset.masks is None:
            use = "train on" if each.role == "train" else "score"
            title = f"the {each.role} set has no masks"
            yield Finding("error", "no_masks", title, f"There is nothing to {use}: name another list.", 1)


def _missing_classes(train: AuditedSet, val: AuditedSet) -> Iterator[Finding]:
    occurs = train.class_pixels > 0
    counted = train.counts.any(1).any()
    if counted and occurs.sum() < 2:
        ignored = train.counts[:, IGNORE_INDEX].any()
        advice = "There is nothing to tell apart: check that these are the right masks."
        if ignored and not occurs[1:].any():
            cause = diagnose_values({0, IGNORE_INDEX}, {*range(len(occurs))})
            advice = f"{IGNORE_INDEX} means ignored, not the object. {_sentence(cause)}"
        only = " and ".join([*_names(train, occurs), *(["ignored pixels"] if ignored else [])])
        yield Finding("error", "one_class", f"the train set holds only {only}", advice, 1)
    consequences: dict[Role, tuple[Severity, str]] = {
        "train": ("warning", "They cannot be learned. Add images of them, or take them out of the classes."),
        "val": ("note", "They cannot be scored: the mean IoU will leave them out."),
    }
    for each in (train, val):
        severity, advice = consequences[each.role]
        names = _names(each, each.class_pixels == 0)
        if names and each.counts.any():
            title = f"{number_of(len(names), 'class')} without a pixel in {each.role}: {_some(names, 10)}"
            yield Finding(severity, f"missing_in_{each.role}", title, advice, len(names))


def _names(each: AuditedSet, which: npt.NDArray[np.bool_]) -> list[str]:
    return [name for name, chosen in zip(each.dataset.classes, which, strict=True) if chosen]


def _shared(train: AuditedSet, val: AuditedSet) -> Iterator[Finding]:
    """Images in both sets: by id and file, and by content."""
    where = {id: index for index, id in enumerate(train.dataset.ids)}
    both = {
        index: where[id]
        for index, id in enumerate(val.dataset.ids)
        if id in where and val.dataset.images[index] == train.dataset.images[where[id]]
    }
    advice = "What is trained on says nothing when it is scored: take these out of the train list."
    cases = [(val, index, f"{val.dataset.images[index]}: {val.dataset.ids[index]}") for index in both]
    yield from _finding("error", "in_both", "id in both train and val", advice, cases, show=False)
    content = {digest: index for index, digest in enumerate(train.digests.tolist()) if digest}
    copies = [
        (val, index, f"{val.dataset.images[index]}: the same as {train.dataset.images[content[digest]]}")
        for index, digest in enumerate(val.digests.tolist())
        if digest in content and index not in both
    ]
    yield from _finding("error", "copied", "image of val also in train, under another name", advice, copies)


def _repeated(sets: Sequence[AuditedSet]) -> Iterator[Finding]:
    cases = []
    for each in sets:
        first: dict[bytes, int] = {}
        for index, digest in enumerate(each.digests.tolist()):
            if digest and first.setdefault(digest, index) != index:
                images = each.dataset.images
                cases.append((each, index, f"{images[index]}: the same as {images[first[digest]]} ({each.role})"))
    advice = "They count twice, and their masks may contradict each other: keep one of each."
    yield from _finding("warning", "repeated", "image repeated within one set, under another name", advice, cases)


def _blurred(sets: Sequence[AuditedSet]) -> Iterator[Finding]:
    cases = [
        (each, index, f"{_masks(each)[index]}: {np.count_nonzero(each.counts[index])} values")
        for each in sets
        for index in np.flatnonzero(each.blurred).tolist()
    ]
    advice = f"Thin lines of other classes run along their borders: {BLURRED}."
    yield from _finding("warning", "mixed_edges", "mask with mixed values along the edges", advice, cases)


def _turned(sets: Sequence[AuditedSet]) -> Iterator[Finding]:
    cases = [
        (each, index, f"{each.dataset.images[index]}: to be {TURNED[int(each.orientations[index])]}")
        for each in sets
        for index in np.flatnonzero(each.orientations > 1).tolist()
        if each.counts[index].any()
    ]
    advice = (
        "Once turned, which is how they are read, they have their masks' sizes. Look at some below: "
        "if a mask does not fit, it was drawn on the image as it is stored."
    )
    yield from _finding("warning", "turned", "image with an EXIF orientation", advice, cases)


def _all_ignored(sets: Sequence[AuditedSet]) -> Iterator[Finding]:
    cases = [
        (each, index, f"{_masks(each)[index]}: every pixel is {IGNORE_INDEX}")
        for each in sets
        for index in np.flatnonzero(
            (each.counts[:, IGNORE_INDEX] > 0) & ~each.counts[:, :IGNORE_INDEX].any(1)
        ).tolist()
    ]
    advice = "There is nothing in them to learn or to score: draw them, or take the ids out of the lists."
    yield from _finding("warning", "all_ignored", "mask of ignored pixels alone", advice, cases)


def _masks(each: AuditedSet) -> Sequence[Path]:
    return each.dataset.masks or ()


def _some(values: Sequence[object], most: int = 5) -> str:
    """The first of them, in one line."""
    return ", ".join(map(str, values[:most])) + (", ..." if len(values) > most else "")
