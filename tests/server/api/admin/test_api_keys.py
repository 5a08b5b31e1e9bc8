"""Keys made by the API: what their scopes open, whose they are, and when they end."""

from __future__ import annotations

import time

import pytest
from incomes_server.settings import Settings
from sqlalchemy import text

from tests.eventually import SOON_S, eventually
from tests.server.api.admin.serving import serving
from tests.tiny_model import write_tiny_model

pytestmark = pytest.mark.ray
SETTINGS = Settings(api_keys=("ops:k-ops", "zen:k-zen"), operator_project="ops")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("model"))


def bearer(secret):
    return {"authorization": f"Bearer {secret}"}


async def made(client, project, *scopes, by="k-ops"):
    body = {"name": "bot", "scopes": scopes, "project": project}
    answer = await client.post("/v1/api_keys", json=body, headers=bearer(by))
    assert answer.status_code == 201, answer.text
    return answer.json()


async def refuses(client, headers):
    return (await client.get("/v1/edits", headers=headers)).status_code == 401


async def test_the_life_of_a_key(stack, model):
    async with serving(stack, model, settings=SETTINGS) as client:
        assert (await client.post("/v1/projects", json={"name": "acme"}, headers=bearer("k-ops"))).status_code == 201
        reader = await made(client, "acme", "edits:read")
        headers = bearer(reader["secret"])
        assert (await client.get("/v1/edits", headers=headers)).json()["data"] == []
        for method, path, body in (("POST", "/v1/edits", {"text": "x"}), ("GET", "/v1/api_keys", None)):
            refused = await client.request(method, path, json=body, headers=headers)
            assert (refused.status_code, refused.json()["error"]["code"]) == (403, "permission_denied")
        new = (await client.post(
            f"/v1/api_keys/{reader['id']}/rotate?project=acme", json={"grace_s": 1}, headers=bearer("k-ops")
        )).json()  # fmt: skip
        assert (new["scopes"], new["project"]) == (["edits:read"], "acme")
        for secret in (reader["secret"], new["secret"]):
            assert (await client.get("/v1/edits", headers=bearer(secret))).status_code == 200
        await eventually(lambda: refuses(client, headers))
        path = f"/v1/api_keys/{new['id']}?project=acme"
        assert (await client.delete(path, headers=bearer("k-ops"))).json()["revoked_at"] is not None
        revoked = time.monotonic()
        while (await client.get("/v1/edits", headers=bearer(new["secret"]))).status_code == 200:
            assert time.monotonic() - revoked < SOON_S
        assert (await client.get("/v1/edits", headers=bearer(new["secret"]))).status_code == 401
        listed = (await client.get("/v1/api_keys?project=acme", headers=bearer("k-ops"))).json()["data"]
        assert [key["id"] for key in listed] == [new["id"], reader["id"]]
        assert listed[1]["replaced_by"] == new["id"]
        assert [key["secret"] for key in listed] == [None, None]
    with stack.core()._reader.connect() as conn:
        rows = repr(conn.execute(text("SELECT * FROM api_keys")).all())
    assert reader["id"] in rows
    assert reader["secret"] not in rows


async def test_a_key_that_is_asked_for_twice_is_told_once(stack, model):
    async with serving(stack, model, settings=SETTINGS) as client:
        headers = bearer("k-zen") | {"idempotency-key": "one"}
        body = {"name": "bot", "scopes": ["chat"]}
        first, second = [(await client.post("/v1/api_keys", json=body, headers=headers)).json() for _ in range(2)]
        assert first["secret"].startswith("inc_")
        assert second == {**first, "secret": None}
        other = await client.post("/v1/api_keys", json={**body, "scopes": ["admin"]}, headers=headers)
        assert other.json()["error"]["code"] == "idempotency_key_reuse"


async def test_only_an_operator_acts_for_others(stack, model):
    async with serving(stack, model, settings=SETTINGS) as client:
        own = await made(client, "zen", "admin", by="k-zen")
        theirs = await made(client, "ops", "chat")
        for secret in ("k-zen", own["secret"]):
            headers = bearer(secret)
            for method, path, body in (
                ("POST", "/v1/api_keys", {"name": "x", "scopes": ["admin"], "project": "ops"}),
                ("GET", "/v1/api_keys?project=ops", None),
                ("DELETE", f"/v1/api_keys/{theirs['id']}?project=ops", None),
                ("POST", f"/v1/api_keys/{theirs['id']}/rotate?project=ops", {}),
            ):
                answer = await client.request(method, path, json=body, headers=headers)
                assert (answer.status_code, answer.json()["error"]["code"]) == (404, "project_not_found"), path
            unknown = await client.get("/v1/api_keys?project=nowhere", headers=headers)
            known = await client.get("/v1/api_keys?project=ops", headers=headers)
            assert unknown.json()["error"]["message"].replace("nowhere", "ops") == known.json()["error"]["message"]
            gone = await client.delete(f"/v1/api_keys/{theirs['id']}", headers=headers)
            assert gone.json()["error"]["code"] == "api_key_not_found"
            assert (await client.post("/v1/projects", json={"name": "y"}, headers=headers)).status_code == 403
        assert (await client.get("/v1/edits", headers=bearer(theirs["secret"]))).status_code == 403
