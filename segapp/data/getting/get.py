"""Downloads data sets, and builds trainaug from SBD's own files."""

import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from segapp.base.archives import extract
from segapp.base.classes import VOC_CLASSES, voc_palette
from segapp.base.download import discard_download, fetch
from segapp.base.errors import UserError, and_more, disk_error
from segapp.base.files import file_lock, scratch_folder, write_text
from segapp.base.images import image_size, write_mask
from segapp.base.logs import progress_bar
from segapp.data.dataset import check_labels, check_size
from segapp.data.formats.pairs import not_there, read_lines

log = logging.getLogger(__name__)

LISTS = Path("ImageSets") / "Segmentation"
"""Where VOC keeps its lists of images."""

VOC_IMAGES = {"train": 1464, "val": 1449, "trainval": 2913}
"""How many each official list names (http://host.robots.ox.ac.uk/pascal/VOC/voc2012/)."""

TRAINAUG_IMAGES = 10_582
"""(SBD train + SBD val + VOC 2012 train) - VOC 2012 val (arXiv:1802.02611, section 4)."""

OTHER_ROOT = "name another folder with root=DIR, in training with data.root=DIR"


@dataclass(frozen=True)
class Archive:
    """megabytes: about its size. unpacked: MB that its wanted files take."""

    url: str
    megabytes: int
    unpacked: int
    wanted: Callable[[str], bool]
    md5: str | None = None

    @property
    def name(self) -> str:
        return self.url.rpartition("/")[2]


def _voc_wanted(name: str) -> bool:
    folder = name.removeprefix("VOCdevkit/VOC2012/").rpartition("/")[0]
    return folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation")


def _sbd_wanted(name: str) -> bool:
    rest = name.removeprefix("benchmark_RELEASE/dataset/")
    return rest in ("train.txt", "val.txt") or (rest.startswith("cls/") and rest.endswith(".mat"))


VOC2012 = Archive(
    "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
    2000,
    1950,
    _voc_wanted,
    "6cd6e144f989b92b3379bac3b3de84fd",
)
SBD = Archive(
    "https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",
    1420,
    150,
    _sbd_wanted,
    "82b4d87ceb2ed10f6038a1cba92111cb",
)
COCO = tuple(
    Archive(f"http://images.cocodataset.org/{path}.zip", megabytes, megabytes * times, lambda name: True)
    for path, megabytes, times in (
        ("annotations/annotations_trainval2017", 253, 4),
        ("zips/val2017", 816, 1),
        ("zips/train2017", 19337, 1),
    )
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
        if list_file.is_file() and len(_ids(list_file)) != number:
            raise UserError(
                f"{list_file} lists {len(_ids(list_file))} images, VOC 2012's own {number}: move it away to have the "
                f"official one put there, or {OTHER_ROOT}"
            )
    if not lacking:
        log.info("VOC 2012 is in %s already", root)
        _tidy(VOC2012, root.parent)
        return
    if (root / "JPEGImages").is_dir():
        log.info("%s lacks %s%s: what is missing is taken from the archive", root, lacking[0], and_more(len(lacking)))
    elif root.exists() and any(root.iterdir()):
        raise UserError(f"{root} holds something else than VOC 2012; move it away, or {OTHER_ROOT}")

    def place(unpacked: Path) -> None:
        whole = unpacked / "VOCdevkit" / "VOC2012"
        if (root / "JPEGImages").is_dir():
            _fill(root, whole)
        else:
            if root.exists():
                root.rmdir()
            whole.replace(root)

    _tell_room([VOC2012], root.parent)
    get(VOC2012, root.parent, lambda: not lacking_of_voc(root), place, offline=offline)
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
    ids = sorted({id for list_file in there for id in _ids(list_file)})
    files = [
        f"{folder}/{id}.{suffix}"
        for folder, suffix in (("JPEGImages", "jpg"), ("SegmentationClass", "png"))
        for id in ids
    ]
    return not_there(root, [*sorted(lists), *files])


def _fill(root: Path, whole: Path) -> None:
    """Moves those files of `whole` into `root` that it has not."""
    for file in sorted(path for path in whole.rglob("*") if path.is_file()):
        target = root / file.relative_to(whole)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            file.replace(target)


def get_trainaug(root: Path, *, offline: bool = False, images: int = TRAINAUG_IMAGES) -> None:
    """trainaug's masks and list inside VOC 2012's `root`, from SBD; nothing is done if they are there.

    Raises:
        UserError: VOC 2012 is not in `root`; SBD cannot be had, or does not make `images` images.
    """
    list_file = root / LISTS / "trainaug.txt"
    if list_file.is_file():
        absent = not_there(root / "SegmentationClassAug", [f"{id}.png" for id in sorted(_ids(list_file))])
        if absent:
            raise UserError(
                f"{root / 'SegmentationClassAug' / absent[0]}{and_more(len(absent))}: no such file, but {list_file} "
                "lists it; move that list away, and both are made from SBD"
            )
        log.info("trainaug is in %s already", root)
        _tidy(SBD, root.parent)
        return
    if not (root / "JPEGImages").is_dir():
        raise UserError(f"VOC 2012 is not in {root}; trainaug needs it: python tools/prepare_data.py voc2012 first")

    def place(unpacked: Path) -> None:
        build_trainaug(root, unpacked / "benchmark_RELEASE" / "dataset", images)

    _tell_room([SBD], root.parent)
    get(SBD, root.parent, list_file.is_file, place, offline=offline)


def get_coco(root: Path, *, offline: bool = False) -> None:
    """COCO 2017's images and annotations in `root`, as its zips have them; what is there is left.

    Raises:
        UserError: they cannot be had.
    """
    lacking = [archive for archive in COCO if not (root / _coco_folder(archive)).is_dir()]
    if lacking:
        _tell_room(lacking, root)
        root.mkdir(parents=True, exist_ok=True)
        _check_room(lacking, root)
    for archive in COCO:
        folder = _coco_folder(archive)

        def place(unpacked: Path, folder: str = folder) -> None:
            (unpacked / folder).replace(root / folder)

        if (root / folder).is_dir():
            log.info("COCO's %s is in %s already", folder, root)
            _tidy(archive, root)
        else:
            get(archive, root, (root / folder).is_dir, place, offline=offline)


def _coco_folder(archive: Archive) -> str:
    name = archive.name.removesuffix(".zip")
    return "annotations" if name.startswith("annotations") else name


def _tidy(archive: Archive, base: Path) -> None:
    """Removes what a killed process has left of a download that is in its place."""
    discard_download(base / "downloads" / archive.name)
    shutil.rmtree(_unpacking(archive, base), ignore_errors=True)


def _unpacking(archive: Archive, base: Path) -> Path:
    return base / f".{archive.name}.unpacking"


def get(
    archive: Archive, base: Path, is_there: Callable[[], bool], place: Callable[[Path], None], *, offline: bool
) -> None:
    """Downloads and unpacks beside where it is to lie; `place` moves it there from a scratch folder, whole.

    Killed at any moment and started again, it goes on or starts over; two processes do not do it at once.
    """
    try:
        base.mkdir(parents=True, exist_ok=True)
        with file_lock(base / f".{archive.name}.lock", f"getting {archive.name}"):
            if is_there():
                return
            _check_room([archive], base)
            fetched = fetch(
                archive.url,
                base / "downloads",
                megabytes=archive.megabytes,
                md5=archive.md5,
                offline=offline,
                otherwise="data/README.md says where else it is; experiment=demo needs no data",
                elsewhere=OTHER_ROOT,
            )
            with scratch_folder(_unpacking(archive, base)) as scratch:
                log.info("unpacking %s", fetched.path)
                extract(fetched.path, scratch, archive.wanted, limit=2_000_000 * archive.unpacked)
                place(scratch)
            fetched.accept()
            fetched.discard()
    except OSError as error:
        raise disk_error(base, error, otherwise=OTHER_ROOT) from None


def _room(archives: Sequence[Archive], base: Path) -> float:
    """Gigabytes that fetching and unpacking them takes."""
    there = {path.name for path in (base / "downloads").glob("*")}
    fetched = sum(each.megabytes for each in archives if each.name not in there)
    return (sum(each.unpacked for each in archives) + fetched) / 1e3


def _tell_room(archives: Sequence[Archive], base: Path) -> None:
    log.info("this needs about %.1f GB in %s", _room(archives, base), base)


def _check_room(archives: Sequence[Archive], base: Path) -> None:
    needed, free = _room(archives, base), shutil.disk_usage(base).free / 1e9
    if needed > free:
        raise UserError(
            f"{base} has {free:.1f} GB free, and about {needed:.1f} GB are needed; make room, or {OTHER_ROOT}"
        )


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
    voc_train, voc_val = _ids(lists / "train.txt"), _ids(lists / "val.txt")
    ids = sorted((_ids(sbd / "train.txt") | _ids(sbd / "val.txt") | voc_train) - voc_val)
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
                        mask = read_sbd_mask(sbd / "cls" / f"{id}.mat")
                        check_size(
                            sbd / "cls" / f"{id}.mat", mask.shape, image_size(root / "JPEGImages" / f"{id}.jpg")
                        )
                        write_mask(scratch / f"{id}.png", mask, palette)
                    progress.update()
            scratch.replace(masks)
    lacking = [id for id in ids if not (masks / f"{id}.png").is_file()]
    if lacking:
        raise UserError(f"{masks} is there, but not from here: {lacking[0]}.png is missing; move it away")
    write_text(lists / "trainaug.txt", "".join(f"{id}\n" for id in ids))
    log.info("trainaug: %d images, %d of them with the official mask", len(ids), len(voc_train & set(ids)))


def _ids(list_file: Path) -> set[str]:
    """Those of an official list, or of one that names their images' files."""
    return {line.split()[0].rpartition("/")[2].removesuffix(".jpg") for line in read_lines(list_file) if line}


def read_sbd_mask(path: Path) -> npt.NDArray[np.uint8]:
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
