"""Where a backend packs the numbers of its KV pages is found out by writing to one."""

from __future__ import annotations

import pytest
import torch

from incomes_plugin.errors import UnsupportedEngine
from incomes_plugin.pool.layout import PageLayout

SHAPE = (4, 2, 9)
NUMBERS = 4 * 2 * 9
SHUFFLE = torch.randperm(2 * NUMBERS, generator=torch.Generator().manual_seed(1))
CPU = torch.device("cpu")


def scrambled_page(keys: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """A backend whose packing nobody would guess."""
    return torch.cat([keys.flatten(), values.flatten()]).float()[SHUFFLE]


def test_the_probe_finds_a_scrambled_layout() -> None:
    layout = PageLayout.probe(scrambled_page, SHAPE, CPU)
    assert (layout.page_size, layout.page_numel) == (4, 2 * NUMBERS)
    keys, values = torch.randn(SHAPE), torch.randn(SHAPE)
    page = scrambled_page(keys, values)
    assert torch.equal(page[layout.keys], keys)
    assert torch.equal(page[layout.values], values)


@pytest.mark.parametrize(
    "write_page",
    [
        pytest.param(lambda keys, values: torch.cat([keys.flatten(), keys.flatten()]), id="values are lost"),
        pytest.param(lambda keys, values: keys.flatten(), id="another size"),
    ],
)
def test_a_backend_that_does_not_keep_every_number_is_refused(write_page) -> None:
    with pytest.raises(UnsupportedEngine):
        PageLayout.probe(write_page, SHAPE, CPU)
