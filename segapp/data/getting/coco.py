"""Downloads COCO 2017: the images of train and val, and their annotations."""

import logging
from pathlib import Path

from segapp.data.getting.archive import Archive, check_room, discard_archive, get_archive, tell_room

log = logging.getLogger(__name__)

COCO = tuple(
    Archive(f"http://images.cocodataset.org/{path}.zip", megabytes, megabytes * times, lambda name: True)
    for path, megabytes, times in (
        ("annotations/annotations_trainval2017", 253, 4),
        ("zips/val2017", 816, 1),
        ("zips/train2017", 19337, 1),
    )
)


def get_coco(root: Path, *, offline: bool = False) -> None:
    """COCO 2017's images and annotations in `root`, as its zips have them; what is there is left.

    Raises:
        UserError: they cannot be had.
    """
    lacking = [archive for archive in COCO if not (root / _folder(archive)).is_dir()]
    if lacking:
        tell_room(lacking, root)
        root.mkdir(parents=True, exist_ok=True)
        check_room(lacking, root)
    for archive in COCO:
        folder = _folder(archive)

        def install(scratch: Path, folder: str = folder) -> None:
            (scratch / folder).replace(root / folder)

        if (root / folder).is_dir():
            log.info("COCO's %s is in %s already", folder, root)
            discard_archive(archive, root)
        else:
            get_archive(archive, root, (root / folder).is_dir, install, offline=offline)


def _folder(archive: Archive) -> str:
    """What the archive holds at its top, and the root once it is unpacked."""
    name = archive.name.removesuffix(".zip")
    return "annotations" if name.startswith("annotations") else name
