"""Data sets by name."""

from typing import Annotated

from pydantic import Field

from segapp.data.formats.coco import CocoConfig
from segapp.data.formats.folder import FolderConfig
from segapp.data.formats.shapes import ShapesConfig
from segapp.data.formats.voc import Voc2012Config

DataConfig = Annotated[Voc2012Config | CocoConfig | FolderConfig | ShapesConfig, Field(discriminator="name")]
"""One class a data set; each has `dataset(role, on_unpaired)` for role "train" or "val"."""
