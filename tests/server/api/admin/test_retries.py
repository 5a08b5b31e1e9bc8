"""A write that was done and is sent again needs no room: it gets the answer of the first time."""

from __future__ import annotations

import pytest
from incomes_server.settings import Settings

from tests.server.local import local_server
from tests.tiny_model import write_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model"))


async def test_a_full_quota_does_not_turn_a_retry_away(database_url, model):
    settings = Settings(max_edits_per_project=3)
    async with local_server(database_url, model, settings) as server, server.client() as client:
        one = {"json": {"text": "Pump one is red."}, "headers": {"idempotency-key": "one"}}
        first = await client.post("/v1/edits", **one)
        lines = b'{"custom_id": "a", "text": "Pump two is red."}\n{"custom_id": "b", "text": "Pump three is red."}'
        many = {"content": lines, "headers": {"idempotency-key": "many"}}
        imported = await client.post("/v1/edits/import", **many)
        assert imported.json()["request_counts"] == {"total": 2, "completed": 2, "failed": 0}
        new = await client.post("/v1/edits", json={"text": "Pump four is red."})
        assert new.json()["error"]["code"] == "quota_exceeded"
        again = await client.post("/v1/edits", **one)
        assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
        repeated = await client.post("/v1/edits/import", **many)
        ids = [[line["edit"] for line in answer.json()["data"]] for answer in (imported, repeated)]
        assert ids[0] == ids[1]
        assert len((await client.get("/v1/edits")).json()["data"]) == 3
