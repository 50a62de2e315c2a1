"""Small data and the paper's transform, for tests of loading."""

from pathlib import Path

import yaml

from segapp.base.paths import CONF
from segapp.data.dataset import SegmentationDataset
from segapp.data.formats.shapes import SHAPES_CLASSES
from segapp.data.formats.voc import voc_layout
from segapp.data.loading.transforms import TransformConfig


def shapes(root: Path, split: str = "train") -> SegmentationDataset:
    return voc_layout(root, split, SHAPES_CLASSES, f"shapes {split}")


def paper(crop: int) -> TransformConfig:
    text = (CONF / "transform" / "paper.yaml").read_text().replace("${transform.crop}", str(crop))
    text = text.replace(f'"{crop}"', str(crop))
    return TransformConfig.model_validate(yaml.safe_load(text) | {"crop": crop})
