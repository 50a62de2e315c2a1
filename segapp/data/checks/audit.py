"""What makes people's training fail, found before it does."""

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt
from torch.utils.data import DataLoader, Dataset

from segapp.base.classes import IGNORE_INDEX
from segapp.base.devices import available_cores
from segapp.base.errors import UserError
from segapp.base.images import NotIndexedError, exif_orientation, image_size, read_image
from segapp.base.logs import progress_bar
from segapp.data.checks.scan import LabelScan, Problem, count_labels
from segapp.data.dataset import Array, MaskSizeError, Role, SegmentationDataset, UnlistedError
from segapp.data.diagnosis import BLURRED, LIST_THEM, diagnose_values, is_lossy
from segapp.data.loading.loader import start_worker
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

BATCH = 8
"""Images that a process takes at a time."""


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


@dataclass(frozen=True)
class Look:
    """What one image's pixels tell. `size`: (height, width) once turned. `digest`: of the pixels, empty if broken."""

    problem: str | None = None
    size: tuple[int, int] = (0, 0)
    orientation: int = 1
    digest: bytes = b""
    blurred: bool = False


@dataclass(frozen=True)
class AuditedSet:
    """One set, looked at: an entry an image, in a few arrays however many there are.

    counts: N x 256, the masks' pixels by value; zeros where there is no mask that can be used.
    problems: by index, why a mask could not be counted.
    sizes: N x 2, (height, width) in pixels, 0 where the image is broken.
    orientations: N, EXIF's. digests: N, 16 bytes each. blurred: N, masks with mixed edges.
    broken: by index, why the image cannot be read.
    """

    role: Role
    dataset: SegmentationDataset
    counts: npt.NDArray[np.int64]
    problems: Mapping[int, Problem]
    sizes: npt.NDArray[np.int32]
    orientations: npt.NDArray[np.uint8]
    digests: npt.NDArray[np.bytes_]
    blurred: npt.NDArray[np.bool_]
    broken: Mapping[int, str]

    @property
    def class_pixels(self) -> npt.NDArray[np.int64]:
        pixels: npt.NDArray[np.int64] = self.counts[:, : len(self.dataset.classes)].sum(0)
        return pixels

    @property
    def class_images(self) -> npt.NDArray[np.int64]:
        """How many images hold each class."""
        images: npt.NDArray[np.int64] = (self.counts[:, : len(self.dataset.classes)] > 0).sum(0)
        return images


def look_at(dataset: SegmentationDataset, role: Role) -> AuditedSet:
    """Decodes every image, and every mask that the label scan does not know yet, on all cores."""
    number = len(dataset)
    labels = LabelScan(np.zeros((number, 256), np.int64), {}) if dataset.masks is None else count_labels(dataset)
    may_be_blurred = (labels.counts > 0).sum(1) >= MIN_VALUES
    sizes, orientations = np.zeros((number, 2), np.int32), np.ones(number, np.uint8)
    digests, blurred = np.zeros(number, "S16"), np.zeros(number, bool)
    broken: dict[int, str] = {}
    loader = DataLoader(
        _Looks(dataset, may_be_blurred),
        batch_size=BATCH,
        num_workers=min(available_cores(), math.ceil(number / BATCH)),
        collate_fn=list,
        worker_init_fn=start_worker,
    )
    with progress_bar(number, f"looking at {dataset.name}", "image", leave=False) as bar:
        for index, look in enumerate(chain.from_iterable(loader)):
            sizes[index], orientations[index] = look.size, look.orientation
            digests[index], blurred[index] = look.digest, look.blurred
            if look.problem is not None:
                broken[index] = look.problem
            bar.update()
    return AuditedSet(role, dataset, labels.counts, labels.problems, sizes, orientations, digests, blurred, broken)


class _Looks(Dataset[Look]):
    """Picklable, so that processes may be spawned."""

    def __init__(self, dataset: SegmentationDataset, may_be_blurred: npt.NDArray[np.bool_]) -> None:
        self.dataset = dataset
        self.may_be_blurred = may_be_blurred

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Look:
        path = self.dataset.images[index]
        blurred = False
        try:
            if self.dataset.masks is not None and self.may_be_blurred[index]:
                blurred = has_mixed_edges(self.dataset.read_label(self.dataset.masks[index]))
            image = read_image(path)
            orientation = exif_orientation(path)
        except UserError as error:
            return Look(problem=str(error), blurred=blurred)
        digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
        digest.update(image.data)
        return Look(None, image.shape[:2], orientation, digest.digest(), blurred)


MIN_VALUES = 4
"""Two labels, and two values between them: with fewer, a mask is not taken for blurred."""


def has_mixed_edges(label: Array) -> bool:
    """Whether the labels (H x W) were blurred: resized smoothly, or drawn with anti-aliasing.

    A value is *mixed* if it nowhere fills 3 x 3 pixels, and nine in ten of its pixels have both a lower and a higher
    value within two pixels. A mask is blurred if it has two mixed values or more, with at least a tenth as many pixels
    as there are steps from one unmixed label straight to another. So one thin class between two others (an outline
    class) is not taken for blur, nor is blur seen between labels that differ by no more than 2.
    """
    three, five = np.ones((3, 3), np.uint8), np.ones((5, 5), np.uint8)
    pixels = np.bincount(label.ravel(), minlength=256)
    fills = np.zeros(256, bool)
    fills[label[cv2.erode(label, three) == cv2.dilate(label, three)]] = True
    between = label[(cv2.erode(label, five) < label) & (label < cv2.dilate(label, five))]
    mixed = (pixels > 0) & ~fills & (np.bincount(between, minlength=256) >= 0.9 * pixels)
    if mixed.sum() < 2:
        return False
    straight = sum(
        np.count_nonzero((one != other) & ~mixed[one] & ~mixed[other])
        for one, other in ((label[1:], label[:-1]), (label[:, 1:], label[:, :-1]))
    )
    return bool(pixels[mixed].sum() >= 0.1 * straight)


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


def verdict(train: AuditedSet, val: AuditedSet, findings: Sequence[Finding]) -> str:
    """One line: whether to train on the sets."""
    numbers = {severity: sum(each.severity == severity for each in findings) for severity in SEVERITIES}
    told = [_number(number, severity) for severity, number in numbers.items() if number]
    if numbers["error"]:
        first = findings[0]
        return f"not fit: {told[0]}, first {first.title}" + (f": {first.files[0]}" if first.files else "")
    size = f"{len(train.dataset)} + {len(val.dataset)} images, {len(train.dataset.classes)} classes"
    return f"fit to train on: {size}; {', '.join(told) or 'nothing found'}"


def choose_pictures(
    train: AuditedSet, val: AuditedSet, findings: Iterable[Finding], number: int
) -> list[tuple[AuditedSet, int, str]]:
    """Up to `number` different images (set, index, why it was chosen): findings first, then classes, rarest first."""
    chosen: dict[tuple[Role, int], tuple[AuditedSet, int, str]] = {}
    sets = {train.role: train, val.role: val}
    for finding in findings:
        for role, index in finding.pictures:
            chosen.setdefault((role, index), (sets[role], index, finding.title))
    images = train.class_images
    for kind in np.argsort(images, kind="stable").tolist():
        if images[kind]:
            pixels = train.counts[:, kind].copy()
            pixels[[index for role, index in chosen if role == train.role]] = 0
            index = int(pixels.argmax())
            if pixels[index]:
                why = f"{train.dataset.classes[kind]}, in {_number(int(images[kind]), 'image')} of train"
                chosen[train.role, index] = (train, index, why)
    for each in (val, train):  # spread evenly
        for index in np.linspace(0, len(each.dataset) - 1, number, dtype=int).tolist() if len(each.dataset) else ():
            chosen.setdefault((each.role, index), (each, index, each.role))
    return list(chosen.values())[:number]


def _number(count: int, noun: str) -> str:
    if count == 1:
        return f"1 {noun}"
    return f"{count} {noun}{'es' if noun.endswith('s') else 's'}"


Place = tuple[AuditedSet, int, str]
"""A set, an index, and the line that is shown for it."""


def _finding(
    severity: Severity, kind: str, title: str, advice: str, places: Sequence[Place], show: bool = True
) -> Iterator[Finding]:
    """A finding on files, if there are any; `title` holds {} for their number, as in "3 masks"."""
    if places:
        lines = tuple(line for _, _, line in places)
        pictures = tuple((each.role, index) for each, index, _ in places[:2]) if show else ()
        yield Finding(severity, kind, _counted(len(places), title), advice, len(places), lines, pictures)


def _unpaired(unpaired: Iterable[Unpaired]) -> Iterator[Finding]:
    once = dict.fromkeys(unpaired)  # some, both sets have told of
    for kind, (severity, title, advice) in UNPAIRED.items():
        lines = tuple(f"{each.file}: {each.why}" for each in once if each.kind == kind)
        if lines:
            yield Finding(severity, kind, _counted(len(lines), title), advice, len(lines), lines)


def _counted(count: int, title: str) -> str:
    """3 and "mask of another size" to "3 masks of another size"."""
    noun, _, rest = title.partition(" ")
    return f"{_number(count, noun)} {rest}"


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
    unturned: list[Place] = []
    others: list[Place] = []
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
    places, blurred, lossy = [], 0, 0
    occurs = np.zeros(256, bool)  # in the masks concerned
    for each in sets:
        for index in np.flatnonzero(each.counts[:, classes:IGNORE_INDEX].any(1)).tolist():
            mask = _masks(each)[index]
            values = np.flatnonzero(each.counts[index, classes:IGNORE_INDEX]) + classes
            places.append((each, index, f"{mask}: {_some(values.tolist())}"))
            occurs |= each.counts[index] > 0
            blurred += bool(each.blurred[index])
            lossy += is_lossy(mask)
    if places:
        present, listed = np.flatnonzero(occurs).tolist(), {*range(classes), IGNORE_INDEX}
        outside = _some([value for value in present if value not in listed])
        half = len(places) / 2
        cause = diagnose_values(present, listed, lossy=lossy > half, blurred=blurred > half)
        title = f"mask with values outside the {classes} classes (0 to {classes - 1}): {outside}"
        yield from _finding("error", "values_outside", title, _sentence(cause), places)


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
            title = f"{_number(len(names), 'class')} without a pixel in {each.role}: {_some(names, 10)}"
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
    places = [(val, index, f"{val.dataset.images[index]}: {val.dataset.ids[index]}") for index in both]
    yield from _finding("error", "in_both", "id in both train and val", advice, places, show=False)
    content = {digest: index for index, digest in enumerate(train.digests.tolist()) if digest}
    copies = [
        (val, index, f"{val.dataset.images[index]}: the same as {train.dataset.images[content[digest]]}")
        for index, digest in enumerate(val.digests.tolist())
        if digest in content and index not in both
    ]
    yield from _finding("error", "copied", "image of val also in train, under another name", advice, copies)


def _repeated(sets: Sequence[AuditedSet]) -> Iterator[Finding]:
    places = []
    for each in sets:
        first: dict[bytes, int] = {}
        for index, digest in enumerate(each.digests.tolist()):
            if digest and first.setdefault(digest, index) != index:
                images = each.dataset.images
                places.append((each, index, f"{images[index]}: the same as {images[first[digest]]} ({each.role})"))
    advice = "They count twice, and their masks may contradict each other: keep one of each."
    yield from _finding("warning", "repeated", "image repeated within one set, under another name", advice, places)


def _blurred(sets: Sequence[AuditedSet]) -> Iterator[Finding]:
    places = [
        (each, index, f"{_masks(each)[index]}: {np.count_nonzero(each.counts[index])} values")
        for each in sets
        for index in np.flatnonzero(each.blurred).tolist()
    ]
    advice = f"Thin lines of other classes run along their borders: {BLURRED}."
    yield from _finding("warning", "mixed_edges", "mask with mixed values along the edges", advice, places)


def _turned(sets: Sequence[AuditedSet]) -> Iterator[Finding]:
    places = [
        (each, index, f"{each.dataset.images[index]}: to be {TURNED[int(each.orientations[index])]}")
        for each in sets
        for index in np.flatnonzero(each.orientations > 1).tolist()
        if each.counts[index].any()
    ]
    advice = (
        "Once turned, which is how they are read, they have their masks' sizes. Look at some below: "
        "if a mask does not fit, it was drawn on the image as it is stored."
    )
    yield from _finding("warning", "turned", "image with an EXIF orientation", advice, places)


def _all_ignored(sets: Sequence[AuditedSet]) -> Iterator[Finding]:
    places = [
        (each, index, f"{_masks(each)[index]}: every pixel is {IGNORE_INDEX}")
        for each in sets
        for index in np.flatnonzero(
            (each.counts[:, IGNORE_INDEX] > 0) & ~each.counts[:, :IGNORE_INDEX].any(1)
        ).tolist()
    ]
    advice = "There is nothing in them to learn or to score: draw them, or take the ids out of the lists."
    yield from _finding("warning", "all_ignored", "mask of ignored pixels alone", advice, places)


def _masks(each: AuditedSet) -> Sequence[Path]:
    return each.dataset.masks or ()


def _some(values: Sequence[object], most: int = 5) -> str:
    """The first of them, in one line."""
    return ", ".join(map(str, values[:most])) + (", ..." if len(values) > most else "")
