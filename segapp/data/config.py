"""Which data sets there are: the choices of conf/data."""

from typing import Annotated

from pydantic import Field

from segapp.data.formats.coco import CocoConfig
from segapp.data.formats.folder import FolderConfig
from segapp.data.formats.image_folder import ImageFolderConfig
from segapp.data.formats.shapes import ShapesConfig
from segapp.data.formats.voc import Voc2012Config

_Segmentation = Voc2012Config | CocoConfig | FolderConfig | ShapesConfig
DataConfig = Annotated[_Segmentation, Field(discriminator="name")]
"""One class a data set; each has `dataset(role, on_unpaired)` for role "train" or "val"."""
AnyDataConfig = Annotated[_Segmentation | ImageFolderConfig, Field(discriminator="name")]
"""Or a data set for classification, whose images have one class each."""
