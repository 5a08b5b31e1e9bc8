"""8-bit rows: how far they may be off, and how much room gists take."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from incomes_plugin.gist.spelling import BYTES, Spelling
from incomes_plugin.gist.types import SPELLED_PER_TOKEN, Gist, GistShape, Packed


@settings(max_examples=100, deadline=None)
@given(exponent=st.floats(-3, 5), rows=st.integers(1, 5), width=st.integers(1, 40), seed=st.integers(0, 999))
def test_a_packed_number_is_off_by_half_a_step_at_most(exponent: float, rows: int, width: int, seed: int) -> None:
    numbers = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) * 10**exponent
    packed = Packed.of(numbers)
    assert (packed.data.dtype, packed.scale.dtype) == (torch.int8, torch.float16)
    step = (numbers.abs().amax(-1, keepdim=True) / 127).clamp_min(2**-14)  # the least normal float16
    # The scale itself is rounded to float16: 2^-11 of the largest number, that is 127 * 2^-11 of a step.
    assert ((packed.unpack() - numbers).abs() <= step * (0.5 + 127 * 2**-11 + 1e-3)).all()


def test_rows_of_zeros_and_of_huge_numbers_are_kept() -> None:
    numbers = torch.tensor([[0.0, 0.0], [1e6, -2e6], [3e7, 1.0]])
    found = Packed.of(numbers).unpack()
    assert torch.equal(found[0], numbers[0])
    torch.testing.assert_close(found[1], numbers[1], rtol=0.01, atol=0)
    assert found[2, 0] == pytest.approx(127 * 65504)  # what 8 bits times the largest scale can hold


def test_rounding_again_changes_nothing() -> None:
    once = Packed.of(torch.randn(6, 32))
    again = Packed.of(once.unpack())
    assert torch.equal(once.data, again.data)
    assert torch.equal(once.scale, again.scale)


def test_unpacked_on_a_device() -> None:
    packed = Packed.of(torch.randn(3, 4))
    assert torch.equal(packed.unpack(torch.device("cpu")), packed.unpack())


def test_bytes_per_token_are_those_of_a_gist() -> None:
    shape = GistShape((1, 2, 3), (3, 4), num_kv_heads=2, head_dim=8, latent_dim=11)
    assert shape.feature_dim == 48
    assert shape.read_dim == 64
    parts = (torch.randn(7, 48), torch.randn(7, 11))
    gist = Gist("edit_1", 2, *map(Packed.of, parts))
    assert (gist.edit, gist.num_tokens) == (("edit_1", 2), 7)
    assert gist.num_bytes == 7 * shape.bytes_per_token
    spelled = replace(gist, spelling=Spelling.of([(9, i % 7, -1) for i in range(round(7 * SPELLED_PER_TOKEN))]))
    assert spelled.num_bytes == pytest.approx(7 * shape.room_per_token, abs=BYTES)
