"""Draws the data that docs/is-my-data-right.md shows, and writes the page with what check says of them.

uv run python docs/data_kinds.py
"""

import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import yaml
from PIL import Image, ImageDraw, ImageFont
from pydantic import TypeAdapter

from segapp.base.classes import voc_palette
from segapp.base.images import read_image
from segapp.base.paths import CONF
from segapp.data.checks.audit import audit
from segapp.data.checks.finding import Finding
from segapp.data.config import DataConfig
from segapp.data.pairs import Unpaired

Array = npt.NDArray[np.uint8]
Shown = list[tuple[str, Array]]
"""Captions and pictures, side by side."""

PAGE = Path(__file__).with_name("is-my-data-right.md")
PICTURES = PAGE.with_suffix("")
HEIGHT, WIDTH, ENLARGED = 60, 80, 3
RED, BLUE = (220, 40, 40), (40, 80, 220)


def labels(turn: int = 0) -> Array:
    """A disc of class 1 and a box of class 2 on background, elsewhere in each image."""
    mask = Image.new("L", (WIDTH, HEIGHT))
    drawing = ImageDraw.Draw(mask)
    drawing.ellipse((8 + turn, 10, 36 + turn, 38), fill=1)
    drawing.rectangle((46 - turn, 22 + turn, 70 - turn, 50), fill=2)
    return np.array(mask)


def photo(mask: Array, seed: int) -> Array:
    """A picture in which the two classes can be seen."""
    rng = np.random.default_rng(seed)
    colours = np.array([[150, 170, 140], [190, 120, 60], [80, 90, 150]])[np.minimum(mask, 2)]
    return (colours + rng.normal(0, 14, (*mask.shape, 1))).clip(0, 255).astype(np.uint8)


def coloured(mask: Array) -> Array:
    return voc_palette()[mask]


@dataclass(frozen=True)
class Case:
    """A kind of mistake.

    make: writes a data set that has it into a folder, and gives what is to be seen.
    kind: of the finding that is told. data: the config group's choice; keys: others.
    """

    title: str
    text: str
    make: Callable[[Path], Shown]
    kind: str
    data: str = "folder"
    keys: Callable[[], dict[str, Any]] = dict


def folder(root: Path, classes: str = "[background, cat, dog]", number: int = 6) -> None:
    """Images and sound masks."""
    for name in ("images", "masks"):
        (root / name).mkdir()
    (root / "classes.yaml").write_text(classes)
    for index in range(number):
        Image.fromarray(photo(labels(index), index)).save(root / "images" / f"{index}.png")
        Image.fromarray(labels(index)).save(root / "masks" / f"{index}.png")


def each_mask(root: Path, change: Callable[[Array], Array], number: int = 6) -> Array:
    """Changes every mask; gives the first one."""
    for index in range(number):
        Image.fromarray(change(labels(index))).save(root / "masks" / f"{index}.png")
    return change(labels())


def coco(
    root: Path, split: str, names: Sequence[str], change: Callable[[dict[str, Any]], None] = lambda each: None
) -> None:
    """Six images with a cat and a dog each, which `change` may spoil."""
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(6):
        file = f"{split}{index}.png"
        (root / "photos").mkdir(exist_ok=True)
        Image.fromarray(photo(labels(index), index + 10 * len(split))).save(root / "photos" / file)
        images.append({"id": index, "file_name": file, "height": HEIGHT, "width": WIDTH})
        for value, name in ((1, "cat"), (2, "dog")):
            if name not in names:
                name = names[1]
            outlines, _ = cv2.findContours(
                (labels(index) == value).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
            )
            entry = {
                "id": len(annotations), "image_id": index, "category_id": names.index(name) + 1, "iscrowd": 0,
                "segmentation": [(outlines[0] + 0.5).ravel().tolist()],
            }  # fmt: skip
            change(entry)
            annotations.append(entry)
    categories = [{"id": index, "name": name} for index, name in enumerate(names, 1)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    (root / f"{split}.json").write_text(json.dumps(document))


def coco_keys() -> dict[str, Any]:
    return {"title": "mine"} | {
        split: {"images": "photos", "annotations": f"{split}.json"} for split in ("train", "val")
    }


def other_classes(root: Path) -> Shown:
    coco(root, "train", ("cat", "dog"))
    coco(root, "val", ("cat", "cow"))
    return [("train: cat, dog", coloured(labels())), ("val: cat, cow", coloured(labels()))]


def one_class(root: Path) -> Shown:
    folder(root, "[background, cat]")
    mask = each_mask(root, lambda mask: ((mask == 1) * 255).astype(np.uint8))
    return [("image", photo(labels(), 0)), ("mask: 0 and 255", coloured(mask))]


def crowds(root: Path) -> Shown:
    def spoil(entry: dict[str, Any]) -> None:
        entry["iscrowd"] = int(entry["category_id"] == 2)

    for split in ("train", "val"):
        coco(root, split, ("cat", "dog"), spoil)
    drawn = np.where(labels() == 2, 255, labels()).astype(np.uint8)
    return [("image", photo(labels(), 0)), ("what is learned: the dog is void", coloured(drawn))]


def normalised(root: Path) -> Shown:
    def spoil(entry: dict[str, Any]) -> None:
        corners = np.array(entry["segmentation"][0]).reshape(-1, 2) / (WIDTH, HEIGHT)
        entry["segmentation"] = [corners.ravel().tolist()]

    for split in ("train", "val"):
        coco(root, split, ("cat", "dog"), spoil)
    return [("image", photo(labels(), 0)), ("its mask", coloured(np.zeros_like(labels())))]


def palettes(root: Path) -> Shown:
    folder(root)
    shown: Shown = []
    for index in range(6):
        exchanged = index % 2
        mask = Image.fromarray(np.array([0, 2, 1], np.uint8)[labels(index)] if exchanged else labels(index))
        mask.putpalette([0, 0, 0, *((*BLUE, *RED) if exchanged else (*RED, *BLUE))])
        mask.save(root / "masks" / f"{index}.png")
        if index < 2:
            shown.append((f"mask {index}: 1 is {'blue' if exchanged else 'red'}", np.asarray(mask.convert("RGB"))))
    return shown


def jpeg(mask: Array) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "jpeg", quality=75)
    return buffer.getvalue()


VOC_LIKE = np.array([0, 8, 15], np.uint8)
TWENTY_ONE = str([f"class {index}" for index in range(21)])


def lossy(root: Path) -> Shown:
    folder(root, TWENTY_ONE)
    for index in range(6):
        (root / "masks" / f"{index}.png").unlink()
        (root / "masks" / f"{index}.jpg").write_bytes(jpeg(VOC_LIKE[labels(index)]))
    after = np.asarray(Image.open(io.BytesIO(jpeg(VOC_LIKE[labels()]))))
    return [("as drawn", coloured(VOC_LIKE[labels()])), ("as a JPEG", coloured(after))]


def ringing(root: Path) -> Shown:
    folder(root, TWENTY_ONE)
    after = each_mask(root, lambda mask: np.asarray(Image.open(io.BytesIO(jpeg(VOC_LIKE[mask])))).clip(0, 20))
    return [("as drawn", coloured(VOC_LIKE[labels()])), ("after a JPEG", coloured(after))]


def blurred(root: Path) -> Shown:
    folder(root, TWENTY_ONE)

    def smooth(mask: Array) -> Array:
        small = cv2.resize(VOC_LIKE[mask], None, fx=0.4, fy=0.4, interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(small, (WIDTH, HEIGHT), interpolation=cv2.INTER_LINEAR), np.uint8)

    after = each_mask(root, smooth)
    return [("as drawn", coloured(VOC_LIKE[labels()])), ("resized smoothly", coloured(after))]


def off_by_one(root: Path) -> Shown:
    folder(root)
    after = each_mask(root, lambda mask: mask + np.uint8(1))
    return [("0, 1, 2", coloured(labels())), ("1, 2, 3", coloured(after))]


def dim(root: Path) -> Shown:
    folder(root)
    for index in range(6):
        grey = photo(labels(index), index)[:, :, 0]
        Image.fromarray(grey.astype(np.uint16)).save(root / "images" / f"{index}.png")
    grey = photo(labels(), 0)[:, :, :1].repeat(3, 2)
    return [("what was meant", grey), ("what a network sees", read_image(root / "images" / "0.png"))]


def turned(root: Path) -> Shown:
    folder(root)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(photo(labels(), 0)).save(root / "images" / "0.png", exif=exif)
    upright = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    upright[:, :45] = cv2.resize(read_image(root / "images" / "0.png"), (45, HEIGHT))
    return [("as people see the image", upright), ("its mask", coloured(labels()))]


def unread(root: Path) -> Shown:
    folder(root)
    for name in ("7.heic", "8.heic", "9.dng"):
        (root / "images" / name).write_bytes(b"x")
    return []


def shared(root: Path) -> Shown:
    folder(root, number=8)
    (root / "val.txt").write_text("6\n7\n")
    Image.open(root / "images" / "0.png").save(root / "images" / "7.png")
    Image.open(root / "masks" / "0.png").save(root / "masks" / "7.png")
    return [("0.png, which trains", photo(labels(), 0)), ("7.png, which validates", photo(labels(), 0))]


CASES = {
    "class-lists": Case(
        "Train and val name other classes",
        "Each JSON has its own list of categories. The same names in another order are matched by name; a name that "
        "only one list has is refused, in training, `check` and `eval` alike, for an index would mean two things.",
        other_classes, "class_lists", "coco", coco_keys,
    ),
    "one-class": Case(
        "There is nothing to learn",
        "Masks of 0 and 255 with a list of two names: 255 means *ignored*, so nothing but background is left.",
        one_class, "one_class",
    ),
    "crowds": Case(
        "Annotations become void",
        "COCO's `iscrowd: 1` marks a group that is outlined roughly: it is neither learned nor scored.",
        crowds, "annotations_crowd", "coco", coco_keys,
    ),
    "normalised": Case(
        "Annotations draw nothing",
        "Polygons in shares of the image's sides, as some exporters write them, enclose one pixel or none.",
        normalised, "annotations_normalised", "coco", coco_keys,
    ),
    "palettes": Case(
        "Palettes disagree",
        "Two masks that look alike: a program has numbered the colours of each file anew, and 1 is the disc in the "
        "one, the box in the other.",
        palettes, "two_colours",
    ),
    "lossy": Case(
        "Masks are JPEGs",
        "A JPEG changes values, most along the edges. Where the wrong ones are classes, nothing else gives them away.",
        lossy, "lossy",
    ),
    "ringing": Case(
        "Masks were JPEGs once",
        "The same, saved as PNG afterwards.",
        ringing, "mixed_edges",
    ),
    "blurred": Case(
        "Masks were resized smoothly",
        "Between two labels lie others: thin lines of classes that nobody drew.",
        blurred, "mixed_edges",
    ),
    "off-by-one": Case(
        "Values are not the classes'",
        "`check` and training name the likely cause: counted from 1, spread out, a binary mask, colours turned grey.",
        off_by_one, "values_outside",
    ),
    "dim": Case(
        "Images of 16 bits are black",
        "An 8-bit picture saved with 16 bits: by the usual white level of 65535 it is black. `white_level=255` says "
        "so in training, and a checkpoint keeps it.",
        dim, "dim",
    ),
    "turned": Case(
        "Images are turned, their masks are not",
        "A camera stores what it sees and says how to turn it; the mask was drawn on the picture as it is stored.",
        turned, "masks_not_turned",
    ),
    "unread": Case(
        "Files are left out",
        "What Pillow reads is read; of other endings `check`, training and `predict` tell the number.",
        unread, "unread",
    ),
    "shared": Case(
        "Train and val share images",
        "A figure on what was trained on is none. Files of other names are found by their pixels.",
        shared, "copied", keys=lambda: {"val": "val.txt"},
    ),
}  # fmt: skip
"""By the name of their picture."""


def finding(case: Case, root: Path) -> tuple[Finding, Shown]:
    """What check finds of the case's kind, and what is to be seen."""
    shown = case.make(root)
    values = yaml.safe_load((CONF / "data" / f"{case.data}.yaml").read_text())
    config: Any = TypeAdapter(DataConfig).validate_python(values | {"root": root} | case.keys())
    unpaired: list[Unpaired] = []
    sets = config.dataset("train", unpaired.extend), config.dataset("val", unpaired.extend)
    return next(each for each in audit(*sets, unpaired).findings if each.kind == case.kind), shown


def words(found: Finding) -> str:
    """What check prints of it, but for the files."""
    return f"{found.severity:8} {found.title}\n{'':8} {found.advice}"


def strip(shown: Shown) -> Image.Image:
    """The pictures, enlarged, side by side over their captions."""
    font, gap, line = ImageFont.load_default(13), 12, 20
    width, height = WIDTH * ENLARGED, HEIGHT * ENLARGED
    canvas = Image.new("RGB", ((width + gap) * len(shown) - gap, height + line), "white")
    drawing = ImageDraw.Draw(canvas)
    for at, (caption, pixels) in enumerate(shown):
        enlarged = Image.fromarray(pixels).resize((pixels.shape[1] * ENLARGED, pixels.shape[0] * ENLARGED), 0)
        canvas.paste(enlarged, (at * (width + gap), 0))
        drawing.text((at * (width + gap), height + 2), caption, "black", font)
    return canvas


HEAD = """\
# Is my data right?

<!-- Written by docs/data_kinds.py, which draws the pictures and asks check. -->

```
uv run segapp prepare_data check data=folder data.root=/path/to/mine
```

looks at every image and every mask and says whether they are fit to train on, on a page with pictures; `train` looks
at the masks, too, and stops at the errors. Below is what people meet with, on data that were spoilt for this page,
each with what `check` says. [Data](../data/README.md) tells how data are laid out, and what of CVAT, Roboflow and
labelme is read.
"""


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    parts = [HEAD]
    for name, case in CASES.items():
        with TemporaryDirectory() as root:
            os.environ["SEGAPP_CACHE"] = f"{root}/cache"
            found, shown = finding(case, Path(root))
        parts.append(f"## {case.title}\n\n{case.text}\n")
        if shown:
            strip(shown).quantize(64).save(PICTURES / f"{name}.png", optimize=True)
            captions = ", ".join(caption for caption, _ in shown)
            parts.append(f"![{captions}]({PICTURES.name}/{name}.png)\n")
        parts.append(f"```text\n{words(found)}\n```\n")
    PAGE.write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
