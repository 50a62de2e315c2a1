"""Small sound files of every kind that users bring, how each is damaged, and who reads it."""

import base64
import io
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import save

from segapp.base.classes import voc_palette
from segapp.base.compose import compose_config
from segapp.models.classifier import ClassifierConfig
from segapp.models.deeplabv3plus import DeepLabV3PlusConfig
from segapp.models.encoders.aligned_xception import AlignedXceptionConfig
from segapp.models.encoders.interface import INCEPTION
from segapp.weights.checkpoint import CheckpointInfo, shapes_of
from tests.bundles import TYPES, Array, entry, header, masked, table
from tests.data.formats.coco.samples import content, region
from tests.fuzz import mutations, readers
from tests.networks import randomise, small
from tests.tensorflow.weights import mobilenet_variables, values
from tests.weights.tflite_files import graph_of

SMALLEST = ["model=deeplabv3_mobilenet", "model/encoder=mobilenet_v2_dm05"]
NARROW = AlignedXceptionConfig(name="xception41", width=0.03)


@dataclass(frozen=True)
class Kind:
    """`share`: how many of all cases, against other kinds. `ways`: of damaging it. `beside`: what it comes with."""

    name: str
    share: int
    file: str
    sound: bytes
    read: Callable[[Path], None]
    ways: Sequence[mutations.Mutation] = (mutations.bytes_damaged,)
    beside: dict[str, bytes] = field(default_factory=dict)

    def case(self, number: int) -> bytes:
        """The same at every call, and the sound file as number 0."""
        chance = random.Random(f"{self.name} {number}")
        return chance.choice(self.ways)(chance, self.sound) if number else self.sound


def kinds() -> list[Kind]:
    return [*pictures(), *texts(), *checkpoints(), *tensorflow(), *tflite()]


def pictures() -> list[Kind]:
    labels = np.arange(24 * 31, dtype=np.uint8).reshape(24, 31) % 4
    rgb = np.random.default_rng(0).integers(0, 256, (24, 31, 3), np.uint8)
    colour, grey = Image.fromarray(rgb), Image.fromarray(labels)
    palette = grey.copy()
    palette.putpalette(voc_palette().tobytes())
    deep = Image.fromarray(labels.astype(np.uint16) * 300)
    turned = Image.Exif()
    turned[0x0112] = 6
    bytes_, png = mutations.bytes_damaged, mutations.png_damaged
    made: list[tuple[str, Image.Image, str, dict[str, Any]]] = [
        ("png rgb", colour, "PNG", {"exif": turned}),
        ("png palette", palette, "PNG", {}),
        ("png grey", grey, "PNG", {}),
        ("png 16 bits", deep, "PNG", {}),
        ("png 2 bits", palette, "PNG", {"bits": 2}),
        ("png alpha", colour.convert("RGBA"), "PNG", {}),
        ("jpeg", colour, "JPEG", {"exif": turned}),
        ("jpeg plain", colour, "JPEG", {}),
        ("jpeg progressive", grey, "JPEG", {"progressive": True}),
        ("jpeg cmyk", colour.convert("CMYK"), "JPEG", {}),
        ("jpeg 2000", colour, "JPEG2000", {}),
        ("tiff", colour, "TIFF", {"exif": turned}),
        ("tiff lzw", palette, "TIFF", {"compression": "tiff_lzw"}),
        ("tiff 16 bits", deep, "TIFF", {}),
        ("tiff jpeg", colour, "TIFF", {"compression": "jpeg"}),
        ("tiff 32 bits", grey.convert("I"), "TIFF", {}),
        ("gif", palette, "GIF", {"save_all": True, "append_images": [grey]}),
        ("bmp", colour, "BMP", {}),
        ("bmp palette", palette, "BMP", {}),
        ("webp", colour, "WEBP", {"exif": turned.tobytes()}),
        ("webp lossless", colour.convert("RGBA"), "WEBP", {"lossless": True}),
        ("ppm", colour, "PPM", {}),
        ("pgm 16 bits", deep, "PPM", {}),
        ("tga", palette, "TGA", {"compression": "tga_rle"}),
        ("pcx", palette, "PCX", {}),
        ("sgi", colour, "SGI", {}),
    ]
    return [
        Kind(name, 3, "image", _picture(image, kind, options), readers.picture, (bytes_, png)[: 1 + (kind == "PNG")])
        for name, image, kind, options in made
    ]


def _picture(image: Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def texts() -> list[Kind]:
    def dumped(dump: Callable[[Any], str], tree: Any) -> mutations.Mutation:
        return lambda chance, _: dump(mutations.tree_damaged(chance, tree)).encode(errors="replace")

    found = []
    for name, tree in {
        "classes list": ["background", "cat", "dog"],
        "classes values": {
            "values": {"sky": 1, "road": [2, 3]}, "ignore": [0, 255], "others": "sky", "background": "road",
        },
        "classes colours": {"colours": {"sky": [1, 2, 3], "road": [[4, 5, 6], [7, 8, 9]]}, "ignore": [0, 0, 0]},
    }.items():  # fmt: skip
        ways = (mutations.bytes_damaged, dumped(yaml.safe_dump, tree))
        found.append(Kind(name, 10, "classes.yaml", yaml.safe_dump(tree).encode(), readers.classes, ways))
    for name, text in {
        "labelmap.txt": "# label:color_rgb:parts:actions\nbackground:0,0,0::\ncat:250,50,83:tail:run\n",
        "_classes.csv": "Pixel Value, Class\n0, background\n3, cat\n",
        "labels.txt": "__ignore__\n_background_\ncat\n",
    }.items():
        found.append(Kind(name, 4, name, text.encode(), readers.classes))
    stencil = base64.b64encode(_picture(Image.new("1", (2, 2), 1), "PNG", {})).decode()
    square = [[1, 1], [6, 1], [6, 5.5]]
    outlines = {
        "imageHeight": 8,
        "imageWidth": 9,
        "shapes": [
            {"label": "cat", "shape_type": "polygon", "points": square},
            {"label": "__ignore__", "shape_type": "circle", "points": square[:2]},
            {"label": "cat", "shape_type": "mask", "points": square[:2], "mask": stencil},
        ],
    }
    labelme = (mutations.bytes_damaged, dumped(json.dumps, outlines), dumped(json.dumps, outlines))
    found.append(Kind("labelme", 10, "x.json", json.dumps(outlines).encode(), readers.labelme, labelme))
    names = "a\nb.jpg\nimages/c.jpg masks/c.png\n/images/d e.jpg /masks/d e.png\n\n"
    found.append(Kind("list", 10, "list.txt", names.encode(), readers.image_list))
    runs = {"size": [6, 8], "counts": [1, 3, 44]}
    packed = {"size": [6, 8], "counts": "13\\1"}  # the same, as COCO packs it
    tree = content(region(), region(2, runs, iscrowd=1), region(2, packed, image=8), images=2)
    as_json = dumped(json.dumps, tree)
    coco = (mutations.bytes_damaged, as_json, as_json)
    return [*found, Kind("coco", 30, "regions.json", json.dumps(tree).encode(), readers.coco, coco)]


def checkpoints() -> list[Kind]:
    """Ours and timm's."""
    torch.manual_seed(0)
    network = small(encoder=NARROW.model_dump())
    model = network.build(3)
    randomise(model)
    common: dict[str, Any] = {"normalization": INCEPTION, "trained_on": ("voc2012 train",)}
    info = CheckpointInfo(network=network, classes=("background", "a", "b"), canvas=65, scores={"miou": 0.5}, **common)
    ours = save(model.state_dict(), info.as_metadata())
    classifier = CheckpointInfo(network=ClassifierConfig(encoder=NARROW), classes=("a", "b", "c"), **common)
    state = {name: torch.zeros(each.shape, dtype=each.dtype) for name, each in shapes_of(classifier).items()}
    pickled = io.BytesIO()
    torch.save(state, pickled)
    of_safetensors = (mutations.bytes_damaged, mutations.safetensors_damaged, mutations.safetensors_damaged)
    of_pickles = (mutations.bytes_damaged, mutations.zip_damaged, mutations.zip_damaged)
    encoder = save(state, classifier.as_metadata())
    return [
        Kind("ours", 15, "net.safetensors", ours, readers.ours(network, 3), of_safetensors),
        Kind("our encoder", 5, "net.safetensors", encoder, readers.converted, of_safetensors),
        Kind("timm safetensors", 10, "net.safetensors", save(state), readers.converted, of_safetensors),
        Kind("timm pth", 15, "net.pth", pickled.getvalue(), readers.converted, of_pickles),
    ]


def tensorflow() -> list[Kind]:
    """Networks, and a checkpoint of all types, whose index or data are damaged."""
    network = mobilenet_variables("mobilenet_v2_dm05", 2)
    made: dict[str, dict[str, Array]] = {
        "network": {name: values(name, shape).astype(np.float16) for name, shape in network.items()},
        "types": {f"x/{kind}": np.arange(6).astype(str(kind)).reshape(2, 3) for kind in TYPES},
    }
    made["encoder"] = {name: array for name, array in made["network"].items() if name.startswith("MobilenetV2/")}
    found = []
    for name, arrays in made.items():
        pairs, data = [(b"", header())], b""
        for key in sorted(arrays, key=str.encode):
            packed = arrays[key].tobytes()
            value = entry(TYPES[arrays[key].dtype], arrays[key].shape, 0, len(data), len(packed), masked(packed))
            pairs.append((key.encode(), value))
            data += packed
        index, shard = "net.index", "net.data-00000-of-00001"
        read = readers.tensors if name == "types" else readers.converted
        share = 10 if name == "types" else 3
        ways = (mutations.bytes_damaged, mutations.table_damaged(pairs), mutations.table_damaged(pairs))
        found.append(Kind(f"tensorflow {name}", share, index, table(pairs), read, ways, {shard: data}))
        found.append(Kind(f"tensorflow {name}'s data", 1, shard, data, read, beside={index: table(pairs)}))
    return found


def tflite() -> list[Kind]:
    model = DeepLabV3PlusConfig.model_validate(compose_config("train", SMALLEST)["model"]).build(2)
    return [Kind("tflite", 10, "net.tflite", graph_of(model).packed(), readers.converted)]
