"""Pools that follow an output stride, against PyTorch's and by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from segapp.models.encoders.pools import AvgPool2d, MaxPool2d


def values(*size: int) -> Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(9, 12), (8, 7), (1, 1)])
def test_without_a_rate_they_are_pytorchs(size: tuple[int, int], stride: int) -> None:
    x = values(*size)
    assert torch.equal(MaxPool2d(3, stride)(x), F.max_pool2d(x, 3, stride, 1))
    for counts in (True, False):
        expected = F.avg_pool2d(x, 3, stride, 1, count_include_pad=counts)
        assert torch.allclose(AvgPool2d(3, stride, counts_padding=counts)(x), expected, rtol=1e-12)


@pytest.mark.parametrize("size", [(9, 12), (8, 7), (1, 1)])
def test_even_windows_of_odd_sides_are_cut_off(size: tuple[int, int]) -> None:
    x = values(*size)
    assert torch.equal(MaxPool2d(2, 2)(x), F.max_pool2d(x, 2, 2, ceil_mode=True))
    expected = F.avg_pool2d(x, 2, 2, ceil_mode=True)
    assert torch.allclose(AvgPool2d(2, 2, counts_padding=False)(x), expected, rtol=1e-12)


@pytest.mark.parametrize("kernel", [2, 3])
@pytest.mark.parametrize("rate", [2, 4])
@pytest.mark.parametrize("size", [(17, 24), (16, 15), (1, 3)])
def test_a_rate_is_the_pool_of_every_so_many_places(kernel: int, rate: int, size: tuple[int, int]) -> None:
    x = values(*size)
    pools: list[tuple[nn.Module, nn.Module]] = [
        (MaxPool2d(kernel, 1, rate), MaxPool2d(kernel, 1)),
        *(
            (AvgPool2d(kernel, 1, rate, counts_padding=counts), AvgPool2d(kernel, 1, counts_padding=counts))
            for counts in (True, False)
        ),
    ]
    for atrous, plain in pools:
        assert atrous(x).shape == x.shape
        for down in range(min(rate, size[0])):
            for across in range(min(rate, size[1])):
                every = x[..., down::rate, across::rate]
                assert torch.allclose(atrous(x)[..., down::rate, across::rate], plain(every), rtol=1e-12)


def test_by_hand() -> None:
    row = torch.tensor([[[[1.0, 2.0, 3.0, 4.0, 5.0]]]])
    assert MaxPool2d(3, 1, 2)(-row).tolist() == [[[[-1, -2, -1, -2, -3]]]]
    assert AvgPool2d(2, 1, 2, counts_padding=False)(row).tolist() == [[[[2, 3, 4, 4, 5]]]]
