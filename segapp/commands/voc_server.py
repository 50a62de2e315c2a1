"""Makes the archive of masks that the PASCAL VOC evaluation server scores: the test set's labels are not public.

python tools/voc_server.py data.root=VOCdevkit/VOC2012 output=DIR      the published VOC weights; again: goes on
python tools/voc_server.py checkpoint=runs/train/RUN output=DIR competition=comp5
python tools/voc_server.py predictions=DIR                             checks and packs masks that are there
"""

import gzip
import json
import logging
import tarfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from segapp.base.classes import VOC_CLASSES, voc_palette
from segapp.base.config import Config, UserPath, save_config
from segapp.base.devices import DeviceName, Precision
from segapp.base.errors import UserError, and_more
from segapp.base.files import atomic_write, sha256, write_json
from segapp.base.images import image_size, read_image, read_mask, write_mask
from segapp.base.logs import progress_bar
from segapp.cli import output_folder, read_config
from segapp.commands.eval import check_number
from segapp.data.dataset import SegmentationDataset, check_size
from segapp.data.formats.voc import Voc2012Config
from segapp.data.getting.voc import LISTS
from segapp.data.options import check_network
from segapp.inference.open import open_predictor
from segapp.inference.options import InferenceConfig
from segapp.runs.layout import CONFIG
from segapp.weights.find import find_checkpoint

log = logging.getLogger(__name__)

LESS_MEMORY = "take a smaller canvas with inference"

ARCHIVE = "results.tgz"


class ServerConfig(Config):
    """See conf/voc_server.yaml."""

    data: Voc2012Config
    inference: InferenceConfig
    split: str = Field(pattern=r"^\w+$")
    competition: Literal["comp5", "comp6"]
    checkpoint: str
    predictions: UserPath | None
    output_stride: Literal[8, 16, 32] | None
    device: DeviceName
    precision: Precision
    offline: bool
    output: UserPath | None

    @property
    def folder(self) -> Path:
        """Of the masks, within the output and within the archive (VOC devkit, section 5.3)."""
        return Path("results/VOC2012/Segmentation") / f"{self.competition}_{self.split}_cls"


def main(overrides: list[str]) -> int:
    """Labels the split's images, checks the masks and packs them. Returns the exit status."""
    config = read_config("voc_server", overrides, ServerConfig)
    check_network(config.data, config.offline)
    dataset = open_split(config)
    with output_folder(config.output, "voc_server", config.split) as output:
        folder = output / config.folder
        made_by = output / f"{folder.name}.json"  # what the masks were made by, so that no others are mixed in
        if config.predictions is None:
            label_missing(dataset, folder, made_by, config)
        else:
            copy_masks(dataset, config.predictions, folder, made_by)
        check_all(dataset, folder)
        save_config(output / CONFIG, config)
        pack(dataset, folder, output / ARCHIVE, config.folder)
    print(f"masks    {folder}")
    print(f"archive  {output / ARCHIVE}")
    print(f"\n{len(dataset)} masks of voc2012 {config.split}, for competition {config.competition}")
    return 0


def open_split(config: ServerConfig) -> SegmentationDataset:
    """The split's images.

    Raises:
        UserError: they are not there, or the list names something outside of their folder.
    """
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


def label_missing(dataset: SegmentationDataset, folder: Path, made_by: Path, config: ServerConfig) -> None:
    """Makes the masks that are not there or not sound.

    Raises:
        UserError: the masks that are there were made otherwise, the checkpoint cannot be used, or an image is damaged.
    """
    checkpoint = find_checkpoint(config.checkpoint, offline=config.offline)
    maker = {
        "checkpoint_sha256": sha256(checkpoint),
        "output_stride": config.output_stride,
        "inference": config.inference.model_dump(mode="json"),
    }
    check_maker(made_by, folder, maker)
    missing = [at for at in range(len(dataset)) if not is_sound(dataset, at, folder)]
    if not missing:
        return
    if len(missing) < len(dataset):
        log.info("%d of %d masks are there already", len(dataset) - len(missing), len(dataset))
    predictor, info = open_predictor(
        checkpoint,
        config.inference,
        output_stride=config.output_stride,
        device=config.device,
        precision=config.precision,
    )
    check_number(str(checkpoint), len(info.classes), dataset)
    log.info("%s: %s", checkpoint, info.describe())
    if config.competition == "comp5":
        warn_of_other_data(info.trained_on)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(made_by, maker)
    palette = voc_palette()
    with progress_bar(len(missing), f"labelling {dataset.name}", "image") as progress:
        for at in missing:
            write_mask(mask_file(dataset, at, folder), predictor(read_image(dataset.images[at])), palette)
            progress.update()


def check_maker(made_by: Path, folder: Path, maker: dict[str, Any]) -> None:
    """Raises:
    UserError: the folder's masks are of another checkpoint or were made with other settings.
    """
    if not folder.is_dir() or not any(folder.glob("*.png")):
        return
    try:
        before = json.loads(made_by.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = None
    if before != maker:
        raise UserError(
            f"{folder} holds masks of another checkpoint, or made with another output stride or inference; "
            "choose another folder with output=DIR"
        )


def warn_of_other_data(splits_seen: tuple[str, ...]) -> None:
    """Says so where weights were trained on more than comp5 allows, or nobody knows on what."""
    other = [seen for seen in splits_seen if seen not in ("voc2012 train", "voc2012 val", "voc2012 trainval")]
    if other or not splits_seen:
        log.warning(
            "comp5 is for what was trained on VOC 2012's train and val alone; these weights were trained on %s, too: "
            "competition=comp6",
            ", ".join(other) or "nobody knows what",
        )


def copy_masks(dataset: SegmentationDataset, predictions: Path, folder: Path, made_by: Path) -> None:
    """Writes the masks in `predictions` as the server reads them, after all are known to be sound.

    Raises:
        UserError: one of them is missing, unsound or one too many.
    """
    if not predictions.is_dir():
        raise UserError(f"{predictions}: no such folder of masks")
    check_all(dataset, predictions)
    made_by.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    palette = voc_palette()
    for at in range(len(dataset)):
        write_mask(mask_file(dataset, at, folder), read_mask(mask_file(dataset, at, predictions)), palette)


def mask_file(dataset: SegmentationDataset, at: int, folder: Path) -> Path:
    return folder / f"{dataset.ids[at]}.png"


def is_sound(dataset: SegmentationDataset, at: int, folder: Path) -> bool:
    try:
        check_mask(dataset, at, folder)
    except UserError:
        return False
    return True


def check_mask(dataset: SegmentationDataset, at: int, folder: Path) -> None:
    """Raises:
    UserError: the image's mask is missing, damaged, of another size, or has a value that is no class (255 is none).
    """
    path = mask_file(dataset, at, folder)
    mask: npt.NDArray[np.uint8] = read_mask(path)
    check_size(path, mask.shape, image_size(dataset.images[at]))
    if mask.max() >= len(VOC_CLASSES):
        raise UserError(f"{path}: value {mask.max()}; the server takes 0 to {len(VOC_CLASSES) - 1} alone")


def check_all(dataset: SegmentationDataset, folder: Path) -> None:
    """Raises:
    UserError: a mask is missing or unsound, or the folder holds something else.
    """
    expected = {f"{id}.png" for id in dataset.ids}
    extra = sorted(path.name for path in folder.iterdir() if path.name not in expected and path.name[0] != ".")
    if extra:
        raise UserError(f"{folder / extra[0]}{and_more(len(extra))}: {dataset.name} has no such image; remove it")
    missing = sorted(expected - {path.name for path in folder.iterdir()})
    if missing:
        raise UserError(f"{folder / missing[0]}{and_more(len(missing))}: no such mask, but {dataset.name} lists it")
    for at in range(len(dataset)):
        check_mask(dataset, at, folder)


def pack(dataset: SegmentationDataset, folder: Path, archive: Path, inside: Path) -> None:
    """Writes the masks as a .tgz, under the path `inside`; the same masks give the same bytes."""
    with (
        atomic_write(archive) as temporary,
        temporary.open("wb") as raw,
        gzip.GzipFile("", "wb", fileobj=raw, compresslevel=1, mtime=0) as zipped,  # PNGs hardly shrink
        tarfile.open(fileobj=zipped, mode="w") as tar,
    ):
        for at in range(len(dataset)):
            path = mask_file(dataset, at, folder)
            member = tarfile.TarInfo((inside / path.name).as_posix())
            member.size = path.stat().st_size
            with path.open("rb") as file:
                tar.addfile(member, file)
