"""Capture and commit under the spans of the writes whose edits they are for."""

import pytest
from incomes_server.boot import observed
from incomes_server.boot.observed import ObservedEngine

from incomes_plugin.gist.edit import Captured, CaptureJob
from incomes_plugin.pool.snapshot import SnapshotDelta, SnapshotRef

A, B = (f"00-{n}af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" for n in (1, 2))


class Engine:
    def __init__(self):
        self.commits = []

    async def capture(self, jobs):
        return [Captured(*job.edit, job.edit_id.encode() if job.edit_id != "bad" else None) for job in jobs]

    async def commit(self, delta):
        self.commits.append(delta)


@pytest.fixture
def spans(monkeypatch):
    seen = []
    real = observed.spans

    def recorded(name, parents, **attributes):
        parents = list(parents)
        seen.append((name, sorted({p for p in parents if p})))
        return real(name, parents, **attributes)

    monkeypatch.setattr(observed, "spans", recorded)
    return seen


async def test_a_commit_is_in_the_traces_of_the_writes_that_it_adds(spans):
    engine = ObservedEngine(Engine())
    jobs = [CaptureJob("a", 1, (1,), A), CaptureJob("b", 1, (1,), B), CaptureJob("bad", 1, (1,), B)]
    await engine.capture([*jobs, CaptureJob("untraced", 1, (1,))])
    await engine.commit(SnapshotDelta(None, SnapshotRef.empty("s"), (b"a", b"untraced")))
    await engine.commit(SnapshotDelta(None, SnapshotRef.empty("s"), (b"a", b"b")))
    assert spans == [("edits.compress", [A, B]), ("edits.commit", [A]), ("edits.commit", [B])]


async def test_what_is_remembered_is_bounded(monkeypatch):
    monkeypatch.setattr(observed, "REMEMBERED", 3)
    engine = ObservedEngine(Engine())
    await engine.capture([CaptureJob(f"e{n}", 1, (1,), A) for n in range(9)])
    assert len(engine._writers) == 3
