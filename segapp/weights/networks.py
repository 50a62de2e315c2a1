"""The encoders that are in the papers, with what they cost: plain data, which a test counts anew."""

from dataclasses import dataclass

from segapp.weights.zoo import ZOO, card

CLASSES = 1000
SIDE = 513
"""In pixels, of the image by which encoders are counted."""


@dataclass(frozen=True)
class Network:
    """One encoder as it is published.

    encoder: its config, but for what has the published values anyway.
    paper: where it is described.
    side: in pixels, of the images that its classifier is given.
    published: what its authors give: parameters, multiply-adds, ImageNet top-1; "-" where they do not, or elsewhere.
    parameters: counted, with one fully connected layer for 1000 classes behind the mean of its last feature. Some have
        another head of their own, which `note` tells of.
    million: multiply-adds of that at `side`. billions: of the encoder alone at 513 px, at output strides 16 and 8.
    low_level: what the decoder is given, of stride 4, and its channels.
    """

    encoder: dict[str, str]
    paper: str
    side: int
    published: tuple[str, str, str]
    parameters: int
    million: float
    billions: tuple[float, float]
    low_level: tuple[str, int]
    note: str = ""

    @property
    def weights(self) -> list[str]:
        """Names in the zoo of encoders alone."""
        name, model = self.encoder["name"], self.encoder.get("model", "")
        return [
            key
            for key, entry in ZOO.items()
            if entry.kind == "encoder" and entry.encoder == name and (entry.timm or "").partition(".")[0] == model
        ]

    @property
    def use(self) -> str:
        """What chooses it on a command line."""
        name, *others = self.encoder.items()
        return " ".join([f"model/encoder={name[1]}", *(f"model.encoder.{key}={value}" for key, value in others)])


def _timm(model: str) -> dict[str, str]:
    return {"name": "timm", "model": model}


ALIGNED = "arXiv:1802.02611, Section 3.2"
OF_XCEPTION = "the second separable conv of the second unit with a stride, before its ReLU"
OF_71 = "the second separable conv of the third unit, before its ReLU"
NETWORKS = {
    "xception41": Network(
        {"name": "xception41"},
        ALIGNED,
        299,
        ("-", "-", "-"),
        26_969_560,
        9204.1,
        (34.55, 109.20),
        (OF_XCEPTION, 256),
    ),
    "xception65": Network(
        {"name": "xception65"},
        ALIGNED,
        299,
        ("-", "-", "79.81"),
        39_916_312,
        13852.7,
        (48.57, 163.61),
        (OF_XCEPTION, 256),
    ),
    "xception71": Network(
        {"name": "xception71"},
        "research/deeplab/core/xception.py",
        299,
        ("-", "-", "-"),
        42_338_736,
        17946.6,
        (60.60, 176.72),
        (OF_71, 256),
    ),
    "xception": Network(
        {"name": "xception"},
        "arXiv:1610.02357",
        299,
        ("22,855,952", "-", "79.0"),
        22_855_952,
        8357.4,
        (29.65, 91.86),
        ("block 2, before the next one's ReLU", 128),
    ),
    "inception_v3": Network(
        {"name": "inception_v3"},
        "arXiv:1512.00567",
        299,
        ("-", "4.8 G", "78.8"),
        23_834_568,
        5713.2,
        (30.59, 95.68),
        ("Conv2d_4a_3x3", 192),
    ),
    "googlenet": Network(
        {"name": "googlenet"},
        "arXiv:1409.4842",
        224,
        ("-", "-", "-"),
        6_998_552,
        1582.7,
        (10.62, 27.21),
        ("the 3x3 conv before the second pool", 192),
    ),
    "googlenet_torchvision": Network(
        {"name": "googlenet_torchvision"},
        "torchvision/models/googlenet.py",
        224,
        ("-", "-", "69.8"),
        6_624_904,
        1498.4,
        (10.03, 25.60),
        ("the 3x3 conv before the second pool", 192),
        "padding=valid is torchvision's to the last place",
    ),
    "alexnet": Network(
        {"name": "alexnet"},
        "NeurIPS 2012",
        227,
        ("-", "-", "-"),
        2_591_080,
        819.7,
        (4.05, 10.29),
        ("conv1", 96),
        "its authors' classifier has three fully connected layers: 60,965,224 parameters",
    ),
    "alexnet_torchvision": Network(
        {"name": "alexnet_torchvision"},
        "arXiv:1404.5997",
        224,
        ("-", "-", "56.5"),
        2_726_696,
        733.0,
        (4.01, 10.72),
        ("conv1", 64),
        "torchvision's classifier has three fully connected layers: 61,100,840 parameters",
    ),
    "mobilenet_v2": Network(
        {"name": "mobilenet_v2"},
        "arXiv:1801.04381",
        224,
        ("3.4 M", "300 M", "72.0"),
        2_132_712,
        279.7,
        (2.50, 7.90),
        ("the depthwise conv of the fourth unit", 144),
        "its authors' classifier has a 1x1 conv of 1280 channels before the mean: 3,504,872 parameters",
    ),
    "mobilenet_v2_dm05": Network(
        {"name": "mobilenet_v2_dm05"},
        "research/deeplab/g3doc/model_zoo.md",
        224,
        ("-", "-", "-"),
        638_088,
        77.9,
        (0.67, 2.07),
        ("the depthwise conv of the fourth unit", 72),
    ),
    "shufflenet": Network(
        {"name": "shufflenet"},
        "arXiv:1707.01083",
        224,
        ("-", "137 M", "67.4"),
        1_865_728,
        137.5,
        (1.16, 3.80),
        ("the stem's max pool", 24),
    ),
    "channelnet_v1": Network(
        {"name": "channelnet_v1"},
        "arXiv:1809.01330",
        224,
        ("3.7 M", "407 M", "70.5"),
        3_703_432,
        468.5,
        (3.85, 11.82),
        ("the fourth module", 128),
        "its layout gives more multiply-adds than its authors say; MobileNet's are theirs by the same count",
    ),
    "channelnet_v2": Network(
        {"name": "channelnet_v2"},
        "arXiv:1809.01330",
        224,
        ("-", "-", "-"),
        2_654_920,
        420.3,
        (2.78, 7.67),
        ("the fourth module", 128),
    ),
    "channelnet_v3": Network(
        {"name": "channelnet_v3"},
        "arXiv:1809.01330",
        224,
        ("-", "-", "-"),
        1_631_145,
        420.5,
        (2.78, 7.67),
        ("the fourth module", 128),
        "a convolutional classification layer of 1,225 weights stands in the place of the fully connected one",
    ),
    "resnet50": Network(
        _timm("resnet50"),
        "arXiv:1512.03385",
        224,
        ("-", "-", "-"),
        25_557_032,
        4089.2,
        (34.09, 102.73),
        ("layer1", 256),
    ),
    "resnet101": Network(
        _timm("resnet101"),
        "arXiv:1512.03385",
        224,
        ("-", "-", "-"),
        44_549_160,
        7801.4,
        (54.71, 182.75),
        ("layer1", 256),
    ),
    "resnext50_32x4d": Network(
        _timm("resnext50_32x4d"),
        "arXiv:1611.05431",
        224,
        ("-", "-", "-"),
        25_028_904,
        4230.5,
        (34.07, 100.71),
        ("layer1", 256),
    ),
    "seresnet50": Network(
        _timm("seresnet50"),
        "arXiv:1709.01507",
        224,
        ("-", "-", "-"),
        28_088_024,
        4091.7,
        (34.09, 102.73),
        ("layer1", 256),
    ),
    "seresnext50_32x4d": Network(
        _timm("seresnext50_32x4d"),
        "arXiv:1709.01507",
        224,
        ("-", "-", "-"),
        27_559_896,
        4233.0,
        (34.07, 100.71),
        ("layer1", 256),
    ),
    "vgg16": Network(
        _timm("vgg16"),
        "arXiv:1409.1556",
        224,
        ("-", "-", "-"),
        15_227_688,
        15347.1,
        (81.93, 104.13),
        ("relu3_3, before the third pool", 256),
        "its authors' classifier has three fully connected layers: 138,357,544 parameters",
    ),
    "densenet121": Network(
        _timm("densenet121"),
        "arXiv:1608.06993",
        224,
        ("-", "-", "-"),
        7_978_856,
        2834.2,
        (17.02, 34.14),
        ("denseblock1", 256),
    ),
}
"""By name."""

COLUMNS = ("network", "parameters", "classifier, M", "at", "encoder, G, /16", "/8", "published", "top-1", "low level")


def rows() -> list[tuple[str, ...]]:
    """A line of `COLUMNS` for each network; multiply-adds are in millions and billions."""
    return [
        (
            name,
            f"{each.parameters:,}",
            f"{each.million:,.1f}",
            str(each.side),
            f"{each.billions[0]:.2f}",
            f"{each.billions[1]:.2f}",
            " / ".join(figure for figure in each.published[:2] if figure != "-") or "-",
            each.published[2],
            str(each.low_level[1]),
        )
        for name, each in NETWORKS.items()
    ]


def shown(name: str) -> str:
    """What is known of a network or of weights, for people.

    Raises:
        KeyError: there is neither of this name.
    """
    if name not in NETWORKS:
        return card(name)
    each = NETWORKS[name]
    parameters, million, top_1 = each.published
    strided = ", ".join(f"{value:.2f} G at output stride {n}" for value, n in zip(each.billions, (16, 8), strict=True))
    lines = [
        name,
        f"    use         {each.use}",
        f"    paper       {each.paper}",
        f"    parameters  {each.parameters:,} counted, {parameters} published",
        f"    classifier  {each.million:,.1f} M multiply-adds counted at {each.side} px, {million} published",
        f"    encoder     multiply-adds at {SIDE} px: {strided}",
        f"    top-1       {top_1} published",
        f"    low level   {each.low_level[0]}, {each.low_level[1]} channels",
    ]
    if each.note:
        lines.append(f"    note        {each.note}")
    cards = [card(weights).replace("\n", "\n    ") for weights in each.weights]
    return "\n".join(
        [*lines, f"    weights     {', '.join(each.weights) or 'none'}", *(f"\n    {text}" for text in cards)]
    )
