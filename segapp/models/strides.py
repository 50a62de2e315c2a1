"""From an output stride to each unit's stride and atrous rate."""

from collections.abc import Iterable, Iterator


def strides_and_rates(strides: Iterable[int], output_stride: int, *, start: int = 1) -> Iterator[tuple[int, int]]:
    """Each unit's (stride, atrous rate), for convolutions and pools alike.

    Until the output stride is reached each unit runs with its own stride and rate 1. A unit met after that keeps its
    resolution, runs at the current rate, and only then multiplies the rate by the stride it gave up
    (stack_blocks_dense in research/slim/nets/resnet_utils.py and research/deeplab/core/xception.py).

    Args:
        strides: the units' own, in order.
        output_stride: of the whole.
        start: the stride of what comes before the first unit.
    """
    current, rate = start, 1
    for stride in strides:
        if current == output_stride:
            yield 1, rate
            rate *= stride
        else:
            yield stride, 1
            current *= stride
