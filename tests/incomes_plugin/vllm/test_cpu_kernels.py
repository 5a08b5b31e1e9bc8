"""The compiled loops give the numbers of the formulas: reading, copying, and what answers have said."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from incomes_plugin.gist.spelling import joined
from incomes_plugin.gist.types import GistShape
from incomes_plugin.selection.attention import Unrotation
from incomes_plugin.selection.copying import Copier, mixed
from incomes_plugin.selection.reading import Reader
from incomes_plugin.vllm import cpu_kernels
from incomes_plugin.vllm.batch import ReadBatch
from incomes_plugin.vllm.layer import ReadingLayer
from incomes_plugin.vllm.rows import Rows
from incomes_plugin.vllm.step import ReadRows
from tests.incomes_plugin.vllm.test_batch import request

KV_HEADS, HEADS, DIM, WIDTH, VOCABULARY = 3, 9, 16, 6, 1500


def batch_of(count: int, seed: int) -> ReadBatch:
    """A batch with a history, so that its memory holds what has left."""
    requests = [request(10 * seed + i, DIM, DIM, ids_below=6) for i in range(count + 2)]
    batch = ReadBatch(requests[0].picks[0])
    batch.set(requests)
    batch.set(requests[1:-1])
    return batch


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("neox", "rotary"), [(True, DIM), (False, DIM), (True, DIM // 2), (False, DIM // 2)])
@pytest.mark.parametrize("several", [False, True])
def test_a_layer_read_in_loops_is_the_layer(dtype: torch.dtype, neox: bool, rotary: int, several: bool) -> None:
    torch.manual_seed(3)
    reader = Reader(GistShape((0, 1), (2, 3), KV_HEADS, DIM, 8), HEADS).requires_grad_(False)
    for part in reader.parameters():
        part.add_(0.3 * torch.randn_like(part))
    layer = ReadingLayer(1, reader, SimpleNamespace(), slice(None))
    batch = batch_of(4, seed=1)
    owners = torch.tensor([0, 0, 0, 1, 2, 3, 3]) if several else None
    count = 7 if several else 4
    rows: Rows = torch.randperm(11)[:count] if several else slice(3, 3 + count)
    turned = Unrotation.of_rows(
        torch.randn(50, rotary), torch.randint(50, (count,)), head_dim=DIM, neox=neox, dtype=torch.float32
    )
    trace = SimpleNamespace(weights=torch.zeros(count, batch.edit_of.shape[1]))
    step = ReadRows(batch, rows, owners, {id(layer.rotary): turned}, rows, trace, HEADS)  # type: ignore[arg-type]
    wide = torch.randn(11, 2 * HEADS, DIM).to(dtype)
    query, before = wide[:, HEADS:], wide[:, :HEADS].clone()
    in_loops, by_tensors = before.clone(), before.clone()
    layer.read(step, query, in_loops)
    weights, trace.weights = trace.weights, torch.zeros_like(trace.weights)
    batch.arrays = None
    layer.read(step, query, by_tensors)
    tolerance = 2e-5 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(in_loops, by_tensors, atol=tolerance, rtol=tolerance)
    torch.testing.assert_close(weights, trace.weights, atol=1e-5, rtol=1e-4)
    untouched = [row for row in range(11) if row not in torch.arange(11)[rows].tolist()]
    assert torch.equal(in_loops[untouched], before[untouched])
    assert not torch.equal(in_loops[rows], before[rows])


def test_many_rows_are_left_to_tensor_operations() -> None:
    reader = Reader(GistShape((0, 1), (2, 3), KV_HEADS, DIM, 8), HEADS).requires_grad_(False)
    layer = ReadingLayer(0, reader, SimpleNamespace(), slice(None))
    assert layer.num_heads == HEADS
    assert layer.fits_loops(64)
    assert not layer.fits_loops(1 << 20)


def test_importing_the_plugin_does_not_import_numba() -> None:
    """vLLM's search for kernels at the start of a worker fails where it is imported."""
    modules = "incomes_plugin.vllm.runtime, incomes_plugin.vllm.register, incomes_plugin.vllm.engine"
    code = f"import sys, {modules}; print([name for name in sys.modules if name.startswith('llvmlite')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_vllm_can_look_for_kernels_after_the_loops_are_there() -> None:
    from llvmlite.binding import ffi

    assert vars(ffi.lib) == {}


@pytest.mark.parametrize("seed", range(6))
def test_answers_say_and_copy_in_loops_what_the_formulas_give(seed: int) -> None:
    torch.manual_seed(seed)
    copier = Copier(12, 5, WIDTH).requires_grad_(False)
    for part in copier.parameters():
        part.copy_(torch.randn_like(part))
    one, two = batch_of(4, seed), batch_of(4, seed)
    two.arrays = None
    held = False
    for step in range(12):
        tokens = torch.randint(0, 7, (4,))
        says = torch.rand(4) < 0.7 if step % 3 else None
        for batch in (one, two):
            batch.say(tokens, says)
        assert torch.equal(one.said, two.said)
        assert torch.equal(one.cover, two.cover)
        hidden, logits = torch.randn(4, 12), 4 * torch.randn(6, VOCABULARY)
        logits[:, 100:200] = -torch.inf
        rows = torch.tensor([5, 0, 2, 1])
        got = logits.clone()
        assert one.arrays is not None
        one.arrays.mix(got, rows, copier, hidden)
        shares = two.copied(hidden, copier)
        held = held or bool((shares.held[shares.held.isfinite()] != 0).any())
        expected = mixed(logits[rows], shares, two.table[..., 0])
        torch.testing.assert_close(got[rows], expected, atol=2e-5, rtol=1e-5)
        assert torch.equal(got[[3, 4]], logits[[3, 4]])
    assert int(one.cover.max()) > 1  # the answers did follow an edit
    assert held == any(len(each.picks) > 1 for each in one.requests)


def test_however_far_the_base_is_held_back_nothing_of_one_step_is_left_for_the_next() -> None:
    torch.manual_seed(1)
    copier = Copier(12, 5, WIDTH).requires_grad_(False)
    copier.held[0] = -300.0
    batch = batch_of(4, seed=1)
    assert any(len(each.picks) > 1 for each in batch.requests)
    batch.say(batch.table[:, 0, 0].clone(), None)
    hidden, logits = torch.randn(4, 12), 4 * torch.randn(4, VOCABULARY)
    assert batch.arrays is not None
    first, again = logits.clone(), logits.clone()
    for got in (first, again):
        batch.arrays.mix(got, slice(0, 4), copier, hidden)
    assert torch.equal(first, again)
    assert bool((batch.copied(hidden, copier).held == -300.0).any())


@pytest.mark.parametrize("size", [1, 63, 64, 1000, 49152])
@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0, 1e4])
def test_the_log_of_the_sum_of_exponentials(size: int, spread: float) -> None:
    row = (torch.randn(size, generator=torch.Generator().manual_seed(size)) * spread).float()
    bits, rest, block = np.empty(1024, np.int32), np.empty(1024, np.float32), np.empty(1024, np.float32)
    memory = block, bits, bits.view(np.float32), rest
    shifted = row.clone()
    got = cpu_kernels._log_total(shifted.numpy(), np.float32(-1.5), *memory)
    assert got == pytest.approx(float(row.double().logsumexp(0)), abs=2e-6, rel=1e-6)
    assert torch.equal(shifted, row - 1.5)
    assert cpu_kernels._log_total(np.full(size, -np.inf, np.float32), np.float32(0.0), *memory) == -np.inf


def test_a_number_that_is_none_is_not_taken_for_nothing_read() -> None:
    numbers = np.array([0.0, np.nan, -200.0], np.float32)
    bits, rest = np.empty(3, np.int32), np.empty(3, np.float32)
    cpu_kernels._exponentials(numbers, 0.0, bits, bits.view(np.float32), rest)
    assert np.isnan(numbers).tolist() == [False, True, False]


@pytest.mark.parametrize("size", [2, 6, 16, 64])
def test_a_product_of_any_width_is_added(size: int) -> None:
    numbers, out = np.random.default_rng(size).standard_normal((2, size)).astype(np.float32)
    matrix = np.random.default_rng(1).standard_normal((size, size)).astype(np.float32)
    expected = out + numbers @ matrix
    cpu_kernels._add_product(numbers, matrix, out)
    np.testing.assert_allclose(out, expected, atol=1e-5, rtol=1e-5)


def test_tables_of_several_picks_keep_their_places_apart() -> None:
    made = request(3, DIM, DIM, ids_below=6)
    table = joined([pick.spelled for pick in made.picks])
    assert int(table[:, -2].max()) < len(table)  # the loops use places and picks as rows of the table
    assert int(table[:, -1].max()) < len(table)
