"""Every encoder learns: a few iterations on the demo's pictures, and a checkpoint that comes back to the bit."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segapp.data.formats.shapes import SHAPES_CLASSES
from segapp.data.formats.shapes.scene import draw_scene
from segapp.models.encoders.interface import Normalization
from segapp.models.layers import resize
from segapp.models.surgery import set_bn_momentum
from segapp.weights.checkpoint import CheckpointInfo, load_model, save_checkpoint
from tests.models.test_encoders import CASES
from tests.networks import small

SIDE, ITERATIONS = 65, 8


def batch(normalization: Normalization) -> tuple[Tensor, Tensor]:
    scenes = [draw_scene(np.random.default_rng([0, i]), SIDE, SIDE) for i in range(4)]
    images = torch.from_numpy(np.stack([image for image, _ in scenes])).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (normalization.mean, normalization.std))
    return (images - mean) / std, torch.from_numpy(np.stack([label for _, label in scenes])).long()


@pytest.mark.parametrize("name", CASES)
def test_it_learns_and_comes_back(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = small(encoder={"name": name} | CASES[name])
    model = config.build(len(SHAPES_CLASSES)).train()
    set_bn_momentum(model, 0.1)
    images, labels = batch(model.encoder.normalization)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(ITERATIONS):
        loss = F.cross_entropy(resize(model(images), (SIDE, SIDE)), labels, ignore_index=255)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0], losses

    info = CheckpointInfo(
        network=config, classes=SHAPES_CLASSES, normalization=model.encoder.normalization, trained_on=("shapes train",)
    )
    save_checkpoint(tmp_path / "a.safetensors", model, info)
    again, described = load_model(tmp_path / "a.safetensors")
    assert described == info
    state = again.state_dict()
    assert state.keys() == model.state_dict().keys()
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())
    with torch.inference_mode():  # memory that begins elsewhere has other kernels
        assert torch.allclose(again(images), model.eval()(images), atol=1e-4)
