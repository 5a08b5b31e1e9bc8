"""Verbatim edits among others: a probe finds the one that leads, and no answer reads their gists."""

from __future__ import annotations

from dataclasses import replace

import pytest

from incomes_plugin.pool.snapshot import SnapshotDelta, SnapshotRef
from tests.incomes_plugin.vllm.lab import Job, RemoteEngine
from tests.incomes_plugin.vllm.test_reference import prompt

pytestmark = pytest.mark.vllm
FACTS = {f"fact_{i}": list(prompt(910 + i, 8)) for i in range(6)}
CLAUSES = {f"clause_{i}": list(prompt(930 + i, 8)) for i in range(6)}
JOBS = [Job(prompt(960 + i, 14)) for i in range(12)]


@pytest.fixture(scope="module")
def blobs(fp32: RemoteEngine) -> dict[str, bytes]:
    return fp32.capture(FACTS | CLAUSES, tuple(CLAUSES))


@pytest.fixture(scope="module")
def mixed(fp32: RemoteEngine, blobs: dict[str, bytes]) -> SnapshotRef:
    return fp32.commit("eset_mixed", None, blobs)


def leads_of(fp32: RemoteEngine, snapshot: SnapshotRef) -> list[list[str]]:
    """The verbatim edits among the picks of each of the jobs that one leads."""
    jobs = [replace(job, snapshot=snapshot, trace=f"probe-{i}", probe=True) for i, job in enumerate(JOBS)]
    fp32.run(jobs)
    found = [fp32.call("rpc", "incomes_take_leads", job.trace)["leads"] for job in jobs]
    return [[edit for _, edit, _ in leads] for leads in found]


def test_a_verbatim_edit_leads_where_it_is_the_likeliest_pick(fp32: RemoteEngine, mixed: SnapshotRef) -> None:
    fp32.call("watch_picks")
    leads = leads_of(fp32, mixed)
    picked = [picks for picks, _, _ in fp32.call("watched_picks")]
    assert leads == [[one for one in picks if one in CLAUSES] if picks[0] in CLAUSES else [] for picks in picked]
    assert [] in leads
    assert max(map(len, leads)) > 1


def test_a_probe_reads_nothing(fp32: RemoteEngine, mixed: SnapshotRef) -> None:
    probed = fp32.run([replace(job, snapshot=mixed, probe=True, trace="probe-x") for job in JOBS])
    plain = fp32.run(JOBS)
    assert [a.logprobs for a in probed] == [a.logprobs for a in plain]


def test_answers_are_those_without_verbatim_edits(
    fp32: RemoteEngine, mixed: SnapshotRef, blobs: dict[str, bytes]
) -> None:
    facts = fp32.commit("eset_facts", None, {name: blobs[name] for name in FACTS})
    clauses = fp32.commit("eset_clauses", None, {name: blobs[name] for name in CLAUSES})

    def answers(snapshot: SnapshotRef | None) -> list[list[dict[int, float]]]:
        return [a.logprobs for a in fp32.run([replace(job, snapshot=snapshot) for job in JOBS])]

    assert answers(mixed) == answers(facts)
    assert answers(clauses) == answers(None)
    assert answers(facts) != answers(None)


def test_what_ended_or_is_switched_off_does_not_lead(fp32: RemoteEngine, blobs: dict[str, bytes]) -> None:
    base = SnapshotRef.empty("eset_off")
    keys = [(name, 1) for name in CLAUSES]
    delta = SnapshotDelta(None, base.advance(keys, []), tuple(blobs[name] for name in CLAUSES))
    fp32.call("commit", delta)
    before = leads_of(fp32, delta.snapshot)
    first = next(leads[0] for leads in before if leads)
    off = SnapshotDelta(delta.snapshot.id, replace(delta.snapshot, version=2), barred=(first,))
    fp32.call("commit", off)
    assert all(first not in leads for leads in leads_of(fp32, off.snapshot))
    ended = SnapshotRef.empty("eset_ended").advance([(first, 1)], [])
    fp32.call("commit", SnapshotDelta(None, ended, (blobs[first],), until=(1,)))
    assert leads_of(fp32, ended) == [[]] * len(JOBS)
