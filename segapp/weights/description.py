"""What a file of weights or an exported network says of itself: read without PyTorch, whose import takes seconds."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field
from safetensors import SafetensorError, safe_open

from segapp.base.classes import background_of
from segapp.base.config import Config
from segapp.base.errors import UserError, plain
from segapp.base.images import WHITE, JpegDecoder, WhiteLevel
from segapp.base.normalization import INCEPTION, Normalization
from segapp.models.outline import NetworkOutline

METADATA = "segapp"
"""The key of the description in a file's metadata."""


class Source(Config):
    """Where weights, or those that training began with, were published.

    `sha256`: of the file, or of a checkpoint's files one after another.
    """

    address: str
    sha256: str
    licence: str


class Description(Config):
    """What stands beside a network's weights, under the key "segapp", as JSON; an exported network has the same.

    Attributes:
        network: of it what is to be known to run it; in `CheckpointInfo`, all that rebuilds it.
        classes: names by index; none where the file has no such layer, as one to train from may.
        background: the class that pictures leave uncoloured.
        normalization: of the images it is given.
        canvas: side in pixels on which it was validated; None: whole images as they are.
        center: of a classifier, the share of either side, of which it was shown the middle.
        trained_on: splits, oldest first.
        jpeg_decoder, white_level: of the images that it was trained on; see `Decoding`.
        iteration: None where nobody knows.
        scores: by metric, in [0, 1], of the weights as they are.
        source: None where training began from scratch, or nobody knows.
    """

    format: Literal["segapp-2"] = "segapp-2"
    network: NetworkOutline
    classes: tuple[str, ...]
    background: Annotated[int, Field(ge=0, le=254)] | None = None
    normalization: Normalization
    canvas: Annotated[int, Field(gt=0, le=4097)] | None = None
    center: Annotated[float, Field(gt=0, le=1)] | None = None
    trained_on: tuple[str, ...]
    jpeg_decoder: JpegDecoder = "accurate"
    white_level: WhiteLevel = WHITE
    iteration: int | None = None
    scores: dict[str, float] = Field(default_factory=dict)
    source: Source | None = None

    def as_metadata(self) -> dict[str, str]:
        return {METADATA: self.model_dump_json()}

    def identity(self) -> str:
        """One text for one network, whether all of its config or an outline was read."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True)

    def describe(self) -> str:
        """What one wants to know of a checkpoint, in a line."""
        kind = "" if self.is_segmentation else "encoder " if self.iteration is None else "classifier "
        what = f"{kind}{self.network.encoder.name}"
        iteration = "" if self.iteration is None else f", iteration {self.iteration}"
        scores = "".join(f", {TITLES.get(key, key)} {value:.4f} in validation" for key, value in self.scores.items())
        return plain(f"{what} trained on {', '.join(self.trained_on) or 'unknown data'}{iteration}{scores}")

    @property
    def is_segmentation(self) -> bool:
        """Else a classifier, or an encoder alone."""
        return self.network.kind == "deeplabv3plus"


D = TypeVar("D", bound=Description)

SEGAPP_1, SEGAPP_1_ENCODER = "segapp-1", "segapp-encoder-1"
TITLES = {"miou": "mIoU", "top1": "top-1", "top5": "top-5"}
"""Metrics that have a name for people."""


def upgraded(description: Any) -> Any:
    """A description of segapp-1, which knew Xceptions alone, as one of segapp-2; any other as it is.

    Raises:
        KeyError, TypeError, AttributeError: it is damaged.
    """
    kind = description["format"]
    if kind not in (SEGAPP_1, SEGAPP_1_ENCODER):
        return description
    rest = {key: value for key, value in description.items() if key not in ("format", "model", "encoder")}
    rest["trained_on"] = rest.pop("splits_seen")
    encoder = dict(description["encoder"] if kind == SEGAPP_1_ENCODER else description["model"]["encoder"])
    encoder.pop("weights", None)
    network = {"kind": "classifier", "encoder": encoder}
    if kind == SEGAPP_1:
        of_training = ("name", "bn_momentum", "activation_checkpointing")
        network = {key: value for key, value in description["model"].items() if key not in of_training}
        network |= {"kind": "deeplabv3plus", "encoder": encoder}
        miou = rest.pop("miou")
        rest |= {"scores": {} if miou is None else {"miou": miou}, "background": background_of(rest["classes"])}
    return {"network": network, "normalization": INCEPTION.model_dump()} | rest


def described(metadata: Mapping[str, str], path: Path, kind: type[D]) -> D:
    """The description among a file's metadata, with more or less of the network in it.

    Raises:
        UserError: there is none, or a damaged one.
    """
    if METADATA not in metadata:
        remedy = "; tools/import_weights.py reads others" if path.suffix == ".safetensors" else ""
        raise UserError(f"{path}: a {path.suffix.removeprefix('.')} file, but not written by segapp{remedy}")
    try:
        info = kind.model_validate(upgraded(json.loads(metadata[METADATA])))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(f"{path}: its description is damaged, or of another version of segapp") from None
    if info.is_segmentation and info.classes and not 2 <= len(info.classes) <= 255:
        raise UserError(f"{path}: names {len(info.classes)} classes; 2 to 255 are possible")
    return info


def metadata_of(path: Path) -> dict[str, str]:
    """Of a file of ours; nothing where it has none.

    Raises:
        UserError: no such file, or no file of tensors.
    """
    try:
        with safe_open(path, "np") as file:
            return file.metadata() or {}
    except FileNotFoundError:
        raise UserError(f"{path}: no such checkpoint") from None
    except (SafetensorError, OSError, struct.error) as error:
        raise UserError(f"{path}: no checkpoint, or a damaged one ({error})") from None


def outline_of(path: Path) -> Description:
    """Of a checkpoint.

    Raises:
        UserError: no checkpoint of this program.
    """
    return described(metadata_of(path), path, Description)
