"""Downloads SBD, and builds trainaug from it: VOC 2012 with SBD's masks where VOC has none."""

import logging
import shutil
from pathlib import Path

import numpy as np

from segapp.base.classes import VOC_CLASSES, voc_palette
from segapp.base.errors import UserError, and_more
from segapp.base.files import scratch_folder, write_text
from segapp.base.images import image_size
from segapp.base.logs import progress_bar
from segapp.base.masks import write_mask
from segapp.data.dataset import Array, check_labels, check_size
from segapp.data.getting.archive import Archive, discard_archive, get_archive, tell_room
from segapp.data.getting.voc import LISTS, ids_of
from segapp.data.pairs import not_there

log = logging.getLogger(__name__)

TRAINAUG_IMAGES = 10_582
"""(SBD train + SBD val + VOC 2012 train) - VOC 2012 val (arXiv:1802.02611, section 4)."""


def _is_needed(name: str) -> bool:
    rest = name.removeprefix("benchmark_RELEASE/dataset/")
    return rest in ("train.txt", "val.txt") or (rest.startswith("cls/") and rest.endswith(".mat"))


SBD = Archive(
    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
    1420,
    150,
    _is_needed,
    "82b4d87ceb2ed10f6038a1cba92111cb",
)


def get_trainaug(root: Path, *, offline: bool = False, images: int = TRAINAUG_IMAGES) -> None:
    """trainaug's masks and list inside VOC 2012's `root`, from SBD; nothing is done if they are there.

    Raises:
        UserError: VOC 2012 is not in `root`; SBD cannot be had, or does not make `images` images.
    """
    list_file = root / LISTS / "trainaug.txt"
    if list_file.is_file():
        absent = not_there(root / "SegmentationClassAug", [f"{id}.png" for id in sorted(ids_of(list_file))])
        if absent:
            raise UserError(
                f"{root / 'SegmentationClassAug' / absent[0]}{and_more(len(absent))}: no such file, but {list_file} "
                "lists it; move that list away, and both are made from SBD"
            )
        log.info("trainaug is in %s already", root)
        discard_archive(SBD, root.parent)
        return
    if not (root / "JPEGImages").is_dir():
        raise UserError(f"VOC 2012 is not in {root}; trainaug needs it: python tools/prepare_data.py voc2012 first")

    def install(scratch: Path) -> None:
        build_trainaug(root, scratch / "benchmark_RELEASE" / "dataset", images)

    tell_room([SBD], root.parent)
    get_archive(SBD, root.parent, list_file.is_file, install, offline=offline)


def build_trainaug(root: Path, sbd: Path, images: int) -> None:
    """Writes SegmentationClassAug/ID.png and, last, ImageSets/Segmentation/trainaug.txt.

    The official mask is copied where there is one; the others are SBD's, without a void contour.

    Args:
        root: of VOC 2012.
        sbd: benchmark_RELEASE/dataset, with train.txt, val.txt and cls/ID.mat.
        images: how many there must be.

    Raises:
        UserError: another number; a damaged file; masks of someone else in the way.
    """
    lists = root / LISTS
    voc_train, voc_val = ids_of(lists / "train.txt"), ids_of(lists / "val.txt")
    ids = sorted((ids_of(sbd / "train.txt") | ids_of(sbd / "val.txt") | voc_train) - voc_val)
    if len(ids) != images:
        raise UserError(f"trainaug would have {len(ids)} images in place of {images}: {lists} or {sbd} is incomplete")
    masks = root / "SegmentationClassAug"
    if not masks.exists():
        with scratch_folder(root / ".SegmentationClassAug.part") as scratch:
            palette = voc_palette()
            with progress_bar(len(ids), "writing trainaug's masks", "mask", leave=False) as progress:
                for id in ids:
                    if id in voc_train:
                        shutil.copyfile(root / "SegmentationClass" / f"{id}.png", scratch / f"{id}.png")
                    else:
                        mask_file = sbd / "cls" / f"{id}.mat"
                        mask = read_sbd_mask(mask_file)
                        check_size(mask_file, mask.shape, image_size(root / "JPEGImages" / f"{id}.jpg"))
                        write_mask(scratch / f"{id}.png", mask, palette)
                    progress.update()
            scratch.replace(masks)
    lacking = [id for id in ids if not (masks / f"{id}.png").is_file()]
    if lacking:
        raise UserError(f"{masks} is there, but not from here: {lacking[0]}.png is missing; move it away")
    write_text(lists / "trainaug.txt", "".join(f"{id}\n" for id in ids))
    log.info("trainaug: %d images, %d of them with the official mask", len(ids), len(voc_train & set(ids)))


def read_sbd_mask(path: Path) -> Array:
    """GTcls.Segmentation of one of SBD's files, H x W class indices.

    Raises:
        UserError: missing, damaged, or with values that are no class of VOC.
    """
    from scipy.io import loadmat  # half a second of import that few need

    if not path.is_file():
        raise UserError(f"{path}: no such file; SBD's archive is incomplete")
    try:
        mask = np.asarray(loadmat(path, variable_names=["GTcls"])["GTcls"]["Segmentation"][0, 0])
    except Exception as error:  # whatever scipy makes of a damaged file
        raise UserError(f"{path}: no mask of SBD, or a damaged one ({error})") from None
    if mask.ndim != 2 or mask.dtype.kind != "u" or not mask.size:
        raise UserError(f"{path}: no mask of SBD: {mask.dtype} of shape {mask.shape}")
    check_labels(path, np.bincount(mask.clip(max=255).ravel(), minlength=256), len(VOC_CLASSES))
    return mask.astype(np.uint8)
