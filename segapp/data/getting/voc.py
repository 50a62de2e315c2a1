"""Downloads PASCAL VOC 2012, and fills in what a folder lacks of it."""

import logging
from pathlib import Path

from segapp.base.errors import UserError, and_more
from segapp.data.getting.archive import OTHER_ROOT, Archive, discard_archive, get_archive, tell_room
from segapp.data.pairs import not_there, read_lines

log = logging.getLogger(__name__)

LISTS = Path("ImageSets") / "Segmentation"
"""Where VOC keeps its lists of images."""

VOC_IMAGES = {"train": 1464, "val": 1449, "trainval": 2913}
"""How many each official list names (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/)."""


def _is_needed(name: str) -> bool:
    folder = name.removeprefix("VOCdevkit/VOC2012/").rpartition("/")[0]
    return folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")


VOC2012 = Archive(
    "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    2000,
    1950,
    _is_needed,
    "6cd6e144f989b92b3379bac3b3de84fd",
)


def get_voc(root: Path, *, offline: bool = False) -> None:
    """VOC 2012's images, masks and lists, as `root`; what is there already is left, and nothing done if that is all.

    Raises:
        UserError: they cannot be had, or `root` holds something else.
    """
    root = root.resolve()
    lacking = lacking_of_voc(root)
    for name, number in VOC_IMAGES.items():
        list_file = root / LISTS / f"{name}.txt"
        if list_file.is_file() and len(ids_of(list_file)) != number:
            raise UserError(
                f"{list_file} lists {len(ids_of(list_file))} images, VOC 2012's own {number}: move it away to have "
                f"the official one put there, or {OTHER_ROOT}"
            )
    if not lacking:
        log.info("VOC 2012 is in %s already", root)
        discard_archive(VOC2012, root.parent)
        return
    if (root / "JPEGImages").is_dir():
        log.info("%s lacks %s%s: what is missing is taken from the archive", root, lacking[0], and_more(len(lacking)))
    elif root.exists() and any(root.iterdir()):
        raise UserError(f"{root} holds something else than VOC 2012; move it away, or {OTHER_ROOT}")

    def install(scratch: Path) -> None:
        whole = scratch / "VOCdevkit" / "VOC2012"
        if (root / "JPEGImages").is_dir():
            _fill_in(root, whole)
        else:
            if root.exists():
                root.rmdir()
            whole.replace(root)

    tell_room([VOC2012], root.parent)
    get_archive(VOC2012, root.parent, lambda: not lacking_of_voc(root), install, offline=offline)
    lacking = lacking_of_voc(root)
    if lacking:
        raise UserError(
            f"{root} lacks {lacking[0]}{and_more(len(lacking))}, which its lists name and VOC 2012's archive does not "
            f"hold: move {root / LISTS} away to have the official lists put there"
        )


def lacking_of_voc(root: Path) -> list[str]:
    """VOC 2012's official lists, and the images and masks that they name, where they are not in `root`."""
    lists = {f"{LISTS.as_posix()}/{name}.txt" for name in VOC_IMAGES}
    there = [root / each for each in lists if (root / each).is_file()]
    ids = sorted({id for list_file in there for id in ids_of(list_file)})
    files = [
        f"{folder}/{id}.{suffix}"
        for folder, suffix in (("JPEGImages", "jpg"), ("SegmentationClass", "png"))
        for id in ids
    ]
    return not_there(root, [*sorted(lists), *files])


def _fill_in(root: Path, whole: Path) -> None:
    """Moves those files of `whole` into `root` that it has not."""
    for file in sorted(path for path in whole.rglob("*") if path.is_file()):
        target = root / file.relative_to(whole)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)


def ids_of(list_file: Path) -> set[str]:
    """Those of an official list, or of one that names their images' files."""
    return {line.split()[0].rpartition("/")[2].removesuffix(".jpg") for line in read_lines(list_file) if line}
