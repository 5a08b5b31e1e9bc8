"""How often the actors are called in one edit's life: from its request to its acknowledgement by every replica."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest
from incomes_server.replicas.sync import WAIT_S

from tests.server.api.admin.serving import serving
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model"))


async def added(client, text):
    params = {"wait": "active", "timeout_s": 60}
    answer = await client.post("/v1/edits", json={"text": text}, params=params)
    assert answer.status_code == 201, answer.text
    assert answer.json()["reached"] == "active"


async def idle(stack):
    """The lease is settled, and worker and replica wait for what comes next."""
    while (await stack.compression.stats()).leased:
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)


async def test_an_edits_life_takes_six_calls(stack, model, figure):
    calls = Counter()
    async with serving(stack, model, calls) as client:
        await added(client, "The first edit makes the default set.")
        await idle(stack)
        calls.clear()
        started = time.monotonic()
        await added(client, "The warranty of pump Z9 is 36 months.")
        await idle(stack)
        elapsed_s = time.monotonic() - started
        made = Counter(calls)
    figure(f"calls of actors in one edit's life: {dict(made)}")
    polls = made.pop("poll")
    made.pop("read", None)  # what projects use, looked up once a second at most
    assert made == {"write": 2, "submit": 1, "wait_edits": 1, "lease": 1}
    assert 1 <= polls <= 2 + elapsed_s / WAIT_S
