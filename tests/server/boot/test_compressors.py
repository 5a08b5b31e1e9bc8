"""How many engines that only compress there should be, by the queue that runs; Ray Serve's part is tests/e2e's."""

import asyncio

import pytest
from incomes_server.boot import compressors
from incomes_server.boot.compressors import CompressorArgs, QueueDepth
from incomes_server.compression.model import LeaseDone
from incomes_server.edits import NewEdit
from pydantic import ValidationError

from incomes_plugin.gist.edit import CaptureJob
from tests.server.gists import outcome_of

pytestmark = pytest.mark.ray


async def asked(policy):
    """What it says when the queue has answered: Serve asks again and again, and never waits."""
    policy.asked_s = float("-inf")
    policy(None)
    await policy.asking
    return policy(None)[0]


async def test_each_has_its_share_of_what_waits_and_of_what_is_being_made(stack, project):
    policy = QueueDepth(stack.settings.namespace, 10)
    assert policy(None) == (0, {}), "nothing is known yet"
    assert await asked(policy) == 0
    await stack.store.ensure_edit_set(project, "default")
    edits = await stack.store.add_edits(project, "default", [NewEdit("a", (1,))] * 21, request_id="add")
    await stack.compression.submit([CaptureJob(edit.id, 1, (1,)) for edit in edits], interactive=True)
    assert await asked(policy) == 3
    lease = await stack.compression.lease("w", 64, timeout_s=5)
    assert await asked(policy) == 3, "a worker that works alone is not ended"
    made = [outcome_of(job.edit_id, job.version) for job in lease.jobs]
    await stack.store.record_outcomes(made)
    done = LeaseDone(lease.id, tuple(captured.edit for captured in made), {})
    await stack.compression.lease("w", 1, timeout_s=0, done=done)
    assert await asked(policy) == 0


async def test_a_queue_that_is_not_there_wants_nobody_and_one_that_is_silent_changes_nothing(stack, monkeypatch):
    assert await asked(QueueDepth("no such namespace", 10)) == 0
    policy = QueueDepth(stack.settings.namespace, 10)
    policy.depth = 25

    async def silent(namespace):
        await asyncio.Event().wait()

    monkeypatch.setattr(compressors, "_depth", silent)
    monkeypatch.setattr(compressors, "ANSWER_WITHIN_S", 0.1)
    assert await asked(policy) == 3


def test_an_unknown_argument_is_refused():
    with pytest.raises(ValidationError, match="max_workers"):
        CompressorArgs.model_validate({"config": "a.yaml", "max_workers": 3})
