"""The model zoo: published weights that can be named wherever a file of weights is taken."""

from dataclasses import dataclass
from typing import Literal

GOOGLE = "https://storage.googleapis.com/download.tensorflow.org/models/"
"""As http://download.tensorflow.org/models/, the address in Google's model zoo, but encrypted."""
CORAL = "https://github.com/google-coral/test_data/raw/master/"
KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/"
TIMM = "https://huggingface.co/timm/"
TORCHVISION = "https://download.pytorch.org/models/"

MODEL_ZOO = "research/deeplab/g3doc/model_zoo.md"
TIMM_RESULTS = "timm's results-imagenet.csv"


@dataclass(frozen=True)
class ZooEntry:
    """One file of published weights.

    encoder: by its name in conf/model/encoder, with the values there.
    what: in words.
    url: its address. megabytes: about its size.
    licence: of the weights.
    trained_on: what the weights were trained on, oldest first.
    published: the figures that its authors give, not this project's. source: where.
    classes: that the network tells apart; None for an encoder alone, or where no one says.
    canvas: side in pixels on which it was evaluated; None: whole images.
    timm: which network of timm's it is, with its tag, where `encoder` is "timm".
    """

    kind: Literal["network", "encoder"]
    encoder: str
    what: str
    url: str
    megabytes: int
    licence: str
    trained_on: tuple[str, ...]
    published: str
    source: str
    classes: int | None = None
    canvas: int | None = 513
    output_stride: Literal[8, 16, 32] = 16
    timm: str | None = None


def _of_timm(name: str, megabytes: int, licence: str, top_1: str) -> ZooEntry:
    """`top_1`: a percentage, and the side in pixels at which timm measured it where that is known."""
    return ZooEntry(
        "encoder",
        "timm",
        "ImageNet, as timm publishes it",
        f"{TIMM}{name}/resolve/main/model.safetensors",
        megabytes,
        licence,
        ("imagenet",),
        f"top-1 {top_1}",
        TIMM_RESULTS,
        timm=name,
    )


ZOO = {
    "xception65_voc_coco_trainaug": ZooEntry(
        "network",
        "xception65",
        "PASCAL VOC 2012 trainaug after COCO; the default of predict and eval",
        f"{GOOGLE}deeplabv3_pascal_train_aug_2018_01_04.tar.gz",
        439,
        "Apache-2.0",
        ("imagenet", "coco", "voc2012 trainaug"),
        "mIoU 82.20 on VOC 2012 val at output stride 16; 83.58 at 8, multi-scale with flip",
        MODEL_ZOO,
        classes=21,
    ),
    "xception65_voc_coco_trainval": ZooEntry(
        "network",
        "xception65",
        "PASCAL VOC 2012 trainaug and trainval after COCO: it has seen val",
        f"{GOOGLE}deeplabv3_pascal_trainval_2018_01_04.tar.gz",
        439,
        "Apache-2.0",
        ("imagenet", "coco", "voc2012 trainaug", "voc2012 trainval"),
        "mIoU 87.80 on VOC 2012 test at output stride 8, multi-scale with flip",
        MODEL_ZOO,
        classes=21,
    ),
    "xception65_cityscapes": ZooEntry(
        "network",
        "xception65",
        "Cityscapes, fine annotations",
        f"{GOOGLE}deeplabv3_cityscapes_train_2018_02_06.tar.gz",
        439,
        "Apache-2.0",
        ("imagenet", "cityscapes train"),
        "mIoU 78.79 on Cityscapes val at output stride 16; 80.42 at 8, three scales with flip",
        MODEL_ZOO,
        classes=19,
        canvas=None,
    ),
    "xception65_ade20k": ZooEntry(
        "network",
        "xception65",
        "ADE20K, the 150 classes of the scene parsing benchmark",
        f"{GOOGLE}deeplabv3_xception_ade20k_train_2018_05_29.tar.gz",
        439,
        "Apache-2.0",
        ("imagenet", "ade20k train"),
        "mIoU 45.65, pixel accuracy 82.52 on ADE20K val at output stride 8, multi-scale with flip",
        MODEL_ZOO,
        classes=151,
    ),
    "xception65_imagenet_coco": ZooEntry(
        "network",
        "xception65",
        "COCO, to train from",
        f"{GOOGLE}xception_65_coco_pretrained_2018_10_02.tar.gz",
        292,
        "Apache-2.0",
        ("imagenet", "coco"),
        "none",
        MODEL_ZOO,
    ),
    "xception71_dpc_cityscapes_train": ZooEntry(
        "network",
        "xception71",
        "Cityscapes, fine annotations; a dense prediction cell in the ASPP's place",
        f"{GOOGLE}deeplab_cityscapes_xception71_trainfine_2018_09_08.tar.gz",
        445,
        "Apache-2.0",
        ("imagenet", "coco", "cityscapes train"),
        "mIoU 80.31 on Cityscapes val at output stride 16",
        MODEL_ZOO,
        classes=19,
        canvas=None,
    ),
    "xception71_dpc_cityscapes_trainval": ZooEntry(
        "network",
        "xception71",
        "Cityscapes, fine annotations of train and val, then coarse ones: it has seen val",
        f"{GOOGLE}deeplab_cityscapes_xception71_trainvalfine_2018_09_08.tar.gz",
        446,
        "Apache-2.0",
        ("imagenet", "coco", "cityscapes train", "cityscapes val"),
        "mIoU 82.66 on Cityscapes test at output stride 8, multi-scale with flip",
        MODEL_ZOO,
        classes=19,
        canvas=None,
    ),
    "mobilenetv2_voc_coco_trainaug": ZooEntry(
        "network",
        "mobilenet_v2",
        "PASCAL VOC 2012 trainaug after COCO, small: no atrous branches, no decoder",
        f"{GOOGLE}deeplabv3_mnv2_pascal_train_aug_2018_01_29.tar.gz",
        23,
        "Apache-2.0",
        ("imagenet", "coco", "voc2012 trainaug"),
        "mIoU 75.32 on VOC 2012 val at output stride 16; 77.33 at 8, multi-scale with flip",
        MODEL_ZOO,
        classes=21,
    ),
    "mobilenetv2_voc_coco_8bit": ZooEntry(
        "network",
        "mobilenet_v2",
        "PASCAL VOC 2012 trainaug after COCO, small, quantised in training: 2 MB, computed in floats",
        f"{CORAL}deeplabv3_mnv2_pascal_quant.tflite",
        2,
        "Apache-2.0",
        ("imagenet", "coco", "voc2012 trainaug"),
        "no figure of its authors; on a sample of 203 images of VOC 2012 val see docs/benchmarks.md",
        "github.com/google-coral/test_data",
        classes=21,
    ),
    "mobilenetv2_voc_coco_trainval": ZooEntry(
        "network",
        "mobilenet_v2",
        "PASCAL VOC 2012 trainaug and trainval after COCO, small: it has seen val",
        f"{GOOGLE}deeplabv3_mnv2_pascal_trainval_2018_01_29.tar.gz",
        23,
        "Apache-2.0",
        ("imagenet", "coco", "voc2012 trainaug", "voc2012 trainval"),
        "mIoU 80.25 on VOC 2012 test at output stride 8, multi-scale with flip",
        MODEL_ZOO,
        classes=21,
    ),
    "mobilenetv2_dm05_voc_coco_trainaug": ZooEntry(
        "network",
        "mobilenet_v2_dm05",
        "PASCAL VOC 2012 trainaug after COCO, smallest: half of the channels",
        f"{GOOGLE}deeplabv3_mnv2_dm05_pascal_trainaug_2018_10_01.tar.gz",
        8,
        "Apache-2.0",
        ("imagenet", "coco", "voc2012 trainaug"),
        "mIoU 70.19 on VOC 2012 val at output stride 16",
        MODEL_ZOO,
        classes=21,
    ),
    "mobilenetv2_dm05_voc_coco_trainval": ZooEntry(
        "network",
        "mobilenet_v2_dm05",
        "PASCAL VOC 2012 trainaug and trainval after COCO, smallest: it has seen val",
        f"{GOOGLE}deeplabv3_mnv2_dm05_pascal_trainval_2018_10_01.tar.gz",
        8,
        "Apache-2.0",
        ("imagenet", "coco", "voc2012 trainaug", "voc2012 trainval"),
        "mIoU 71.83 on VOC 2012 test at output stride 16",
        MODEL_ZOO,
        classes=21,
    ),
    "mobilenetv2_cityscapes": ZooEntry(
        "network",
        "mobilenet_v2",
        "Cityscapes, fine annotations, after COCO, small",
        f"{GOOGLE}deeplabv3_mnv2_cityscapes_train_2018_02_05.tar.gz",
        23,
        "Apache-2.0",
        ("imagenet", "coco", "cityscapes train"),
        "mIoU 70.71 on Cityscapes val at output stride 16; 73.57 at 8, three scales with flip",
        MODEL_ZOO,
        classes=19,
        canvas=None,
    ),
    "mobilenetv2_ade20k": ZooEntry(
        "network",
        "mobilenet_v2",
        "ADE20K, the 150 classes of the scene parsing benchmark, small; with a decoder",
        f"{GOOGLE}deeplabv3_mnv2_ade20k_train_2018_12_03.tar.gz",
        25,
        "Apache-2.0",
        ("imagenet", "ade20k train"),
        "mIoU 32.04, pixel accuracy 75.41 on ADE20K val at output stride 16",
        MODEL_ZOO,
        classes=151,
        canvas=257,
    ),
    "xception41_imagenet": ZooEntry(
        "encoder",
        "xception41",
        "ImageNet, Google's",
        f"{GOOGLE}xception_41_2018_05_09.tar.gz",
        288,
        "Apache-2.0",
        ("imagenet",),
        "top-1 78.55 on ImageNet at 299 px, as timm measured its port",
        TIMM_RESULTS,
    ),
    "xception65_imagenet": ZooEntry(
        "encoder",
        "xception65",
        "ImageNet, Google's",
        f"{GOOGLE}deeplabv3_xception_2018_01_04.tar.gz",
        447,
        "Apache-2.0",
        ("imagenet",),
        "top-1 79.56 on ImageNet at 299 px, as timm measured its port",
        TIMM_RESULTS,
    ),
    "xception71_imagenet": ZooEntry(
        "encoder",
        "xception71",
        "ImageNet, Google's",
        f"{GOOGLE}xception_71_2018_05_09.tar.gz",
        474,
        "Apache-2.0",
        ("imagenet",),
        "top-1 79.92 on ImageNet at 299 px, as timm measured its port",
        TIMM_RESULTS,
    ),
    "xception41.tf_in1k": ZooEntry(
        "encoder",
        "xception41",
        "ImageNet, timm's port of Google's",
        f"{TIMM}xception41.tf_in1k/resolve/main/model.safetensors",
        108,
        "Apache-2.0",
        ("imagenet",),
        "top-1 78.55 on ImageNet at 299 px",
        TIMM_RESULTS,
    ),
    "xception65.tf_in1k": ZooEntry(
        "encoder",
        "xception65",
        "ImageNet, timm's port of Google's",
        f"{TIMM}xception65.tf_in1k/resolve/main/model.safetensors",
        160,
        "Apache-2.0",
        ("imagenet",),
        "top-1 79.56 on ImageNet at 299 px",
        TIMM_RESULTS,
    ),
    "xception65.ra3_in1k": ZooEntry(
        "encoder",
        "xception65",
        "ImageNet, trained by timm; the best of the encoders",
        f"{TIMM}xception65.ra3_in1k/resolve/main/model.safetensors",
        160,
        "Apache-2.0",
        ("imagenet",),
        "top-1 83.19 on ImageNet at 299 px",
        TIMM_RESULTS,
    ),
    "xception71.tf_in1k": ZooEntry(
        "encoder",
        "xception71",
        "ImageNet, timm's port of Google's",
        f"{TIMM}xception71.tf_in1k/resolve/main/model.safetensors",
        170,
        "Apache-2.0",
        ("imagenet",),
        "top-1 79.92 on ImageNet at 299 px",
        TIMM_RESULTS,
    ),
    "legacy_xception.tf_in1k": ZooEntry(
        "encoder",
        "xception",
        "ImageNet, timm's port of Keras's",
        "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-cadene/xception-43020ad28.pth",
        92,
        "Apache-2.0",
        ("imagenet",),
        "top-1 79.06 on ImageNet at 299 px",
        TIMM_RESULTS,
    ),
    "xception_keras": ZooEntry(
        "encoder",
        "xception",
        "ImageNet, Keras's, by the paper's author; needs h5py: pip install 'segapp[keras]'",
        f"{KERAS}xception/xception_weights_tf_dim_ordering_tf_kernels.h5",
        92,
        "MIT",
        ("imagenet",),
        "top-1 79.0 on ImageNet at 299 px",
        "arXiv:1610.02357, Table 1",
    ),
    "inception_v3.tf_in1k": ZooEntry(
        "encoder",
        "inception_v3",
        "ImageNet, timm's port of Google's; trained with model.encoder.counts_padding=false",
        f"{TIMM}inception_v3.tf_in1k/resolve/main/model.safetensors",
        95,
        "Apache-2.0",
        ("imagenet",),
        "top-1 77.87 on ImageNet at 299 px",
        TIMM_RESULTS,
    ),
    "inception_v3.gluon_in1k": ZooEntry(
        "encoder",
        "inception_v3",
        "ImageNet, trained by GluonCV; of images by ImageNet's mean and deviation, which come with it",
        f"{TIMM}inception_v3.gluon_in1k/resolve/main/model.safetensors",
        95,
        "Apache-2.0",
        ("imagenet",),
        "top-1 78.81 on ImageNet at 299 px",
        TIMM_RESULTS,
    ),
    "googlenet_torchvision": ZooEntry(
        "encoder",
        "googlenet_torchvision",
        "ImageNet, torchvision's port of TensorFlow's",
        f"{TORCHVISION}googlenet-1378be20.pth",
        52,
        "BSD-3-Clause",
        ("imagenet",),
        "top-1 69.78 on ImageNet at 224 px",
        "torchvision",
    ),
    "alexnet_torchvision": ZooEntry(
        "encoder",
        "alexnet_torchvision",
        "ImageNet, trained by torchvision; its fully connected layers are left out",
        f"{TORCHVISION}alexnet-owt-7be5be79.pth",
        244,
        "BSD-3-Clause",
        ("imagenet",),
        "top-1 56.52 on ImageNet at 224 px",
        "torchvision",
    ),
    **{
        name: _of_timm(name, megabytes, licence, top_1)
        for name, megabytes, licence, top_1 in (
            ("resnet50.tv2_in1k", 102, "BSD-3-Clause", "80.8 on ImageNet at 224 px"),
            ("resnet101.tv2_in1k", 178, "BSD-3-Clause", "81.9 on ImageNet at 224 px"),
            ("resnext50_32x4d.tv2_in1k", 100, "BSD-3-Clause", "81.2 on ImageNet at 224 px"),
            ("seresnet50.ra2_in1k", 112, "Apache-2.0", "81.3 on ImageNet at 288 px"),
            ("seresnext50_32x4d.racm_in1k", 110, "Apache-2.0", "82.2 on ImageNet at 288 px"),
            ("vgg16.tv_in1k", 553, "BSD-3-Clause", "71.59 on ImageNet at 224 px"),
            ("densenet121.ra_in1k", 32, "Apache-2.0", "75.57 on ImageNet"),
            ("mobilenetv2_100.ra_in1k", 14, "Apache-2.0", "72.91 on ImageNet at 224 px"),
        )
    },
}
"""By name."""


EMBEDDED_CARD = """embedded
    PASCAL VOC's classes, small; it comes with the program
    use        checkpoint=embedded
    seen       imagenet, coco, voc2012 trainaug
    measured   segapp/weights/embedded/README.md"""


def listing() -> str:
    """The zoo as a table for people, after the network that needs no download."""
    return "\n\n".join([EMBEDDED_CARD, *map(card, ZOO)])


def card(name: str) -> str:
    """What is known of weights, for people.

    Raises:
        KeyError: there are none of this name.
    """
    entry = ZOO[name]
    use = f"checkpoint={name}" if entry.kind == "network" else f"encoder_weights={name}"
    lines = [
        name,
        f"    {entry.what}",
        f"    use        {use}",
        f"    seen       {', '.join(entry.trained_on)}",
        f"    published  {entry.published}" + ("" if entry.published == "none" else f" ({entry.source})"),
        f"    file       {entry.url} (about {entry.megabytes} MB, {entry.licence})",
    ]
    return "\n".join(lines)
