"""Two ranks in two processes have the gists, picks and log-probabilities of the float32 reference, thus of one rank."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from incomes_plugin.errors import EngineLost, PoolFull, UnsupportedEngine
from incomes_plugin.model.adapter import EditAdapter
from incomes_plugin.model.hf import EditableModel
from incomes_plugin.vllm.inject import refuse_uneven_ranks
from tests.incomes_plugin.vllm.lab import POOL_BYTES, Job, Lab, RemoteEngine, edited
from tests.incomes_plugin.vllm.test_reference import FP32, TEXTS, assert_gists_equal, chat, prompt, worst_difference

pytestmark = pytest.mark.vllm
RANKS = {"tensor_parallel_size": 2, "distributed_executor_backend": "mp"}


@pytest.fixture(scope="module")
def ranks(model_dir: Path) -> Iterator[RemoteEngine]:
    """The V1 runner: on a CPU the V2 runner's kernels are interpreted, in one process only."""
    lab = Lab(VLLM_CPU_OMP_THREADS_BIND="nobind")
    yield lab.engine("ranks", model_dir, {**edited(model_dir / "adapter"), **RANKS, "dtype": "float32"})
    lab.close()


def test_two_ranks_equal_the_reference(ranks: RemoteEngine, adapter: EditAdapter, reference: EditableModel) -> None:
    blobs = ranks.capture(TEXTS)
    gists = ranks.gists(blobs)
    for gist in gists:
        assert_gists_equal(gist, reference.capture(TEXTS[gist.edit_id]))
    pool, snapshot = reference.pool(gists), ranks.commit("eset_ranks", None, blobs)
    for length in (2, 64, 200):
        for ids in (prompt(length, length), chat(adapter, length, length, before=40)):
            trace = f"trace-{length}-{len(ids)}"
            read, plain = ranks.run([Job(ids, snapshot, trace=trace, max_tokens=12), Job(ids, max_tokens=12)])
            assert worst_difference(reference, pool, ids, read) < FP32
            assert worst_difference(reference, None, ids, plain) < FP32
            assert worst_difference(reference, None, ids, read) > 0.1  # the edits do something
            found = ranks.call("take_trace", trace).mean
            assert found.none_weight + sum(weight for *_, weight in found.applied) == pytest.approx(1, abs=1e-4)


def test_both_ranks_refuse_a_commit_and_go_on(ranks: RemoteEngine, reference: EditableModel) -> None:
    one = {"edit_long": TEXTS["edit_long"]}
    blobs = ranks.capture(one)
    snapshot = ranks.commit("eset_full", None, blobs)
    before = ranks.used_bytes()
    another = ranks.capture({"edit_2": TEXTS["edit_2"]})
    ranks.call("set_pool_bytes", 1)
    with pytest.raises(PoolFull):
        ranks.commit("eset_full", snapshot, another)
    ranks.call("set_pool_bytes", POOL_BYTES)
    assert ranks.used_bytes() == before
    ids = prompt(3, 40)
    (read,) = ranks.run([Job(ids, snapshot)])
    assert worst_difference(reference, reference.pool(ranks.gists(blobs)), ids, read) < FP32


def test_what_one_rank_alone_cannot_do_loses_the_engine(ranks: RemoteEngine) -> None:
    blobs = ranks.capture({"edit_last": TEXTS["edit_long"]})
    ranks.call("set_pool_bytes", 1, 1)
    with pytest.raises(EngineLost, match="ranks disagree"):
        ranks.commit("eset_last", None, blobs)


def test_ranks_need_equal_parts_of_the_heads(adapter: EditAdapter) -> None:
    refuse_uneven_ranks(adapter, 2)
    with pytest.raises(UnsupportedEngine, match="tensor-parallel-size to a divisor"):
        refuse_uneven_ranks(adapter, 3)
