"""Makes the archive of masks that the PASCAL VOC evaluation server scores: the test set's labels are not public."""

import gzip
import json
import logging
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from segapp.base.classes import VOC_CLASSES, voc_palette
from segapp.base.config import UserPath, save_config
from segapp.base.errors import UserError, and_more
from segapp.base.files import atomic_write, write_json
from segapp.base.images import image_size
from segapp.base.logs import progress_bar
from segapp.base.masks import read_mask, write_mask
from segapp.data.class_lists import both_lists
from segapp.data.dataset import SegmentationDataset, check_size
from segapp.data.formats.voc import Voc2012Config
from segapp.data.getting.voc import LISTS
from segapp.data.options import check_network
from segapp.evaluation.checks import matched_to_weights
from segapp.inference.open import PredictorOptions
from segapp.runs.layout import CONFIG
from segapp.weights.exported.description import digest
from segapp.weights.find import find_checkpoint

log = logging.getLogger(__name__)

ARCHIVE = "results.tgz"
COMP5 = ("voc2012 train", "voc2012 val", "voc2012 trainval")
"""What that competition allows to train on."""


class ServerConfig(PredictorOptions):
    """What is submitted; see conf/voc_server.yaml."""

    data: Voc2012Config
    split: str = Field(pattern=r"^\w+$")
    competition: Literal["comp5", "comp6"]
    checkpoint: str
    predictions: UserPath | None
    offline: bool
    output: UserPath | None

    @property
    def folder(self) -> Path:
        """Of the masks, within the output and within the archive (VOC devkit, section 5.3)."""
        return Path("results/VOC2012/Segmentation") / f"{self.competition}_{self.split}_cls"


@dataclass(frozen=True)
class ServerMasks:
    """A folder of masks ID.png of a data set's images, as the server takes them."""

    dataset: SegmentationDataset
    folder: Path

    def file(self, index: int) -> Path:
        return self.folder / f"{self.dataset.ids[index]}.png"

    def check(self, index: int) -> None:
        """Raises:
        UserError: a mask is missing, damaged, not of its image's size, or has a value that is no class (255 is none).
        """
        path = self.file(index)
        mask = read_mask(path)
        check_size(path, mask.shape, image_size(self.dataset.images[index]))
        if mask.max() >= len(VOC_CLASSES):
            raise UserError(f"{path}: value {mask.max()}; the server takes 0 to {len(VOC_CLASSES) - 1} alone")

    def is_sound(self, index: int) -> bool:
        try:
            self.check(index)
        except UserError:
            return False
        return True

    def check_all(self) -> None:
        """Raises:
        UserError: a mask is missing or unsound, or the folder holds something else.
        """
        expected, name = {f"{id}.png" for id in self.dataset.ids}, self.dataset.name
        present = {path.name for path in self.folder.iterdir()}
        extra = sorted(file for file in present - expected if file[0] != ".")
        if extra:
            raise UserError(f"{self.folder / extra[0]}{and_more(len(extra))}: {name} has no such image; remove it")
        missing = sorted(expected - present)
        if missing:
            raise UserError(f"{self.folder / missing[0]}{and_more(len(missing))}: no such mask, but {name} lists it")
        for index in range(len(self.dataset)):
            self.check(index)

    def pack(self, archive: Path, inside: Path) -> None:
        """Writes the masks as a .tgz, under the path `inside`; the same masks give the same bytes."""
        with (
            atomic_write(archive) as temporary,
            temporary.open("wb") as raw,
            gzip.GzipFile("", "wb", fileobj=raw, compresslevel=1, mtime=0) as zipped,  # PNGs hardly shrink
            tarfile.open(fileobj=zipped, mode="w") as tar,
        ):
            for path in map(self.file, range(len(self.dataset))):
                member = tarfile.TarInfo((inside / path.name).as_posix())
                member.size = path.stat().st_size
                with path.open("rb") as file:
                    tar.addfile(member, file)


def open_split(config: ServerConfig) -> SegmentationDataset:
    """The split's images.

    Raises:
        UserError: they are not there, or the list names something outside of their folder.
    """
    check_network(config.data, config.offline)
    root = config.data.root
    if config.split == "test" and not (root / LISTS / "test.txt").is_file():
        raise UserError(
            f"{root / LISTS / 'test.txt'}: no such list; the test images are apart from the rest: get VOC2012test.tar "
            "from the evaluation server (it asks for an account) and unpack it over data.root"
        )
    dataset = config.data.model_copy(update={"val": config.split}).dataset("val")
    paths = [id for id in dataset.ids if Path(id).name != id]
    if paths:
        raise UserError(f"{root / LISTS / config.split}.txt: {paths[0]} is no name of an image")
    return dataset


def make_archive(dataset: SegmentationDataset, config: ServerConfig, output: Path) -> None:
    """Labels the images, or takes the masks that are there, and packs them into ARCHIVE.

    Raises:
        UserError: the checkpoint or the masks cannot be used.
    """
    masks = ServerMasks(dataset, output / config.folder)
    made_by = output / f"{config.folder.name}.json"  # what the masks were made by, so that no others are mixed in
    if config.predictions is None:
        label_missing(masks, made_by, config)
    else:
        copy_masks(masks, config.predictions, made_by)
    masks.check_all()
    save_config(output / CONFIG, config)
    masks.pack(output / ARCHIVE, config.folder)


def label_missing(masks: ServerMasks, made_by: Path, config: ServerConfig) -> None:
    """Makes the masks that are not there or not sound.

    Raises:
        UserError: the masks that are there were made otherwise, the checkpoint cannot be used, or an image is damaged.
    """
    dataset = masks.dataset
    path = find_checkpoint(config.checkpoint, offline=config.offline)
    fingerprint = {
        "checkpoint_sha256": digest(path),
        "output_stride": config.output_stride,
        "inference": config.inference.model_dump(mode="json"),
        "jpeg_decoder": config.jpeg_decoder,
        "white_level": config.white_level,
    }
    check_made_by(made_by, masks.folder, fingerprint)
    missing = [index for index in range(len(dataset)) if not masks.is_sound(index)]
    if not missing:
        return
    if len(missing) < len(dataset):
        log.info("%d of %d masks are there already", len(dataset) - len(missing), len(dataset))
    predictor, info = config.open(path)
    if matched_to_weights(dataset, path, info.classes).classes != dataset.classes:
        raise UserError(
            f"{path}: its classes stand in another order than VOC's; {both_lists(dataset, info.classes, path.name)}"
        )
    log.info("%s: %s", path, info.describe())
    if config.competition == "comp5":
        warn_of_other_data(info.trained_on)
    masks.folder.mkdir(parents=True, exist_ok=True)
    write_json(made_by, fingerprint)
    palette = voc_palette()
    with progress_bar(len(missing), f"labelling {dataset.name}", "image") as progress:
        for index in missing:
            write_mask(masks.file(index), predictor(dataset.images[index]), palette)
            progress.update()


def check_made_by(made_by: Path, folder: Path, fingerprint: dict[str, Any]) -> None:
    """Raises:
    UserError: the folder's masks are of another checkpoint or were made with other settings.
    """
    if not folder.is_dir() or not any(folder.glob("*.png")):
        return
    try:
        before = json.loads(made_by.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = None
    if before != fingerprint:
        raise UserError(
            f"{folder} holds masks of another checkpoint, or made with another output stride or inference; "
            "choose another folder with output=DIR"
        )


def warn_of_other_data(trained_on: tuple[str, ...]) -> None:
    """Says so where weights were trained on more than comp5 allows, or nobody knows on what."""
    other = [split for split in trained_on if split not in COMP5]
    if other or not trained_on:
        log.warning(
            "comp5 is for what was trained on VOC 2012's train and val alone; these weights were trained on %s, too: "
            "competition=comp6",
            ", ".join(other) or "nobody knows what",
        )


def copy_masks(masks: ServerMasks, predictions: Path, made_by: Path) -> None:
    """Writes the masks in `predictions` as the server reads them, after all are known to be sound.

    Raises:
        UserError: one of them is missing, unsound or one too many.
    """
    if not predictions.is_dir():
        raise UserError(f"{predictions}: no such folder of masks")
    given = ServerMasks(masks.dataset, predictions)
    given.check_all()
    made_by.unlink(missing_ok=True)
    masks.folder.mkdir(parents=True, exist_ok=True)
    palette = voc_palette()
    for index in range(len(masks.dataset)):
        write_mask(masks.file(index), read_mask(given.file(index)), palette)
