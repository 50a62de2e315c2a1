"""What can ail a training and a validation set: one function for each kind of finding."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from segapp.base.classes import IGNORE_INDEX
from segapp.base.errors import UserError
from segapp.base.images import image_size
from segapp.base.masks import NotIndexedError
from segapp.data.checks.finding import (
    Case,
    Finding,
    Severity,
    counted,
    masks_of_set,
    on_files,
    sentence,
    some,
)
from segapp.data.checks.inspection import AuditedSet
from segapp.data.checks.label_findings import find_in_labels
from segapp.data.class_lists import ONE_LIST, difference
from segapp.data.dataset import MaskSizeError, SegmentationDataset, UnlistedError
from segapp.data.diagnosis import LIST_THEM, diagnose_values
from segapp.data.pairs import Unpaired

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
    "unread": (
        "warning",
        "ending without a reader",
        "Save these files as PNG, JPEG or another format that Pillow reads, if they are wanted.",
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


def find(train: AuditedSet, val: AuditedSet, unpaired: Iterable[Unpaired] = ()) -> Iterator[Finding]:
    """All that ails the two sets, of one list of classes, and the files that are in neither: they are `unpaired`."""
    both = (train, val)
    yield from _unpaired(unpaired)
    yield from _broken_files(both)
    yield from _wrong_sizes(both)
    yield from _values_outside(both)
    yield from find_in_labels(both)
    yield from _shared(train, val)
    yield from _repeated(both)
    yield from _turned(both)


def class_lists(train: SegmentationDataset, val: SegmentationDataset) -> Iterator[Finding]:
    """Class lists that training refuses, or matches."""
    lists = tuple(f"{each.name}: {', '.join(each.classes)}" for each in (train, val))
    if {*train.classes} != {*val.classes}:
        title = difference(val, train.classes, train.name)
        yield Finding("error", "class_lists", title, sentence(ONE_LIST), 2, lists)
    elif train.classes != val.classes:
        title = "the class lists of train and val have one content and two orders"
        yield Finding("note", "class_order", title, "They are matched by name, in the order of train.", 2, lists)


def _unpaired(unpaired: Iterable[Unpaired]) -> Iterator[Finding]:
    once = dict.fromkeys(unpaired)  # some, both sets have told of
    for kind, (severity, title, advice) in UNPAIRED.items():
        lines = tuple(f"{each.file}: {each.why}" for each in once if each.kind == kind)
        if lines:
            yield Finding(severity, kind, counted(len(lines), title), advice, len(lines), lines)


def _broken_files(sets: Sequence[AuditedSet]) -> Iterator[Finding]:
    images = [(each, index, line) for each in sets for index, line in sorted(each.broken.items())]
    masks, others, unlisted, causes = [], [], [], Counter[str]()
    for each, index, error in _scan_errors(sets):
        if isinstance(error, NotIndexedError):
            others.append((each, index, str(error)))
        elif isinstance(error, UnlistedError):
            unlisted.append((each, index, error.problem))
            causes[error.cause] += 1
        elif not isinstance(error, MaskSizeError):
            masks.append((each, index, str(error)))
    advice = "Get these files again, or take their ids out of the lists."
    yield from on_files("error", "unreadable_images", "image that cannot be read", advice, images, show=False)
    yield from on_files("error", "unreadable_masks", "mask that cannot be read", advice, masks, show=False)
    title = "mask with what classes.yaml does not list"
    cause = max(causes, key=causes.__getitem__, default=LIST_THEM)
    advice = sentence(cause if LIST_THEM in cause or "save" in cause else f"{cause}; or {LIST_THEM}")
    yield from on_files("error", "unlisted", title, advice, unlisted, show=False)
    advice = "Save the masks with one channel whose values are class indices, or list their colours in classes.yaml."
    yield from on_files("error", "not_indices", "mask without class indices", advice, others, show=False)


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
    yield from on_files("error", "masks_not_turned", "mask not turned with the image", advice, unturned)
    advice = "Pair each image with its own mask; if only the scale differs, resize the mask by the nearest pixel."
    yield from on_files("error", "sizes_differ", "mask of another size than the image", advice, others)


def _values_outside(sets: Sequence[AuditedSet]) -> Iterator[Finding]:
    classes = len(sets[0].dataset.classes)
    cases, blurred, lossy = [], 0, Counter[str]()
    occurs = np.zeros(256, bool)  # in the masks concerned
    for each in sets:
        for index in np.flatnonzero(each.counts[:, classes:IGNORE_INDEX].any(1)).tolist():
            mask = masks_of_set(each)[index]
            values = np.flatnonzero(each.counts[index, classes:IGNORE_INDEX]) + classes
            cases.append((each, index, f"{mask}: {some(values.tolist())}"))
            occurs |= each.counts[index] > 0
            blurred += bool(each.mixed[index])
            lossy[str(each.lossy[index])] += 1
    if cases:
        present, listed = np.flatnonzero(occurs).tolist(), {*range(classes), IGNORE_INDEX}
        outside = some([value for value in present if value not in listed])
        cause = diagnose_values(present, listed, lossy=lossy.most_common(1)[0][0], blurred=blurred > len(cases) / 2)
        title = f"mask with values outside the {classes} classes (0 to {classes - 1}): {outside}"
        yield from on_files("error", "values_outside", title, sentence(cause), cases)


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
    yield from on_files("error", "in_both", "id in both train and val", advice, cases, show=False)
    content = {digest: index for index, digest in enumerate(train.digests.tolist()) if digest}
    copies = [
        (val, index, f"{val.dataset.images[index]}: the same as {train.dataset.images[content[digest]]}")
        for index, digest in enumerate(val.digests.tolist())
        if digest in content and index not in both
    ]
    yield from on_files("error", "copied", "image of val also in train, under another name", advice, copies)


def _repeated(sets: Sequence[AuditedSet]) -> Iterator[Finding]:
    cases = []
    for each in sets:
        first: dict[bytes, int] = {}
        for index, digest in enumerate(each.digests.tolist()):
            if digest and first.setdefault(digest, index) != index:
                images = each.dataset.images
                cases.append((each, index, f"{images[index]}: the same as {images[first[digest]]} ({each.role})"))
    advice = "They count twice, and their masks may contradict each other: keep one of each."
    yield from on_files("warning", "repeated", "image repeated within one set, under another name", advice, cases)


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
    yield from on_files("warning", "turned", "image with an EXIF orientation", advice, cases)
