"""From what a user names to a file of our own.

What is there is found without PyTorch, whose import takes seconds; it is imported to convert.
"""

import logging
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from segapp.base.cache import cache_folder
from segapp.base.config import as_typed
from segapp.base.download import answers, fetch
from segapp.base.errors import UserError
from segapp.base.files import file_lock, scratch_folder
from segapp.base.paths import runs_folder
from segapp.base.remote import is_address, remote_file
from segapp.runs.layout import BEST, run_weights
from segapp.weights.description import outline_of
from segapp.weights.exported.description import is_exported
from segapp.weights.sources.kinds import ARCHIVES, KERAS, is_torch_file
from segapp.weights.zoo import ZOO, ZooEntry

if TYPE_CHECKING:
    from segapp.models.encoders import EncoderConfig
    from segapp.weights.sources.common import WeightsMetadata

log = logging.getLogger(__name__)

LATEST, AUTO, EMBEDDED = "latest", "auto", "embedded"
PUBLISHED = "xception65_voc_coco_trainaug"
"""The best network for VOC's classes that is published."""
EMBEDDED_FILE = Path(__file__).parent / "embedded" / "mobilenetv2_voc.safetensors"
"""A small network for VOC's classes, which comes with the program; README.md beside it is its card."""

CONVERTER = 2
"""To be raised when what `convert` makes of the same file changes."""


def find_checkpoint(name: str, *, offline: bool = False) -> Path:
    """A whole network: a file, a run's folder (its best checkpoint, else its last), `latest` (the newest best one
    under runs/), `embedded` (the small one that comes with the program), or a name of the zoo, whose file is
    downloaded and converted the first time.

    Raises:
        UserError: there is none, or it cannot be had.
    """
    if name in ZOO and ZOO[name].kind == "encoder":  # told before a long download
        raise UserError(f"{name} is an encoder alone; training starts from it with encoder_weights={name}")
    return find_weights(name, offline=offline)


def chosen(name: str, *, offline: bool = False) -> str:
    """What "auto" stands for, any other name as it is: the published Xception-65 for VOC if it is in the cache or can
    be downloaded, else the embedded network, and a line in the log that says so.
    """
    if name != AUTO:
        return name
    here = converted(PUBLISHED).is_file() or put_by_hand(PUBLISHED).exists()
    if not here and (offline or not answers(ZOO[PUBLISHED].url)):
        return _embedded_instead("is not in the cache" if offline else "cannot be reached")
    try:
        published(PUBLISHED, offline=offline)
        return PUBLISHED
    except UserError as error:
        return _embedded_instead(f"cannot be had ({error})")


def _embedded_instead(reason: str) -> str:
    log.warning(
        "%s %s: the small network that comes with segapp predicts, of mIoU %.1f on 203 images of VOC 2012 val; "
        "tools/import_weights.py %s gets the better one, of 82.2 on all of val",
        *(PUBLISHED, reason, 100 * outline_of(EMBEDDED_FILE).scores["miou"], PUBLISHED),
    )
    return EMBEDDED


def find_encoder(weights: str, encoder: "EncoderConfig", *, offline: bool = False) -> Path:
    """The file that `weights` names, as `find_checkpoint` does; an encoder's, or a network's with it.

    Args:
        weights: "auto" is the first of the zoo for this encoder.

    Raises:
        UserError: there is none, it cannot be had, or it is known to be another encoder's.
    """
    if weights == AUTO:
        of_it = [name for name, entry in ZOO.items() if entry.kind == "encoder" and _is_of(entry, encoder)]
        if not of_it:
            which = encoder.model if encoder.name == "timm" else encoder.name
            raise UserError(f"encoder_weights=auto: none are published for {which}; null starts from scratch")
        tagged = getattr(encoder, "model", None)
        weights = tagged if tagged in of_it else of_it[0]
    if weights in ZOO and not (_is_of(ZOO[weights], encoder) and _is_as_published(encoder)):  # before a download
        raise UserError(
            f"encoder_weights={weights} is not for {encoder.describe()}; "
            "name other weights, or set it to null to start from scratch"
        )
    return find_weights(weights, offline=offline)


def _is_of(entry: ZooEntry, encoder: "EncoderConfig") -> bool:
    """Whether weights are of this family, and of timm's networks of this architecture."""
    if encoder.name == "timm":
        return entry.timm is not None and entry.timm.partition(".")[0] == encoder.model.partition(".")[0]
    return entry.encoder == encoder.name


def _is_as_published(encoder: "EncoderConfig") -> bool:
    return encoder.name == "timm" or encoder.is_as_published


def find_weights(name: str, *, offline: bool = False) -> Path:
    """`find_checkpoint` for weights of any kind."""
    if name == LATEST:
        found = sorted(runs_folder().rglob(BEST), key=lambda path: path.stat().st_mtime)
        if not found:
            raise UserError(
                f"no checkpoint yet under {runs_folder()}: train one (uv run python tools/train.py experiment=demo), "
                "or name a file or a run's folder with checkpoint="
            )
        return found[-1]
    if name == EMBEDDED:
        return EMBEDDED_FILE
    if name in ZOO:
        return published(name, offline=offline)
    path = remote_file(name, inside=BEST, offline=offline) if is_address(name) else as_typed(name)
    if path.is_dir():
        inside = run_weights(path)
        if inside is None:
            raise UserError(f"{path}: no {BEST} in this folder, and no checkpoint of a run")
        return inside
    if path.suffix in KERAS and path.is_file():
        raise UserError(f"{path} is Keras's: tools/import_weights.py {path} output=NAME.safetensors converts it")
    if not is_exported(path) and is_torch_file(path):
        raise UserError(
            f"{path} is a file of torch.save, which may run code: "
            f"tools/import_weights.py {path} output=NAME.safetensors converts one of timm's"
        )
    if path.name.endswith(ARCHIVES) and path.is_file():
        raise UserError(f"{path} is an archive: tools/import_weights.py {path} output=NAME.safetensors converts it")
    if not path.is_file():
        raise UserError(
            f"{path}: no such checkpoint; a file, a run's folder, latest, embedded, or a name that "
            "tools/import_weights.py list shows is expected"
        )
    return path


def published(name: str, *, offline: bool = False) -> Path:
    """The zoo's weights in our format, from the cache or the network.

    Raises:
        UserError: they cannot be downloaded, written or read.
    """
    entry = ZOO[name]
    path = converted(name)
    downloads = cache_folder() / "downloads" / name
    get = partial(fetch, entry.url, downloads, megabytes=entry.megabytes, offline=offline, otherwise=instead(entry))
    if _is_sound(path):
        return path
    if entry.url.endswith(KERAS):
        from segapp.weights.sources.keras import check_h5py

        check_h5py(name)  # told before a long download
    if offline and not put_by_hand(name).exists():
        get()  # says so; a cache that is read-only is not what is wrong
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(path.with_suffix(".lock"), f"preparing {name}"):
            if not _is_sound(path):
                from segapp.weights.sources.convert import convert, write_converted

                fetched = get()
                log.info("converting %s", fetched.path)
                with scratch_folder(path.with_suffix(".unpacking")) as scratch:
                    write_converted(
                        scratch / path.name, *convert(fetched.path, metadata_of(entry), scratch, fetched.sha256)
                    )
                    (scratch / path.name).replace(path)
                fetched.accept()
                fetched.discard()
                if not fetched.downloaded:
                    log.info("%s is not needed any more", fetched.path)
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); SEGAPP_CACHE=DIR names another cache folder"
        ) from None
    return path


def converted(name: str) -> Path:
    """Where weights of the zoo are kept in our format."""
    return cache_folder() / f"weights-{CONVERTER}" / f"{name}.safetensors"


def put_by_hand(name: str) -> Path:
    """Where the published file of weights of the zoo lies, if it was downloaded or put there."""
    return cache_folder() / "downloads" / name / ZOO[name].url.rpartition("/")[2]


def _is_sound(path: Path) -> bool:
    """Whether a file that was converted earlier is there, and not cut off."""
    if not path.is_file():
        return False
    try:
        outline_of(path)
    except UserError as error:
        log.warning("%s; it is made anew", error)
        return False
    return True


def metadata_of(entry: ZooEntry) -> "WeightsMetadata":
    from segapp.weights.sources.common import WeightsMetadata

    return WeightsMetadata(
        address=entry.url,
        licence=entry.licence,
        trained_on=entry.trained_on,
        classes=None,
        output_stride=entry.output_stride,
        canvas=entry.canvas,
        timm=entry.timm,
    )


def instead(entry: ZooEntry) -> str:
    """How to go on without the file."""
    if entry.kind == "network":
        return "Or name weights of your own: checkpoint=latest, a run or a file"
    return "Or start from scratch: encoder_weights=null"
