"""The tensors in a program of torch.export: the program itself may run code as it is read, and they do not."""

import json
import zipfile
from pathlib import Path

import numpy as np
import torch

from segapp.base.errors import UserError
from segapp.models.deeplabv3plus import DeepLabV3Plus, DeepLabV3PlusConfig
from segapp.weights.checkpoint import CheckpointInfo, with_output_stride
from segapp.weights.exported.description import read_exported

WEIGHTS = "data/weights/"
"""The folder in the archive (torch/export/pt2_archive/constants.py)."""
DTYPES = {5: np.int64, 6: np.float16, 7: np.float32}
"""Of ScalarType in torch/_export/serde/schema.py."""


def load_program(path: Path, output_stride: int | None = None) -> tuple[DeepLabV3Plus, CheckpointInfo]:
    """The network of which a program was made, rebuilt as `load_model` does, its tensors in float32 again.

    Raises:
        UserError: it is damaged, segapp has not written it, or its tensors are not those of its description.
    """
    info = with_output_stride(read_exported(path)[0], output_stride)
    assert isinstance(info.network, DeepLabV3PlusConfig)
    with torch.device("meta"):
        model = info.network.build(len(info.classes))
    tensors = {}
    try:
        with zipfile.ZipFile(path) as archive:
            root = archive.namelist()[0].partition("/")[0]
            index = json.loads(archive.read(f"{root}/{WEIGHTS}model_weights_config.json"))["config"]
            for name, expected in model.state_dict().items():
                entry = index.get(name) or index[name.replace(".", "__")]  # the latter of halved ones
                meta = entry["tensor_meta"]
                sizes, strides = ([each["as_int"] for each in meta[key]] for key in ("sizes", "strides"))
                if entry["use_pickle"] or sizes != list(expected.shape):
                    raise ValueError(f"{name} does not fit its description")
                content = archive.read(f"{root}/{WEIGHTS}{entry['path_name']}")
                values = torch.from_numpy(np.frombuffer(content, DTYPES[meta["dtype"]]).copy())
                tensors[name] = values.as_strided(sizes, strides).to(expected.dtype)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile, RuntimeError) as error:
        raise UserError(f"{path}: a damaged program ({error})") from None
    model.load_state_dict(tensors, assign=True)
    return model.eval(), info
