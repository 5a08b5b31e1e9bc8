"""Limits of a project: by the settings, and by an operator, who changes them while the server runs."""

from __future__ import annotations

import itertools

import pytest
from incomes_server.settings import Settings

from tests.eventually import eventually
from tests.server.api.admin.serving import serving
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.ray
SETTINGS = Settings(
    api_keys=("ops:k-ops", "zen:k-zen"), operator_project="ops", max_writes_per_minute_per_project=4, pool_bytes=1 << 28
)
OPS, ZEN = {"authorization": "Bearer k-ops"}, {"authorization": "Bearer k-zen"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model"))


async def add(client, text, headers=ZEN):
    return await client.post("/v1/edits", json={"text": text}, headers=headers)


async def reads_limits(client, rate):
    """A refused write costs no edit; which rate it met is in its headers."""
    return (await client.post("/v1/edits", json={}, headers=ZEN)).headers["x-ratelimit-limit-requests"] == rate


async def test_writes_beyond_the_rate_wait(stack, model):
    async with serving(stack, model, settings=SETTINGS) as client:
        answers = [await add(client, f"Pump {number} is red.") for number in range(5)]
        assert [answer.status_code for answer in answers] == [202] * 4 + [429]
        assert [answer.headers["x-ratelimit-remaining-requests"] for answer in answers] == ["3", "2", "1", "0", "0"]
        refused = answers[-1]
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert refused.json()["error"]["type"] == "rate_limit_error"
        assert 14 <= int(refused.headers["retry-after"]) <= 15
        assert (await client.get("/v1/edits", headers=ZEN)).status_code == 200, "reading is no write"
        assert (await add(client, "The other project goes on.", OPS)).status_code == 202
        body = {"writes_per_minute": 1000, "max_edits": 5}
        changed = await client.post("/v1/projects/zen", json=body, headers=OPS)
        assert (changed.json()["writes_per_minute"], changed.json()["max_gist_bytes"]) == (1000, None)
        own = await client.get("/v1/projects/zen", headers=ZEN)
        assert own.json() == changed.json()
        numbers = itertools.count()

        async def added_valve():
            return (await add(client, f"Valve {next(numbers)} is red.")).json().get("error", {}).get("code")

        await eventually(lambda: reads_limits(client, "1000"))
        codes = [await added_valve() for _ in range(3)]
        assert "rate_limit_exceeded" not in codes
        assert codes[-1] == "quota_exceeded"


async def test_only_an_operator_sets_limits(stack, model):
    async with serving(stack, model, settings=SETTINGS) as client:
        for name in ("zen", "ops"):
            refused = await client.post(f"/v1/projects/{name}", json={"max_edits": 10**6}, headers=ZEN)
            assert refused.status_code == 403
        assert (await client.get("/v1/projects/ops", headers=ZEN)).status_code == 404
        assert (await client.post("/v1/projects/zen", json={"max_edits": 0}, headers=OPS)).status_code == 400


def test_projects_of_the_api_share_the_pool():
    from incomes_server.auth.keys import KeyRing, Tenancy

    keys = KeyRing(SETTINGS.api_keys)
    quotas = SETTINGS.quotas_by(keys)
    whole = SETTINGS.quotas.usable_bytes
    assert quotas.of("zen").gist_bytes == whole // 2
    keys._tenancy = Tenancy(1, projects=frozenset({"acme", "zen"}))
    assert quotas.of("zen").gist_bytes == quotas.of("acme").gist_bytes == whole // 3
