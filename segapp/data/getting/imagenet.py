"""ImageNet (ILSVRC 2012) in class folders, from what its users have: the three archives, or Kaggle's folders."""

import csv
import hashlib
import logging
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from segapp.base.archives import extract, extract_each
from segapp.base.errors import UserError, and_more, disk_error
from segapp.base.files import file_lock, scratch_folder
from segapp.base.logs import progress_bar
from segapp.data.getting.archive import OTHER_ROOT, Archive, check_room

log = logging.getLogger(__name__)

TRAIN, VAL, DEVKIT = (
    Archive(f"https://image-net.org/data/ILSVRC/2012/{name}", 0, 0, lambda name: True, md5)
    for name, md5 in (
        ("ILSVRC2012_img_train.tar", "1d675b47d978889d74fa0da5fadfb00e"),
        ("ILSVRC2012_img_val.tar", "29b22e2961454d5413ddabcf34fc5622"),
        ("ILSVRC2012_devkit_t12.tar.gz", "fa75699e90414af021442c21a62c3abf"),
    )
)
KAGGLES_TRUTH = "LOC_val_solution.csv"
"""Lies three folders above ILSVRC/Data/CLS-LOC."""
SUFFIX = ".JPEG"
WHERE = (
    "ImageNet is to be had with an account alone: https://image-net.org/download-images, or "
    "https://www.kaggle.com/c/imagenet-object-localization-challenge"
)


@dataclass(frozen=True)
class Truth:
    """`classes`: their WordNet ids. `of_image`: each validation image's, by the name of its file."""

    classes: frozenset[str]
    of_image: Mapping[str, str]


def prepare_imagenet(root: Path, archives: Path) -> None:
    """`root`/train/CLASS/*.JPEG and `root`/val/CLASS/*.JPEG, where a class is its WordNet id; what is there is left.

    Killed at any moment and started again, it goes on: with train after the last whole class.

    Args:
        root: may have train in class folders and val without, as Kaggle's ILSVRC/Data/CLS-LOC: val is then sorted.
        archives: the folder of the archives, or of Kaggle's list of val's classes, of whatever is not in `root`.

    Raises:
        UserError: an archive is missing, damaged or of something else, or the disk has no room; what is missing is
            told before anything is done.
    """
    root = root.resolve()
    lacking = [
        archive
        for archive, folder in ((TRAIN, root / "train"), (VAL, root / "val"))
        if not folder.is_dir() and not (archives / archive.name).is_file()
    ]
    if lacking:
        raise UserError(f"{archives / lacking[0].name}{and_more(len(lacking))}: no such file. {WHERE}")
    if (root / "train").is_dir() and not any(path.is_dir() for path in (root / "train").iterdir()):
        raise UserError(f"{root / 'train'} holds no class folders; move it away to have them unpacked")
    if (root / "train").is_dir() and (root / "val").is_dir() and not _unsorted(root):
        log.info("ImageNet is in %s already", root)
        return
    truth = _truth(root, archives)
    try:
        root.mkdir(parents=True, exist_ok=True)
        with file_lock(root / ".imagenet.lock", f"preparing {root}"):
            if not (root / "val").is_dir():
                _unpack_val(archives / VAL.name, root, truth)
            _sort_val(root / "val", truth, root / "val")
            if not (root / "train").is_dir():
                _unpack_train(archives / TRAIN.name, root, truth)
    except OSError as error:
        raise disk_error(root, error, otherwise=OTHER_ROOT) from None


def _unpack_train(archive: Path, root: Path, truth: Truth) -> None:
    """An archive of one archive a class, unpacked as they come: `root`/.train.part has the classes that are whole."""
    part = root / ".train.part"
    there = {folder.name for folder in part.glob("*")}
    size = archive.stat().st_size
    check_room([_to_unpack(archive, 1 - len(there) / len(truth.classes))], root)
    _check_md5(archive, TRAIN)
    part.mkdir(exist_ok=True)

    def is_needed(name: str) -> bool:
        path = PurePosixPath(name)
        return path.suffix == ".tar" and path.stem not in there

    with (
        scratch_folder(root / ".train.unpacking") as scratch,
        progress_bar(len(truth.classes), "unpacking train", "class", done=len(there)) as progress,
    ):
        for each in extract_each(archive, scratch, is_needed, limit=2 * size):
            if each.stem not in truth.classes:
                raise UserError(f"{archive} holds {each.name}, which is no class of ImageNet's {len(truth.classes)}")
            images = scratch / each.stem
            images.mkdir()
            extract(each, images, lambda name: name.endswith(SUFFIX), limit=2 * size)
            images.replace(part / each.stem)
            each.unlink()
            progress.update()
    if absent := sorted(truth.classes - {folder.name for folder in part.iterdir()}):
        raise UserError(f"{archive} lacks the class {absent[0]}{and_more(len(absent))}")
    part.replace(root / "train")


def _unpack_val(archive: Path, root: Path, truth: Truth) -> None:
    check_room([_to_unpack(archive)], root)
    _check_md5(archive, VAL)
    with scratch_folder(root / ".val.unpacking") as scratch:
        log.info("unpacking %s", archive)
        images = scratch / "val"
        images.mkdir()
        extract(archive, images, lambda name: name.endswith(SUFFIX), limit=2 * archive.stat().st_size)
        _sort_val(images, truth, archive)
        images.replace(root / "val")


def _sort_val(val: Path, truth: Truth, source: Path) -> None:
    """Moves each image into the folder of its class. `source`: what they are called after in an error."""
    loose = [path for path in val.iterdir() if path.suffix == SUFFIX]
    if not loose:
        return
    _check_val([path.name for path in val.rglob(f"*{SUFFIX}")], source, truth)
    for name in sorted({*truth.of_image.values()}):
        (val / name).mkdir(exist_ok=True)
    for path in loose:
        path.replace(val / truth.of_image[path.name] / path.name)
    log.info("%d images of %s sorted into the folders of their classes", len(loose), source)


def _unsorted(root: Path) -> bool:
    return any(path.suffix == SUFFIX for path in (root / "val").iterdir())


def _check_val(names: Sequence[str], source: Path, truth: Truth) -> None:
    """Raises:
    UserError: an image of the validation set is missing, or one is of no known class.
    """
    found = {*names}
    if absent := sorted(truth.of_image.keys() - found):
        raise UserError(f"{source} lacks {absent[0]}{and_more(len(absent))}, of which the class is known")
    if unknown := sorted(found - truth.of_image.keys()):
        raise UserError(f"{source} holds {unknown[0]}{and_more(len(unknown))}, of which nobody knows the class")


# -- which class an image of val is of --------------------------------------------------------------------------------


def _truth(root: Path, archives: Path) -> Truth:
    """By the development kit, else by Kaggle's list.

    Raises:
        UserError: there is neither, or a damaged one.
    """
    kit = archives / DEVKIT.name
    lists = [folder / KAGGLES_TRUTH for folder in (archives, root, *root.parents[:3])]
    source = next((path for path in (kit, *lists) if path.is_file()), None)
    if source is None:
        raise UserError(f"{kit}: no such file, nor Kaggle's {KAGGLES_TRUTH}: they tell val's classes. {WHERE}")
    truth = _of_devkit(source) if source == kit else _of_kaggle(source)
    odd = next((name for name in truth.classes if not (name.isascii() and name.isalnum())), None)
    if odd is not None:  # it becomes the name of a folder
        raise UserError(f"{source}: {odd!r} is no class of ImageNet's")
    return truth


def _of_devkit(archive: Path) -> Truth:
    """A line of the ground truth has the number of an image's class, which meta.mat gives its WordNet id."""
    _check_md5(archive, DEVKIT)
    with tempfile.TemporaryDirectory() as folder:
        wanted = ("meta.mat", "ILSVRC2012_validation_ground_truth.txt")
        files = extract(archive, Path(folder), lambda name: PurePosixPath(name).name in wanted, limit=100_000_000)
        by_name = {file.name: file for file in files}
        try:
            ids = _wordnet_ids(by_name["meta.mat"])
            numbers = map(int, by_name[wanted[1]].read_text().split())
            of_image = {f"ILSVRC2012_val_{i:08d}{SUFFIX}": ids[number] for i, number in enumerate(numbers, 1)}
        except Exception as error:  # whatever scipy makes of another file
            raise UserError(f"{archive}: no development kit of ImageNet 2012, or a damaged one ({error!r})") from None
    return Truth(frozenset(ids.values()), of_image)


def _wordnet_ids(meta: Path) -> dict[int, str]:
    """By the number of a class, ILSVRC2012_ID, of those without children: the others are no classes."""
    from scipy.io import loadmat  # half a second of import that few need

    synsets = np.atleast_1d(loadmat(meta, squeeze_me=True, variable_names=["synsets"])["synsets"])
    return {int(each["ILSVRC2012_ID"]): str(each["WNID"]) for each in synsets if each["num_children"] == 0}


def _of_kaggle(path: Path) -> Truth:
    """A row has an image's name without suffix, and "n01751748 111 108 230 ...": its class, a box, perhaps more."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = [(row["ImageId"], row["PredictionString"].split()[0]) for row in csv.DictReader(file)]
    except (KeyError, IndexError, AttributeError, csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not Kaggle's list of ImageNet's validation images ({error!r})") from None
    return Truth(frozenset(name for _, name in rows), {f"{image}{SUFFIX}": name for image, name in rows})


def _check_md5(path: Path, expected: Archive) -> None:
    """Raises:
    UserError: it is another file than the one that is published.
    """
    digest = hashlib.md5(usedforsecurity=False)
    with (
        path.open("rb") as file,
        progress_bar(path.stat().st_size, f"checking {path.name}", "B", leave=False, unit_scale=True) as progress,
    ):
        while chunk := file.read(1 << 22):
            digest.update(chunk)
            progress.update(len(chunk))
    if digest.hexdigest() != expected.md5:
        raise UserError(f"{path}: damaged: its MD5 is {digest.hexdigest()}, that of ImageNet's is {expected.md5}")


def _to_unpack(archive: Path, share: float = 1.0) -> Archive:
    """For `check_room`: an archive of JPEGs unfolds to what it takes."""
    return Archive(archive.name, 0, round(share * archive.stat().st_size / 1e6), lambda name: True)
