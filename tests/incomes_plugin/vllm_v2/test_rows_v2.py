"""Edits under the V2 model runner: the same as under V1, and nothing at all without edits."""

from __future__ import annotations

import pytest
import torch

from incomes_plugin.gist import load_gists

pytestmark = pytest.mark.vllm
LONG = 32  # tokens until four prompts of 40 have outgrown the 8 blocks of the KV cache


@pytest.fixture(scope="module")
def edit_prompts(prompt, adapter):
    """Capture prompts of 12 edits; the last is longer than a prefill chunk."""
    lengths = [6 + i for i in range(11)] + [60]
    return [prompt(3 + 5 * i, length) + list(adapter.gist_token_ids) for i, length in enumerate(lengths)]


@pytest.fixture(scope="module")
def blobs(edits_v1, edit_prompts):
    """Gists captured under V1."""
    return edits_v1.call("capture", edit_prompts, 2)


@pytest.fixture(scope="module")
def commit(edits_v1, edits_v2):
    """`commit(snapshot, blobs)` puts a new snapshot into the pools of both engines."""

    def commit(snapshot, blobs, engines=(edits_v1, edits_v2)):
        delta = {"edit_set": f"eset_{snapshot}", "base": None, "snapshot": snapshot, "num_edits": len(blobs)}
        delta |= {"added": blobs, "removed": [], "retire": [], "ages": []}
        for engine in engines:
            answer = engine.call("rpc", "incomes_commit", delta)
            assert answer["ok"], answer
        return snapshot

    return commit


@pytest.fixture(scope="module")
def scopes(commit, blobs):
    """Two snapshots with 5 and 7 edits."""
    return commit("snap_a", blobs[:5]), commit("snap_b", blobs[5:])


def test_capture_is_the_same(edits_v2, edit_prompts, blobs):
    fingerprint = edits_v2.call("rpc", "incomes_handshake")["fingerprint"]
    for ours, theirs in zip(edits_v2.call("capture", edit_prompts, 2), blobs, strict=True):
        (gist,), (other,) = load_gists(ours, fingerprint), load_gists(theirs, fingerprint)
        assert gist.keys.abs().max() > 0.1
        torch.testing.assert_close(gist.keys, other.keys, atol=1e-4, rtol=0)
        torch.testing.assert_close(gist.values, other.values, atol=1e-4, rtol=0)


def test_without_edits_bit_identical_to_stock(stock_v2, edits_v2, prompt, assert_same):
    prompts = [prompt(5 + i, 4 + 3 * i) for i in range(8)] + [prompt(40, 70)]
    assert_same(*(engine.call("generate", prompts, 6) for engine in (edits_v2, stock_v2)), atol=0)


def test_scoped_answers_are_those_of_v1(edits_v1, edits_v2, scopes, prompt, assert_same):
    prompts = [prompt(5, 4), prompt(9, 30), prompt(40, 70), prompt(77, 20)]
    for snapshot in scopes:
        ours, theirs = (engine.call("generate", prompts, 6, [snapshot] * 4) for engine in (edits_v2, edits_v1))
        assert_same(ours, theirs, atol=1e-4)
        assert [tokens for tokens, _ in ours] != [tokens for tokens, _ in edits_v2.call("generate", prompts, 6)]


def test_mixed_batch_keeps_requests_apart(edits_v1, edits_v2, scopes, prompt, assert_same):
    a, b = scopes
    mix = [a, None, b, a, None, b, a, None]
    prompts = [prompt(5, 20)] * 8
    ours, theirs = (engine.call("generate", prompts, 6, mix) for engine in (edits_v2, edits_v1))
    assert_same(ours, theirs, atol=1e-4)
    for snapshot in (a, b, None):
        rows = [answer for answer, scope in zip(ours, mix, strict=True) if scope == snapshot]
        alone = edits_v2.call("generate", prompts[:1], 6, [snapshot])
        assert_same(rows, alone * len(rows), atol=1e-4)
    assert len({tuple(tokens) for tokens, _ in ours}) == 3


def test_preempted_requests_keep_their_edits(edits_v1, edits_v2, scopes, prompt, assert_same):
    a, b = scopes
    prompts = [prompt(first, 40) for first in (11, 23, 57, 91)]
    before = edits_v2.call("preemptions")
    ours, theirs = (engine.call("generate", prompts, LONG, [a, b, None, a]) for engine in (edits_v2, edits_v1))
    assert edits_v2.call("preemptions") > before
    assert_same(ours, theirs, atol=1e-4)


def test_snapshot_retired_during_a_preemption_still_serves(edits_v2, commit, blobs, prompt, assert_same):
    prompts = [prompt(first, 40) for first in (11, 23, 57, 91)]
    undisturbed = edits_v2.call("generate", prompts, LONG, [commit("snap_kept", blobs[:5], [edits_v2])] * 4)
    retired = commit("snap_retired", blobs[:5], [edits_v2])
    assert_same(edits_v2.call("generate_and_retire", prompts, LONG, retired), undisturbed, atol=1e-4)
    edits_v2.call("generate", prompts[:1], 1)  # the runner drops finished requests with its next step
    usage = edits_v2.call("rpc", "incomes_handshake")
    edits_v2.call("rpc", "incomes_retire", ["snap_kept"])
    freed = edits_v2.call("rpc", "incomes_handshake")["free_gists"] - usage["free_gists"]
    assert freed == usage["page_size"]
    assert usage["snapshots"] == 3


def test_plan_follows_every_row_of_tagged_requests(edits_v2, scopes, prompt):
    a, b = scopes
    edits_v2.call("watch")
    edits_v2.call("generate", [prompt(11, 40), prompt(23, 70), prompt(57, 40)], LONG, [a, None, b])
    events = edits_v2.call("watched")
    assert [kind for kind, _ in events] == ["begin", "end"] * (len(events) // 2)
    rows: dict[str, list[int]] = {}
    for spans, positions in (value for kind, value in events if kind == "begin"):
        for name, first_row, num_rows, first_position in spans:
            laid_out = positions[first_row : first_row + num_rows]
            assert laid_out == list(range(first_position, first_position + num_rows))
            rows.setdefault(name.partition("-")[0], []).extend(laid_out)
    assert set(rows) == {"request_0", "request_2"}
    for seen in rows.values():
        assert sorted(set(seen)) == list(range(40 + LONG - 1))


def test_dummy_runs_see_no_plan(edits_v2, scopes, prompt):
    edits_v2.call("generate", [prompt(11, 10)], 2, [scopes[0]])
    edits_v2.call("watched")
    assert not edits_v2.call("dummy_run")
    assert edits_v2.call("watched") == []


@pytest.mark.parametrize(
    ("mode", "batch", "stock", "edits"),
    [
        ("FULL_AND_PIECEWISE", (3, 3, 1), "FULL", "PIECEWISE"),
        ("FULL_AND_PIECEWISE", (3, 9, None), "PIECEWISE", "PIECEWISE"),
        ("FULL_DECODE_ONLY", (3, 3, 1), "FULL", "NONE"),
        ("FULL", (3, 9, None), "FULL", "NONE"),
        ("PIECEWISE", (3, 3, 1), "PIECEWISE", "PIECEWISE"),
    ],
)
def test_full_graphs_only_without_edits(edits_v2, scopes, mode, batch, stock, edits):
    assert edits_v2.call("dispatch", mode, batch, None) == stock
    assert edits_v2.call("dispatch", mode, batch, scopes[0]) == edits


def test_exchanged_graph_manager_fails_steps_with_edits(edits_v2, scopes):
    assert edits_v2.call("step_with_another_manager", None) == "answered"
    assert "graph manager was replaced" in edits_v2.call("step_with_another_manager", scopes[0])


def test_every_changed_signature_is_refused(edits_v2):
    hooks = ["add_request", "remove_request", "prepare_inputs", "execute_model", "dispatch", "run_fullgraph"]
    assert edits_v2.call("refused_touches") == hooks
