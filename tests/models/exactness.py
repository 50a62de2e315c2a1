"""Rates make up for the strides that an output stride gives up: the proof, to the last digits."""

from collections.abc import Callable, Iterable

import torch

from segapp.models.encoders.interface import Encoder
from tests.networks import randomise

SIDES = (127, 128, 129, 161)


@torch.inference_mode()
def assert_exact(
    build: Callable[[int], Encoder], sides: Iterable[int] = SIDES, hold: Callable[[Encoder], None] = lambda _: None
) -> None:
    """That at every second, or fourth, place stands what output stride 32 gives, in float64.

    Args:
        build: for an output stride.
        sides: of the images.
        hold: what makes a network comparable that is not.
    """
    encoders = {output_stride: build(output_stride).double().eval() for output_stride in (8, 16, 32)}
    randomise(encoders[32])
    for encoder in encoders.values():
        encoder.load_state_dict(encoders[32].state_dict(), strict=True)
        hold(encoder)
    for side in sides:
        images = torch.rand(1, 3, side, side + 7, generator=torch.Generator().manual_seed(side), dtype=torch.float64)
        deepest = {output_stride: encoder(images * 2 - 1)[-1] for output_stride, encoder in encoders.items()}
        for output_stride in (8, 16):
            step = 32 // output_stride
            difference = deepest[output_stride][:, :, ::step, ::step] - deepest[32]
            assert difference.abs().max() <= 1e-12 * deepest[32].abs().max(), (side, output_stride)
