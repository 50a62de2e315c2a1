"""Data sets by name: getting, reading, checking and loading them.

Imports within this folder run downwards, which import-linter holds:

    checks                                   what would make training fail, found before it does
    loading, formats                         images and crops for networks; a file or folder for each kind of data set
    getting                                  downloads of public data sets
    class_lists                              two lists of class names, matched by name
    options, pairs, dataset                  what every data set has: its keys, its files' names, its samples
    the others                               these know nothing of data sets
"""

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
