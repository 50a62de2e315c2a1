"""Files as version 0.1 wrote them, word for word, read by this one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from segapp.base.classes import CITYSCAPES_CLASSES
from segapp.base.errors import UserError
from segapp.models.encoders.interface import INCEPTION
from segapp.weights.checkpoint import load_model, read_info, start_encoder_from
from tests.networks import randomise, small

NETWORK = """{"format":"segapp-1","model":{"name":"deeplabv3plus","encoder":{"name":"xception41","width":0.125,\
"weights":null},"output_stride":16,"aspp":{"channels":16,"separable":true,"image_pooling":true,"dropout":0.1},\
"decoder":{"channels":16,"low_level_channels":8,"separable":true},"bn_momentum":0.1,"activation_checkpointing":false},\
"classes":["background","disc","tile"],"canvas":161,"splits_seen":["imagenet","shapes train"],"iteration":1000,\
"miou":0.625,"source":null}"""
ENCODER = """{"format":"segapp-encoder-1","encoder":{"name":"xception41","width":0.125,"weights":null},"classes":[],\
"splits_seen":["imagenet"],"source":{"address":"https://somewhere","sha256":"00","licence":"MIT"}}"""


def network_file(path: Path, description: str = NETWORK, classes: int = 3) -> Path:
    model = small().build(classes)
    randomise(model)
    save_file(model.state_dict(), path, {"segapp": description})
    return path


def test_a_network_of_version_0_1(tmp_path: Path) -> None:
    path = network_file(tmp_path / "old.safetensors")
    model, info = load_model(path)
    assert info.network == small()
    assert (info.classes, info.canvas, info.iteration) == (("background", "disc", "tile"), 161, 1000)
    assert (info.trained_on, info.scores, info.background) == (("imagenet", "shapes train"), {"miou": 0.625}, 0)
    assert info.normalization == INCEPTION, "all of them were Xceptions, which take [-1, 1]"
    saved = load_file(path)
    assert all(torch.equal(saved[name], tensor) for name, tensor in model.state_dict().items())
    assert info.describe() == (
        "xception41 trained on imagenet, shapes train, iteration 1000, mIoU 0.6250 in validation"
    )


def test_what_it_is_upgraded_to_is_what_is_written_now(tmp_path: Path) -> None:
    info = read_info(network_file(tmp_path / "old.safetensors"))
    path = tmp_path / "new.safetensors"
    save_file(load_file(tmp_path / "old.safetensors"), path, info.as_metadata())
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["segapp"])["format"] == "segapp-2"
    assert read_info(path) == info


def test_an_encoder_of_version_0_1(tmp_path: Path) -> None:
    encoder = small().encoder.build(32)
    randomise(encoder)
    path = tmp_path / "encoder.safetensors"
    save_file(encoder.state_dict(), path, {"segapp": ENCODER})
    info = read_info(path)
    assert not info.is_segmentation
    assert (info.network.encoder, info.trained_on) == (small().encoder, ("imagenet",))
    assert info.source is not None
    assert info.source.licence == "MIT"
    other = small().encoder.build(16)
    start_encoder_from(path, other)
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in encoder.state_dict().items())


def test_the_background_follows_from_the_classes(tmp_path: Path) -> None:
    description = json.loads(NETWORK) | {"classes": list(CITYSCAPES_CLASSES)}
    path = network_file(tmp_path / "old.safetensors", json.dumps(description), len(CITYSCAPES_CLASSES))
    assert read_info(path).background is None, "road is no background"


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("model"),
        lambda d: d.pop("splits_seen"),
        lambda d: d.pop("miou"),
        lambda d: d.update(model=[]),
        lambda d: d["model"].update(builder="os.system"),
        lambda d: d["model"]["encoder"].update(name="resnet"),
        lambda d: d.update(format="segapp-3"),
        lambda d: d.pop("format"),
    ],
)
def test_damaged_descriptions(change: Callable[[dict[str, Any]], object], tmp_path: Path) -> None:
    description = json.loads(NETWORK)
    change(description)
    with pytest.raises(UserError, match="description is damaged, or of another version of segapp"):
        read_info(network_file(tmp_path / "old.safetensors", json.dumps(description)))


def test_a_description_that_is_no_object(tmp_path: Path) -> None:
    for text in ("[]", "1", "null", "{"):
        with pytest.raises(UserError, match="description is damaged"):
            read_info(network_file(tmp_path / "old.safetensors", text))
