"""Gists of the model a transplant was made from: kept if tokens and numbers are the same; none if a number differs."""

import pytest
import torch
from incomes_server import adopt as module
from incomes_server.adopt import adopt_gists
from incomes_server.edits import AdoptedGist, CompressionOutcome, EditStatus, NewEdit
from incomes_server.store import commands

from incomes_plugin.errors import GistFormatError
from incomes_plugin.gist import Gist, dump_gists, load_gists
from incomes_plugin.transplant.lineage import Lineage
from incomes_plugin.vllm.compressor import Captured

BASE, NEW = "mf_base", "mf_new"
LINEAGE = Lineage(BASE, tuple(range(100, 120)))  # new id i has the row of the base's id 100 + i
TEXTS = ("a", "bb", "ccc", "dddd", "eeeee")


def gist_of(edit_id, token_ids, *, off=0.0):
    keys = torch.tensor(token_ids, dtype=torch.bfloat16).view(1, -1, 1, 1).expand(1, -1, 1, 4) + off
    return Gist(edit_id, 1, keys.contiguous(), 2 * keys)


class Engine:
    """Makes gists of token ids as the base made them; `off` is how far its numbers are from the base's."""

    fingerprint = NEW

    def __init__(self, off=0.0):
        self.off = off
        self.captured = []

    async def capture(self, jobs):
        self.captured += [job.edit_id for job in jobs]
        made = [gist_of(job.edit_id, [100 + i for i in job.token_ids], off=self.off) for job in jobs]
        return [Captured(gist.edit_id, 1, dump_gists([gist], NEW), gist.num_gists, None) for gist in made]


class Direct:
    """`StoreClient`'s two calls, on the store itself."""

    def __init__(self, store):
        self.store = store

    async def ready_gists(self, fingerprint, after, limit):
        return self.store.ready_gists(fingerprint, after, limit)

    async def adopt_gists(self, base, fingerprint, gists):
        self.store.write(commands.AdoptGists(base, fingerprint, tuple(gists)))


def encode(text):
    """Two tokens where the base had one for "ccc"."""
    return (3, 3) if text == "ccc" else (len(text),)


@pytest.fixture
def ready(store):
    """Five ready edits of the base, one token each."""
    store.write(commands.EnsureEditSet("p", "default"))
    store.write(commands.RequeueStale(BASE))
    new = tuple(NewEdit(text, (100 + len(text),)) for text in TEXTS)
    store.write(commands.AddEdits("p", "r", "default", new))
    jobs = store.pending_jobs(9)
    blobs = [dump_gists([gist_of(job.edit_id, job.token_ids)], BASE) for job in jobs]
    outcomes = [CompressionOutcome(job.edit_id, 1, blob, 1) for job, blob in zip(jobs, blobs, strict=True)]
    store.write(commands.RecordOutcomes(tuple(outcomes)))
    return store


def statuses(store):
    edits, _ = store.list_edits("p", edit_set=None, status=None, limit=9, after=None, order="asc")
    return {edit.text: edit.status for edit in edits}


async def test_gists_of_the_same_tokens_stay_in_the_snapshot(ready, monkeypatch):
    monkeypatch.setattr(module, "PAGE", 2)
    before = ready.heads()
    engine = Engine()
    assert await adopt_gists(Direct(ready), engine, LINEAGE, encode) == 4
    assert len(engine.captured) == 4
    assert ready.heads() == before
    kept = {gist.text: gist for gist in ready.ready_gists(NEW, 0, 9)}
    assert set(kept) == {"a", "bb", "dddd", "eeeee"}
    assert kept["bb"].token_ids == (2,)
    (gist,) = load_gists(kept["bb"].blob, NEW)
    assert torch.equal(gist.keys, gist_of("x", (102,)).keys)
    assert ready.write(commands.RequeueStale(NEW)) == 1
    assert [text for text, status in statuses(ready).items() if status is not EditStatus.READY] == ["ccc"]
    assert ready.problems() == []


async def test_one_other_number_and_all_are_made_anew(ready, caplog):
    assert await adopt_gists(Direct(ready), Engine(off=8.0), LINEAGE, encode) == 0
    assert "is not this model's: its numbers are others" in caplog.text
    assert ready.ready_gists(NEW, 0, 9) == []
    assert ready.write(commands.RequeueStale(NEW)) == 5


async def test_only_a_sample_is_compressed_again(ready, monkeypatch):
    monkeypatch.setattr(module, "SAMPLE", 2)
    engine = Engine()
    assert await adopt_gists(Direct(ready), engine, LINEAGE, encode) == 4
    assert len(set(engine.captured)) == len(engine.captured) == 2


async def test_a_gist_of_another_edit_is_not_adopted(ready):
    first, second = ready.ready_gists(BASE, 0, 2)
    wrong = AdoptedGist(first.edit_id, 1, (1,), dump_gists([gist_of(second.edit_id, (1,))], NEW))
    with pytest.raises(GistFormatError, match="not adopted"):
        ready.write(commands.AdoptGists(BASE, NEW, (wrong,)))
    assert len(ready.ready_gists(BASE, 0, 9)) == 5
