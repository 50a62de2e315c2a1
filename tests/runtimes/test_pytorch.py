"""The PyTorch runtime, and what the predictor makes of one that is another."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segapp.base.errors import UserError
from segapp.inference.options import Whole
from segapp.inference.predictor import Predictor
from segapp.models.encoders.interface import INCEPTION, Normalization
from segapp.runtimes.interface import RuntimeSpec
from segapp.runtimes.pytorch import PyTorchRuntime
from tests.networks import randomise, small, whole

CLASSES = ("background", "a", "b")
CPU = torch.device("cpu")


@pytest.mark.parametrize(("changes", "stride"), [({}, 4), ({"decoder": None}, 16), ({"output_stride": 8}, 4)])
def test_its_spec_is_the_networks(changes: dict[str, object], stride: int) -> None:
    model = small(**changes).build(3)
    runtime = PyTorchRuntime(model, CLASSES, background=0, device=CPU)
    assert runtime.spec == RuntimeSpec(CLASSES, 0, INCEPTION, small(**changes).output_stride, stride)
    logits = runtime(torch.zeros(2, 3, 65, 97))
    assert logits.shape == (2, 3, -(-65 // stride), -(-97 // stride))
    assert logits.dtype == torch.float32


def test_a_network_in_training_is_in_evaluation_for_a_call_alone() -> None:
    model = small().build(3).train()
    randomise(model)
    runtime = PyTorchRuntime(model, CLASSES, device=CPU, precision="bfloat16")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    logits = runtime(torch.rand(1, 3, 33, 33))
    assert logits.dtype == torch.float32
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert runtime.description == "output stride 16, bfloat16"


class Brightness:
    """A runtime of no library: class 1 where red is above the mean, at a stride of 2."""

    spec = RuntimeSpec(CLASSES, 0, Normalization(mean=(0.4, 0.4, 0.4), std=(0.1, 0.2, 0.3)), 8, 2)
    device = CPU
    description = "brightness"

    def __init__(self) -> None:
        self.sizes: list[tuple[int, ...]] = []

    def __call__(self, images: Tensor) -> Tensor:
        self.sizes.append(tuple(images.shape))
        red = F.avg_pool2d(images[:, :1], 2, ceil_mode=True, count_include_pad=False)
        return torch.cat([torch.zeros_like(red), red, torch.full_like(red, -9.0)], 1)


def test_the_predictor_needs_no_more_than_the_interface() -> None:
    image = np.full((20, 30, 3), 60, np.uint8)
    image[:, :15] = 200
    runtime = Brightness()
    predictor = Predictor(runtime, whole(41, scales=(0.5, 1.0), flip=True))
    labels = predictor(image)
    assert (labels[:, :13] == 1).all()
    assert (labels[:, 18:] == 0).all()
    assert runtime.sizes == [(1, 3, 21, 21)] * 2 + [(1, 3, 41, 41)] * 2
    assert predictor.protocol.endswith("scales 0.5, 1 and the mirror image, JPEG decoder accurate, brightness")
    assert predictor.classes == CLASSES


@pytest.mark.parametrize("options", [whole(33), whole(None), whole(41, scales=(0.5, 1))])
def test_a_runtime_of_one_size_gets_no_other(options: Whole) -> None:
    class OfOneSize(Brightness):
        spec = replace(Brightness.spec, input_size=(41, 41))

    assert Predictor(OfOneSize(), whole(41, flip=True))(np.zeros((50, 30, 3), np.uint8)).shape == (50, 30)
    with pytest.raises(UserError, match=r"takes images of 41 x 41 alone: inference\.canvas=41, at scale 1"):
        Predictor(OfOneSize(), options)
